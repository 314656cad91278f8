"""FixMatch against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    fixmatch_predictions,
    labeled_losses,
    run,
    sharp_algorithm,
    tiny_algorithm,
    tiny_batch,
)
from tf_metassl.contract import MIX_BLOCK


def test_fixmatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "fixmatch", confidence_threshold=0.6, unlabeled_loss_weight=3.0
    )
    labeled, weak, strong = fixmatch_predictions(algorithm, batch)
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
    expected = labeled_losses(batch, labeled).mean() + 3.0 * unlabeled_loss
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(
        algorithm.metric("unlabeled_loss"), unlabeled_loss
    )
    np.testing.assert_allclose(
        algorithm.metric("selected_share"), selected / 16
    )
    np.testing.assert_allclose(
        algorithm.metric("selected_pseudo_label_accuracy"),
        correct / selected,
        rtol=1e-6,
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


@pytest.mark.parametrize("name", ("fixmatch", "uda"))
def test_no_gradient_passes_through_the_target(name, float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(name, confidence_threshold=0.0)
    logits = tf.Variable(np.random.default_rng(0).normal(size=(16, 3)))
    with tf.GradientTape() as tape:
        target = algorithm.pseudo_label(logits)
        total = tf.reduce_sum(target * tf.range(3, dtype=tf.float64))
    assert tape.gradient(total, logits) is None
    assert np.isfinite(float(algorithm.compute_losses(batch)))


def test_mixup_of_the_labeled_images_alone(float64):
    """As published without it; mixed labeled images and labels with it."""
    batch = tiny_batch()
    mixed = sharp_algorithm("fixmatch", labeled_mixup_alpha=1.0)
    labeled = batch["labeled"]
    weight = labeled["mix_weight"].numpy()
    partner = labeled["mix_partner"].numpy()
    assert weight.min() < 1.0

    images = labeled["weak"].numpy().astype(np.float64)
    shape = [-1, 1, 1, 1]
    blend = weight.reshape(shape)
    target = np.eye(mixed.num_classes)[labeled["label"].numpy()]
    rows = np.arange(len(partner)) // MIX_BLOCK * MIX_BLOCK + partner
    images = blend * images + (1 - blend) * images[rows]
    target = weight[:, None] * target + (1 - weight[:, None]) * target[rows]
    groups = [images, *(batch["unlabeled"][v] for v in ("weak", "strong"))]
    groups = [tf.cast(group, tf.float64) for group in groups]
    logits, _, _ = mixed.forward(mixed.student, *groups)
    expected = -np.sum(target * tf.nn.log_softmax(logits).numpy(), axis=1)

    mixed.compute_losses(batch)
    np.testing.assert_allclose(
        mixed.metric("labeled_loss"), expected.mean(), rtol=1e-6
    )
    plain = sharp_algorithm("fixmatch")
    assert plain.views.mixup_alpha == 0 and mixed.views.mixup_alpha == 1


def test_magnitudes_of_strong_views_are_learned_from_probes():
    plain = tiny_algorithm("fixmatch")
    assert plain.augmentation_rates is None
    assert plain.batch_views == plain.views
    algorithm = tiny_algorithm("fixmatch", ctaugment=True)
    assert algorithm.batch_views.labeled == ("weak", "probe")
    assert algorithm.batch_views.unlabeled == ("weak", "strong")
    drawn = algorithm.augmentation_rates.numpy()
    run(algorithm, tiny_batch())
    learned = algorithm.learned_rates.numpy()
    assert (learned < drawn).any() and (learned <= drawn).all()
    np.testing.assert_array_equal(algorithm.augmentation_rates, drawn)
    algorithm.refresh_augmentation_rates()
    np.testing.assert_array_equal(algorithm.augmentation_rates, learned)
