"""SoftMatch against NumPy."""

import numpy as np

from tests.helpers import (
    fixmatch_predictions,
    labeled_losses,
    one_hot_probs,
    sharp_algorithm,
    tiny_algorithm,
    tiny_batch,
)


def test_softmatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "softmatch", statistics_decay=0.5, num_sigmas=2.0
    )
    algorithm.optimizer.iterations.assign(7)
    algorithm.mean_probs.assign([0.5, 0.3, 0.2])
    labeled, weak, strong = fixmatch_predictions(algorithm, batch)
    loss = float(algorithm.compute_losses(batch))

    current = 0.5 * np.array([0.5, 0.3, 0.2]) + 0.5 * weak.mean(0)
    aligned = weak * (1 / 3 + 1e-6) / (current + 1e-6)
    aligned /= aligned.sum(1, keepdims=True)
    confidence = aligned.max(1)
    mean = 0.5 / 3 + 0.5 * confidence.mean()
    variance = 0.5 + 0.5 * confidence.var(ddof=1)
    weight = np.exp(
        -(np.minimum(confidence - mean, 0) ** 2) / (2 * variance / 4)
    )
    # What is above the mean counts in full.
    assert 0 < (weight == 1).sum() < 16
    # The pseudo-label is not aligned.
    assert (aligned.argmax(1) != weak.argmax(1)).any()
    losses = -np.log(strong[np.arange(16), weak.argmax(1)])
    expected = labeled_losses(batch, labeled).mean() + (weight * losses).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-8)


def test_softmatchs_first_mean_prediction_is_taken_as_it_is():
    algorithm = tiny_algorithm("softmatch", statistics_decay=0.9)
    probs = one_hot_probs([0, 0, 1], [0.8, 0.6, 0.5])
    algorithm.example_weight(probs, None)
    np.testing.assert_allclose(
        algorithm.mean_probs, probs.numpy().mean(0), rtol=1e-6
    )
    off = tiny_algorithm("softmatch", uniform_alignment=False)
    off.example_weight(probs, None)
    np.testing.assert_allclose(off.mean_probs, [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(
        off.mean_confidence, 0.99 / 3 + 0.01 * 1.9 / 3, rtol=1e-6
    )
