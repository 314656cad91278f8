"""AdaMatch against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    fixmatch_predictions,
    labeled_losses,
    sharp_algorithm,
    tiny_algorithm,
    tiny_batch,
)


def test_adamatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "adamatch",
        statistics_decay=0.5,
        relative_threshold=0.9,
        unlabeled_loss_weight=3.0,
    )
    algorithm.optimizer.iterations.assign(7)
    algorithm.labeled_probs.assign([0.6, 0.3, 0.1])
    algorithm.mean_probs.assign([0.2, 0.3, 0.5])
    labeled, weak, strong = fixmatch_predictions(algorithm, batch)
    loss = float(algorithm.compute_losses(batch))

    target = 0.5 * np.array([0.6, 0.3, 0.1]) + 0.5 * labeled.mean(0)
    current = 0.5 * np.array([0.2, 0.3, 0.5]) + 0.5 * weak.mean(0)
    aligned = weak * (target + 1e-6) / (current + 1e-6)
    aligned /= aligned.sum(1, keepdims=True)
    threshold = 0.9 * labeled.max(1).mean()
    mask = aligned.max(1) >= threshold
    assert 0 < mask.sum() < 16
    # The pseudo-label is aligned, and so is the confidence.
    label = aligned.argmax(1)
    assert (label != weak.argmax(1)).any()
    assert (mask != (weak.max(1) >= threshold)).any()
    losses = -np.log(strong[np.arange(16), label])
    expected = labeled_losses(batch, labeled).mean()
    expected += 3.0 * (mask * losses).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-8)


def test_the_threshold_is_a_share_of_the_mean_confidence():
    """Over images, after the maximum over classes."""
    algorithm = tiny_algorithm("adamatch", relative_threshold=0.5)
    probs = tf.constant([[0.6, 0.3, 0.1], [0.0, 0.2, 0.8]])
    assert float(algorithm.threshold(probs)) == pytest.approx(0.5 * 0.7)
    # An image at the threshold is selected: no alignment, as both are alike.
    logits = tf.math.log([[0.5, 0.25, 0.25]] * 2)
    full = tiny_algorithm("adamatch", relative_threshold=1.0)
    _, weight = full.targets(None, logits, logits, None)
    assert weight.numpy().tolist() == [1, 1]


def test_the_first_means_are_taken_as_they_are():
    algorithm = tiny_algorithm("adamatch", statistics_decay=0.9)
    labeled = tf.constant([[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]])
    probs = tf.constant([[0.25, 0.5, 0.25]])
    aligned = algorithm.aligned(labeled, probs)
    np.testing.assert_allclose(algorithm.labeled_probs, [0.5, 0.25, 0.25])
    np.testing.assert_allclose(algorithm.mean_probs, probs[0])
    np.testing.assert_allclose(aligned, [[0.5, 0.25, 0.25]], rtol=1e-4)


def test_no_gradient_passes_through_targets_and_threshold():
    algorithm = sharp_algorithm("adamatch")
    rng = np.random.default_rng(0)
    logits = [tf.Variable(rng.normal(size=(8, 3))) for _ in range(2)]
    with tf.GradientTape() as tape:
        target, weight = algorithm.targets(None, *logits, None)
        total = tf.reduce_sum(target[:, 0] * weight)
    assert tape.gradient(total, logits) == [None, None]
