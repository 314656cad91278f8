"""Mean Teacher: the loss by hand; what the teacher is and what it is not."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    gradient_of,
    loss_and_gradient,
    numpy_cross_entropy,
    perturb,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
)
from tf_metassl.meta import functional


def predictions(algorithm, batch):
    """Logits of labeled and unlabeled images, and the teacher's, by hand."""
    labeled, student = training_logits(
        algorithm.student,
        batch["labeled"]["weak"],
        batch["unlabeled"]["weak_1"],
    )
    teacher = algorithm.student
    if algorithm.ema is not None:
        teacher = tiny_network("teacher")
        teacher.set_weights(algorithm.ema.get_weights())
    (teacher_logits,) = training_logits(teacher, batch["unlabeled"]["weak_2"])
    return labeled, student, teacher_logits


@pytest.mark.parametrize("ema_decay", (0.0, 0.99))
def test_the_loss_by_hand(ema_decay, float64):
    algorithm = tiny_algorithm(
        "mean_teacher",
        unlabeled_loss_weight=8.0,
        unlabeled_ramp_steps=10,
        ema_decay=ema_decay,
    )
    if ema_decay:
        perturb(algorithm.ema)
    batch = tiny_batch()
    labeled, student, teacher = predictions(algorithm, batch)
    squared = (softmax(student) - softmax(teacher)) ** 2
    expected = numpy_cross_entropy(batch["labeled"]["label"].numpy(), labeled)
    expected += 8 * np.exp(-5) * squared.sum() / (16 * 3)
    loss, _ = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_no_gradient_goes_through_the_teacher(float64):
    """Without an average the student is its own teacher."""
    algorithm = tiny_algorithm(
        "mean_teacher",
        unlabeled_loss_weight=50.0,
        unlabeled_ramp_steps=0,
        ema_decay=0.0,
    )
    batch = tiny_batch()
    target = softmax(predictions(algorithm, batch)[2])
    label = np.eye(3)[batch["labeled"]["label"].numpy()]
    images = np.concatenate(
        [batch["labeled"]["weak"], batch["unlabeled"]["weak_1"]]
    )

    def loss_at(params):
        logits, _ = functional.call(
            algorithm.student,
            params,
            functional.state(algorithm.student),
            images,
        )
        log_probs = tf.nn.log_softmax(logits)
        squared = (tf.exp(log_probs[8:]) - target) ** 2
        return (
            50 * tf.reduce_mean(squared)
            - tf.reduce_sum(label * log_probs[:8]) / 8
        )

    _, actual = loss_and_gradient(algorithm, batch)
    for a, b in zip(
        actual, gradient_of(loss_at, algorithm.student), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)
