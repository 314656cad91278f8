"""Losses by hand-computed numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops.losses import (
    consistency_cross_entropy,
    cross_entropy,
    entropy,
    kl_divergence,
    smooth_labels,
    squared_error,
)


def test_cross_entropy_by_hand():
    labels = tf.constant([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]])
    logits = tf.math.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    expected = [
        np.log(2),
        -(0.5 * np.log(0.1) + 0.25 * np.log(0.2) + 0.25 * np.log(0.7)),
    ]
    loss = cross_entropy(labels, logits)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for jit_compile in (False, True):
        compiled = tf.function(cross_entropy, jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(labels, logits), loss, rtol=1e-6)


def test_cross_entropy_follows_a_permutation_and_survives_large_logits():
    labels = tf.one_hot([0, 2, 1, 1], 3)
    logits = tf.constant(
        [[1e4, 0, -1e4], [1.0, 2, 3], [-1, 5, 0.5], [3, -2, 1]]
    )
    loss = cross_entropy(labels, logits)
    assert np.isfinite(loss).all()
    order = [3, 1, 0, 2]
    permuted = cross_entropy(tf.gather(labels, order), tf.gather(logits, order))
    np.testing.assert_array_equal(permuted, tf.gather(loss, order))


@pytest.mark.parametrize(
    "labels, logits, message",
    [
        ((4,), (4, 3), r"the same shape, got \(4,\) and \(4, 3\)"),
        (
            (4, 3),
            (4,),
            r"logits: expected a tensor of rank 2, got shape \(4,\)",
        ),
        ((4, 2), (4, 3), r"\(4, 2\) and \(4, 3\)"),
        ((1, 3), (4, 3), r"\(1, 3\) and \(4, 3\)"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(labels, logits, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(tf.zeros(labels), tf.zeros(logits))


def test_label_smoothing_by_hand():
    labels = tf.one_hot([1], 4)
    smoothed = smooth_labels(labels, 0.2)
    np.testing.assert_allclose(smoothed, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
    assert smooth_labels(labels, 0.0) is labels


def test_squared_error_is_a_mean_over_classes():
    targets = tf.constant([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    probs = tf.constant([[0.1, 0.7, 0.2], [0.2, 0.3, 0.5]])
    expected = [(0.16 + 0.04 + 0.04) / 3, 0]
    np.testing.assert_allclose(
        squared_error(targets, probs), expected, atol=1e-7
    )
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\)"):
        squared_error(targets, probs[:1])


def test_entropy_and_kl_divergence_by_hand():
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    q = np.array([[0.3, 0.3, 0.4], [0.1, 0.2, 0.7]])
    # Logits are known up to a constant per row.
    target_logits = tf.constant(np.log(p) + [[3.0], [-1.0]])
    logits = tf.constant(np.log(q))
    np.testing.assert_allclose(
        entropy(target_logits), -(p * np.log(p)).sum(-1), rtol=1e-9
    )
    divergence = kl_divergence(target_logits, logits)
    expected = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(divergence, expected, rtol=1e-9, atol=1e-12)
    reverse = kl_divergence(logits, target_logits)
    assert abs(divergence[0] - reverse[0]) > 1e-3


def test_uda_masks_the_sharpened_confidence_and_divides_by_all():
    weak = tf.math.log([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]])
    strong = tf.zeros([2, 3])
    # Sharpened with temperature 0.5: 0.25 / 0.38 and 0.64 / 0.66.
    loss, mask = consistency_cross_entropy(
        weak, strong, temperature=0.5, threshold=0.7
    )
    np.testing.assert_array_equal(mask, [0, 1])
    np.testing.assert_allclose(loss, [0, np.log(3)], rtol=1e-6)
    _, mask = consistency_cross_entropy(
        weak, strong, temperature=0.5, threshold=0.6
    )
    np.testing.assert_array_equal(mask, [1, 1])
    at_it = float(tf.nn.softmax(weak / 0.5)[0, 0])
    _, mask = consistency_cross_entropy(
        weak, strong, temperature=0.5, threshold=at_it
    )
    np.testing.assert_array_equal(mask, [1, 1])
    with tf.GradientTape() as tape:
        tape.watch(weak)
        loss, _ = consistency_cross_entropy(
            weak, strong, temperature=0.5, threshold=0.0
        )
    assert tape.gradient(loss, weak) is None


def test_smoothing_needs_to_know_the_number_of_classes():
    @tf.function(input_signature=[tf.TensorSpec([None, None])])
    def smooth(labels):
        return smooth_labels(labels, 0.1)

    with pytest.raises(ValueError, match=r"labels: expected a static size"):
        smooth(tf.eye(3))
