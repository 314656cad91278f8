"""UDA against NumPy."""

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
from tf_metassl.algorithms import uda
from tf_metassl.algorithms.uda import tsa_threshold


def test_annealing_learns_an_image_at_the_threshold(monkeypatch):
    logits = tf.constant([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    threshold = tf.nn.softmax(logits)[0, 0]
    monkeypatch.setattr(uda, "tsa_threshold", lambda *_: threshold)
    algorithm = tiny_algorithm("uda", tsa_schedule="linear")
    loss = algorithm.labeled_loss(tf.one_hot([0, 0], 3), logits)
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


def test_uda_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "uda",
        confidence_threshold=0.6,
        temperature=0.4,
        tsa_schedule="linear",
        tsa_steps=100,
    )
    algorithm.optimizer.iterations.assign(10)
    labeled, weak, strong = fixmatch_predictions(algorithm, batch)
    loss = float(algorithm.compute_losses(batch))

    unlabeled_loss, selected, sharpened_selected = 0.0, 0, 0
    for w, s in zip(weak, strong, strict=True):
        target = w ** (1 / 0.4) / (w ** (1 / 0.4)).sum()
        sharpened_selected += target.max() > 0.6
        if w.max() > 0.6:
            selected += 1
            unlabeled_loss -= (target * np.log(s)).sum()
    # The threshold is applied before sharpening.
    assert 3 < selected < sharpened_selected
    # Training signal annealing, at 10 % of the way from 1/3 to 1, divides by
    # the number of images that it keeps.
    true_prob = labeled[np.arange(8), batch["labeled"]["label"].numpy()]
    kept = true_prob <= 0.1 * (2 / 3) + 1 / 3
    assert 0 < kept.sum() < 8
    expected = labeled_losses(batch, labeled)[kept].mean() + unlabeled_loss / 16
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_udas_cross_entropy_has_the_gradient_of_the_divergence(float64):
    algorithm = tiny_algorithm("uda")
    rng = np.random.default_rng(1)
    logits_w, logits_s = rng.normal(size=(2, 5, 3))
    target = algorithm.pseudo_label(tf.constant(logits_w))
    logits = tf.Variable(logits_s)
    with tf.GradientTape(persistent=True) as tape:
        log_probs = tf.nn.log_softmax(logits)
        cross_entropy = -tf.reduce_sum(target * log_probs)
        divergence = tf.reduce_sum(target * (tf.math.log(target) - log_probs))
    np.testing.assert_allclose(
        tape.gradient(cross_entropy, logits),
        tape.gradient(divergence, logits),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    "schedule, shares",
    [
        ("linear", (0.0, 0.5, 1.0)),
        ("exp", (np.exp(-5), np.exp(-2.5), 1.0)),
        ("log", (0.0, 1 - np.exp(-2.5), 1 - np.exp(-5))),
    ],
)
def test_thresholds_of_training_signal_annealing(schedule, shares):
    for step, share in zip((0, 50, 100), shares, strict=True):
        threshold = tsa_threshold(schedule, tf.constant(step), 100, 4)
        np.testing.assert_allclose(threshold, 0.25 + 0.75 * share, rtol=1e-5)
    last = tsa_threshold(schedule, 100, 100, 4)
    assert float(tsa_threshold(schedule, 150, 100, 4)) == float(last)


def test_an_image_that_annealing_drops_changes_nothing():
    label = tf.one_hot([0, 1], 3)
    algorithm = tiny_algorithm("uda", tsa_schedule="linear", tsa_steps=10)
    learned, open_ = [9.0, 0.0, 0.0], [0.0, -1.0, 0.0]
    both = algorithm.labeled_loss(label, tf.constant([learned, open_]))
    one = algorithm.labeled_loss(label[1:], tf.constant([open_]))
    np.testing.assert_allclose(both, one, rtol=1e-6)
    none = algorithm.labeled_loss(label[:1], tf.constant([learned]))
    assert float(none) == 0.0
