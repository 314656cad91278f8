"""FreeMatch against NumPy."""

import numpy as np
import tensorflow as tf

from tests.helpers import (
    fixmatch_predictions,
    labeled_losses,
    one_hot_probs,
    sharp_algorithm,
    tiny_algorithm,
    tiny_batch,
)


def test_freematch_selects_at_the_threshold_of_the_class():
    algorithm = tiny_algorithm("freematch", statistics_decay=1.0)
    algorithm.mean_confidence.assign(0.75)
    algorithm.mean_probs.assign([0.25, 0.25, 0.5])
    probs = tf.constant(
        [[0.0, 0.25, 0.75], [0.0, 0.375, 0.625], [0.375, 0.3125, 0.3125]]
    )
    weight = algorithm.example_weight(probs, None)
    np.testing.assert_array_equal(algorithm.thresholds(), [0.375, 0.375, 0.75])
    assert weight.numpy().tolist() == [1, 0, 1]


def freematch_oracle(probs, strong, means, decay, clip):
    """The paper's equations 4 to 13 with loops, on given running means."""
    confidence, mean_probs, share = means
    label = probs.argmax(1)
    confidence = decay * confidence + (1 - decay) * probs.max(1).mean()
    mean_probs = decay * mean_probs + (1 - decay) * probs.mean(0)
    counts = np.bincount(label, minlength=3)
    share = decay * share + (1 - decay) * counts / len(label)
    threshold = min(confidence, clip) * mean_probs / mean_probs.max()
    mask = np.array(
        [p[c] >= threshold[c] for p, c in zip(probs, label, strict=True)]
    )
    kept = strong[mask]
    shares = np.bincount(kept.argmax(1), minlength=3) / len(kept)
    p = mean_probs / share
    q = np.array(
        [m / s if s else 0.0 for m, s in zip(kept.mean(0), shares, strict=True)]
    )
    p, q = p / p.sum(), q / q.sum()
    return mask, threshold, (p * np.log(q + 1e-12)).sum()


def test_freematch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "freematch", statistics_decay=0.5, fairness_weight=0.1
    )
    algorithm.mean_confidence.assign(0.7)
    algorithm.mean_probs.assign([0.5, 0.3, 0.2])
    algorithm.label_share.assign([0.6, 0.2, 0.2])
    labeled, weak, strong = fixmatch_predictions(algorithm, batch)
    means = 0.7, np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.2, 0.2])
    mask, threshold, fairness = freematch_oracle(weak, strong, means, 0.5, 1.0)
    assert 0 < mask.sum() < 16
    loss = float(algorithm.compute_losses(batch))
    np.testing.assert_allclose(algorithm.thresholds(), threshold, rtol=1e-9)
    losses = -np.log(strong[np.arange(16), weak.argmax(1)])
    expected = (
        labeled_losses(batch, labeled).mean()
        + (mask * losses).mean()
        + 0.1 * fairness
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


def test_freematch_starts_at_the_uniform_distribution():
    algorithm = tiny_algorithm("freematch")
    np.testing.assert_allclose(algorithm.thresholds(), [1 / 3] * 3)


def test_freematchs_bounded_confidence_is_the_one_that_goes_on():
    algorithm = tiny_algorithm(
        "freematch", statistics_decay=0.5, max_confidence_threshold=0.6
    )
    expected = 1 / 3
    for confidence in (0.95, 0.95, 0.4):
        probs = one_hot_probs([2], [confidence])
        algorithm.example_weight(probs, tf.constant([0]))
        expected = min(0.6, 0.5 * expected + 0.5 * confidence)
    # 0.598, if the mean itself had not been bounded.
    assert expected == 0.5
    np.testing.assert_allclose(algorithm.thresholds()[2], 0.5, rtol=1e-6)


def test_freematchs_fairness_without_a_selected_example_is_zero():
    algorithm = tiny_algorithm("freematch")
    logits = tf.Variable([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    with tf.GradientTape() as tape:
        term = algorithm.additional_loss(logits, tf.zeros([2]))
    assert float(term) == 0
    np.testing.assert_array_equal(tape.gradient(term, logits), np.zeros((2, 3)))
    with tf.GradientTape() as tape:
        term = algorithm.additional_loss(logits, tf.ones([2]))
    assert np.abs(tape.gradient(term, logits)).max() > 0
