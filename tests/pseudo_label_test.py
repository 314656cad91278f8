"""Pseudo-Label: threshold, divisor and ramp by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    gradient_of,
    loss_and_gradient,
    numpy_cross_entropy,
    softmax,
    tiny_algorithm,
    tiny_batch,
    training_logits,
)
from tf_metassl.meta import functional
from tf_metassl.ops.losses import cross_entropy


def logits_of(algorithm, batch):
    return training_logits(
        algorithm.student, batch["labeled"]["weak"], batch["unlabeled"]["weak"]
    )


def with_threshold(batch, **hp):
    """An algorithm that keeps some of the batch's images, and which ones."""
    algorithm = tiny_algorithm("pseudo_label")
    confidence = softmax(logits_of(algorithm, batch)[1]).max(-1)
    threshold = float(np.sort(confidence)[5:7].mean())
    student = algorithm.student
    algorithm = tiny_algorithm(
        "pseudo_label",
        network=lambda role: student,
        confidence_threshold=threshold,
        **hp,
    )
    return algorithm, confidence > threshold


def test_rejected_images_count_in_the_mean(float64):
    batch = tiny_batch()
    algorithm, kept = with_threshold(
        batch, unlabeled_loss_weight=2.0, unlabeled_ramp_steps=100
    )
    assert kept.sum() == 10
    labeled, unlabeled = logits_of(algorithm, batch)
    probabilities = softmax(unlabeled)
    label = batch["labeled"]["label"].numpy()
    sum_of_kept = -np.log(probabilities.max(-1)[kept]).sum()
    algorithm.optimizer.iterations.assign(25)
    expected = numpy_cross_entropy(label, labeled) + 2 * 0.25 * sum_of_kept / 16
    loss, _ = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    share = algorithm.metric("selected_share")
    np.testing.assert_allclose(share, 10 / 16)
    oracle_label = batch["unlabeled"]["oracle_label"].numpy()
    correct = probabilities.argmax(-1) == oracle_label
    for name, rows in (("", slice(None)), ("selected_", kept)):
        accuracy = algorithm.metric(f"{name}pseudo_label_accuracy")
        np.testing.assert_allclose(accuracy, correct[rows].mean())


def test_no_gradient_goes_through_label_or_mask(float64):
    batch = tiny_batch()
    algorithm, kept = with_threshold(
        batch, unlabeled_loss_weight=1.0, unlabeled_ramp_steps=0
    )
    prediction = logits_of(algorithm, batch)[1].argmax(-1)
    target = tf.constant(np.eye(NUM_CLASSES)[prediction])
    _, actual = loss_and_gradient(algorithm, batch)

    def loss_at(params):
        images = np.concatenate(
            [batch["labeled"]["weak"], batch["unlabeled"]["weak"]]
        )
        logits, _ = functional.call(
            algorithm.student,
            params,
            functional.state(algorithm.student),
            images,
        )
        label = algorithm.one_hot(batch["labeled"]["label"])
        losses = cross_entropy(target, logits[8:])
        labeled_loss = tf.reduce_mean(cross_entropy(label, logits[:8]))
        return labeled_loss + tf.reduce_sum(losses[kept]) / 16

    for a, b in zip(
        actual, gradient_of(loss_at, algorithm.student), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("below, share", [(0.0, 0), (1e-3, 1)])
def test_the_threshold_is_strict(below, share):
    # As it is rounded in a batch of this size.
    confidence = float(tf.nn.softmax(tf.zeros([16, 3]))[0, 0])
    algorithm = tiny_algorithm(
        "pseudo_label", confidence_threshold=confidence - below
    )
    for variable in algorithm.student.get_layer("logits").variables:
        variable.assign(np.zeros(variable.shape))
    algorithm.compute_losses(tiny_batch())
    assert algorithm.metric("selected_share") == share
