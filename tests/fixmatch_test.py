"""FixMatch, UDA, FlexMatch, FreeMatch and SoftMatch against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    softmax,
    tiny_algorithm,
    tiny_batch,
)
from tf_metassl.algorithms import uda
from tf_metassl.algorithms.uda import tsa_threshold


def predictions(algorithm, batch):
    """Probabilities of the three groups, run as one batch-norm batch."""
    groups = [
        batch["labeled"]["weak"],
        batch["unlabeled"]["weak"],
        batch["unlabeled"]["strong"],
    ]
    logits = algorithm.student(tf.concat(groups, 0), training=True).numpy()
    return np.split(softmax(logits), [8, 24])


def results(algorithm):
    return {
        name: float(tracker.result())
        for name, tracker in algorithm._trackers.items()
    }


def sharp(name, **hp):
    """An algorithm whose predictions are neither all alike nor all sure."""
    algorithm = tiny_algorithm(name, **hp)
    kernel, bias = algorithm.student.layers[-1].variables
    kernel.assign(kernel.value * 8.0)
    bias.assign([0.5, 0.0, -0.5])
    return algorithm


def labeled_loss(batch, probs):
    label = batch["labeled"]["label"].numpy()
    return -np.log(probs[np.arange(8), label])


def test_fixmatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp(
        "fixmatch", confidence_threshold=0.6, unlabeled_loss_weight=3.0
    )
    labeled, weak, strong = predictions(algorithm, batch)
    loss = float(algorithm.compute_losses(batch))

    unlabeled_loss, correct, selected = 0.0, 0, 0
    for w, s, truth in zip(
        weak, strong, batch["unlabeled"]["oracle_label"].numpy(), strict=True
    ):
        if w.max() >= 0.6:
            unlabeled_loss -= np.log(s[w.argmax()])
            selected += 1
            correct += w.argmax() == truth
    # Neither a mask of [N, 1] nor a divisor of the selected ones hides.
    assert 3 < selected < 13
    unlabeled_loss /= 16
    expected = labeled_loss(batch, labeled).mean() + 3.0 * unlabeled_loss
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    found = results(algorithm)
    np.testing.assert_allclose(found["unlabeled_loss"], unlabeled_loss)
    np.testing.assert_allclose(found["selected_share"], selected / 16)
    np.testing.assert_allclose(
        found["selected_pseudo_label_accuracy"], correct / selected, rtol=1e-6
    )


def test_fixmatch_selects_at_the_threshold_and_uda_above_it():
    probs = tf.constant([[0.75, 0.25, 0.0], [0.5, 0.25, 0.25]])
    weights = [
        tiny_algorithm(name, confidence_threshold=0.75)
        .example_weight(probs, None)
        .numpy()
        .tolist()
        for name in ("fixmatch", "uda")
    ]
    assert weights == [[1, 0], [0, 0]]


def test_flexmatch_selects_and_remembers_at_the_threshold():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.75)
    algorithm.select_unlabeled(np.array([3, 4, 5]))
    table = np.full(NUM_IMAGES, -1)
    table[3:6] = 0
    algorithm.confident_label.assign(table)
    np.testing.assert_array_equal(algorithm.threshold_scale(), [1, 0, 0])
    probs = tf.constant([[0.75, 0.25, 0.0], [0.625, 0.375, 0.0]])
    weight = algorithm.example_weight(probs, tf.constant([3, 4], tf.int64))
    assert weight.numpy().tolist() == [1, 0]
    probs = tf.constant([[0.0, 0.75, 0.25], [0.0, 0.625, 0.375]])
    algorithm.example_weight(probs, tf.constant([4, 5], tf.int64))
    assert algorithm.confident_label.numpy()[[3, 4, 5]].tolist() == [0, 1, 0]


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


def test_annealing_learns_an_image_at_the_threshold(monkeypatch):
    logits = tf.constant([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    threshold = tf.nn.softmax(logits)[0, 0]
    monkeypatch.setattr(uda, "tsa_threshold", lambda *_: threshold)
    algorithm = tiny_algorithm("uda", tsa_schedule="linear")
    loss = algorithm.labeled_loss(tf.one_hot([0, 0], 3), logits)
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


@pytest.mark.parametrize("name", ("fixmatch", "uda"))
def test_no_gradient_passes_through_the_target(name, float64):
    batch = tiny_batch()
    algorithm = sharp(name, confidence_threshold=0.0)
    logits = tf.Variable(np.random.default_rng(0).normal(size=(16, 3)))
    with tf.GradientTape() as tape:
        target = algorithm.pseudo_label(logits)
        total = tf.reduce_sum(target * tf.range(3, dtype=tf.float64))
    assert tape.gradient(total, logits) is None
    assert np.isfinite(float(algorithm.compute_losses(batch)))


def test_uda_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp(
        "uda",
        confidence_threshold=0.6,
        temperature=0.4,
        tsa_schedule="linear",
        tsa_steps=100,
    )
    algorithm.optimizer.iterations.assign(40)
    labeled, weak, strong = predictions(algorithm, batch)
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
    # Training signal annealing, at 40 % of the way from 1/3 to 1, divides by
    # the number of images that it keeps.
    true_prob = labeled[np.arange(8), batch["labeled"]["label"].numpy()]
    kept = true_prob <= 0.4 * (2 / 3) + 1 / 3
    assert 0 < kept.sum() < 8
    expected = labeled_loss(batch, labeled)[kept].mean() + unlabeled_loss / 16
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


def one_hot_probs(label, confidence):
    """Rows with `confidence` at `label`, the rest spread evenly."""
    rest = (1 - np.array(confidence)) / (NUM_CLASSES - 1)
    probs = np.repeat(rest[:, None], NUM_CLASSES, 1)
    probs[np.arange(len(label)), label] = confidence
    return tf.constant(probs, tf.float32)


def test_flexmatch_starts_open_and_scales_by_what_it_remembers():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.9)
    algorithm.select_unlabeled(np.array([3, 4, 5, 6, 7, 8, 8]))
    assert float(algorithm.pool_size) == 6
    np.testing.assert_array_equal(algorithm.threshold_scale(), np.zeros(3))

    # The table is written after the threshold was used: all are selected.
    probs = one_hot_probs([0, 0, 0, 1], [0.95, 0.91, 0.92, 0.5])
    weight = algorithm.example_weight(
        probs, tf.constant([3, 4, 5, 6], tf.int64)
    )
    assert weight.numpy().tolist() == [1, 1, 1, 1]
    table = algorithm.confident_label.numpy()
    assert table[[3, 4, 5, 6]].tolist() == [0, 0, 0, -1]
    assert (np.delete(table, [3, 4, 5]) == -1).all()
    # Three of class 0, three of the pool of six without a label.
    np.testing.assert_allclose(algorithm.threshold_scale(), [1, 0, 0])

    # Class 1: 1/3 of the largest, hence 0.9 * (1/3) / (2 - 1/3) = 0.18.
    probs = one_hot_probs([1, 0, 0], [0.97, 0.9001, 0.89])
    weight = algorithm.example_weight(probs, tf.constant([6, 7, 8], tf.int64))
    assert weight.numpy().tolist() == [1, 1, 0]
    np.testing.assert_allclose(
        algorithm.threshold_scale(), [1, 0.25 / 1.75, 0], rtol=1e-6
    )


def test_flexmatchs_unused_images_hold_the_thresholds_down():
    algorithm = tiny_algorithm("flexmatch")
    assert float(algorithm.pool_size) == NUM_IMAGES
    algorithm.select_unlabeled(np.arange(10))
    table = np.full(NUM_IMAGES, -1)
    table[:3] = [0, 0, 1]
    algorithm.confident_label.assign(table)
    beta = np.array([2 / 7, 1 / 7, 0])
    np.testing.assert_allclose(
        algorithm.threshold_scale(), beta / (2 - beta), rtol=1e-6
    )


def test_flexmatch_does_not_forget_when_it_is_unsure():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.9)
    index = tf.constant([7], tf.int64)
    for confidence in (0.95, 0.5):
        algorithm.example_weight(one_hot_probs([2], [confidence]), index)
    assert algorithm.confident_label.numpy()[7] == 2


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
    algorithm = sharp("freematch", statistics_decay=0.5, fairness_weight=0.1)
    algorithm.mean_confidence.assign(0.7)
    algorithm.mean_probs.assign([0.5, 0.3, 0.2])
    algorithm.label_share.assign([0.6, 0.2, 0.2])
    labeled, weak, strong = predictions(algorithm, batch)
    means = 0.7, np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.2, 0.2])
    mask, threshold, fairness = freematch_oracle(weak, strong, means, 0.5, 1.0)
    assert 0 < mask.sum() < 16
    loss = float(algorithm.compute_losses(batch))
    np.testing.assert_allclose(algorithm.thresholds(), threshold, rtol=1e-9)
    losses = -np.log(strong[np.arange(16), weak.argmax(1)])
    expected = (
        labeled_loss(batch, labeled).mean()
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


def test_softmatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp("softmatch", statistics_decay=0.5, num_sigmas=2.0)
    algorithm.optimizer.iterations.assign(7)
    algorithm.mean_probs.assign([0.5, 0.3, 0.2])
    labeled, weak, strong = predictions(algorithm, batch)
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
    expected = labeled_loss(batch, labeled).mean() + (weight * losses).mean()
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


def test_flexmatchs_table_is_written_after_the_mask():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.9)
    algorithm.select_unlabeled(np.array([3, 4, 5, 6, 7, 8]))
    # Written before, the table would raise the threshold of class 0 at once.
    probs = one_hot_probs([0, 0, 0, 0], [0.95, 0.91, 0.92, 0.5])
    weight = algorithm.example_weight(
        probs, tf.constant([3, 4, 5, 6], tf.int64)
    )
    assert weight.numpy().tolist() == [1, 1, 1, 1]
