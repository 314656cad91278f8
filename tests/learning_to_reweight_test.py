"""Learning to Reweight: the weights by one gradient per example."""

import numpy as np
import tensorflow as tf

from tests.helpers import gradient_of, inner_product, tiny_algorithm, tiny_batch
from tf_metassl.meta import functional
from tf_metassl.ops.losses import cross_entropy


def test_the_update_weights_examples_by_how_much_they_agree(float64):
    algorithm = tiny_algorithm(
        "learning_to_reweight",
        weight_decay=0.0,
        labeled_loss_weight=0.5,
        pseudo_label="one_hot",
        pseudo_label_view="weak",
    )
    batch = tiny_batch()
    student = algorithm.student
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    label = algorithm.one_hot(labeled["label"])
    prediction = algorithm.ema(unlabeled["weak"], training=False)
    target = algorithm.one_hot(tf.argmax(prediction, axis=-1))
    state = functional.state(student)
    images = tf.concat([unlabeled["strong"], labeled["weak"]], 0)

    def clean_loss(params):
        logits, _ = functional.call(student, params, state, labeled["weak"])
        return tf.reduce_mean(cross_entropy(label, logits))

    def weighted_loss(weights, labeled_loss_weight=0.0):
        def loss(params):
            logits, _ = functional.call(student, params, state, images)
            clean = tf.reduce_mean(cross_entropy(label, logits[16:]))
            noisy = cross_entropy(target, logits[:16])
            return labeled_loss_weight * clean + tf.reduce_sum(weights * noisy)

        return loss

    clean_gradient = gradient_of(clean_loss, student)
    agreement = np.array(
        [
            inner_product(
                clean_gradient, gradient_of(weighted_loss(row), student)
            )
            for row in np.eye(16)
        ]
    )
    weights = np.maximum(agreement, 0)
    assert 0 < np.count_nonzero(weights) < 16
    weights /= weights.sum()
    expected = gradient_of(weighted_loss(weights, 0.5), student)

    captured = []
    algorithm.apply_gradients = lambda role, gradient: captured.extend(gradient)
    algorithm.train_step(batch)
    for a, b in zip(captured, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10)


def test_nothing_is_mixed():
    views = tiny_algorithm("learning_to_reweight").views
    assert views.mixup_alpha == 0
