"""ReMixMatch's terms against NumPy, and what it remembers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    run,
    softmax,
    spied,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    values,
)
from tf_metassl.ops import augmentation_rates, pseudo_labels


def test_alignment_by_hand():
    """Over classes, not over all axes, whose mean is always 1 / C."""
    probs = tf.constant([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    target = tf.constant([0.5, 0.25, 0.25])
    current = tf.constant([0.25, 0.25, 0.5])
    aligned = pseudo_labels.aligned(probs, target=target, current=current)
    # Factors 2, 1 and 1/2.
    expected = np.array([[1.2, 0.3, 0.05], [0.4, 0.2, 0.3]])
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(aligned, expected, rtol=1e-4)
    np.testing.assert_allclose(tf.reduce_sum(aligned, -1), [1, 1], rtol=1e-6)
    same = pseudo_labels.aligned(probs, target=target, current=target)
    np.testing.assert_allclose(same, probs, rtol=1e-6)


def test_the_guess_is_aligned_with_what_was_before_this_step(float64):
    batch = tiny_batch()
    algorithm = tiny_algorithm("remixmatch", temperature=0.5)
    past = np.random.default_rng(0).dirichlet([1.0] * NUM_CLASSES, 128)
    algorithm.past_probs.assign(past)
    algorithm.label_share.assign([0.5, 0.3, 0.2])
    weak = batch["unlabeled"]["weak"]
    before = values(algorithm.student)
    guess = algorithm.guess(batch["unlabeled"]).numpy()
    for a, b in zip(before, values(algorithm.student), strict=True):
        np.testing.assert_array_equal(a, b)

    probs = softmax(algorithm.student(weak, training=True).numpy())
    ratio = (np.array([0.5, 0.3, 0.2]) + 1e-6) / (past.mean(0) + 1e-6)
    expected = (probs * ratio) ** 2
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(guess, expected, rtol=1e-7)
    # The oldest mean makes room for that of this step, before alignment.
    np.testing.assert_array_equal(algorithm.past_probs[:-1], past[1:])
    np.testing.assert_allclose(algorithm.past_probs[-1], probs.mean(0))


def test_the_loss_by_hand(float64):
    batch = tiny_batch()
    algorithm = tiny_algorithm(
        "remixmatch",
        num_strong_views=2,
        unlabeled_ramp_steps=10,
        unlabeled_loss_weight=1.5,
        strong_loss_weight=0.7,
        rotation_loss_weight=0.3,
    )
    algorithm.optimizer.iterations.assign(4)
    assert algorithm.views.unlabeled == ("weak", "ctaugment_1", "ctaugment_2")
    seen = spied(algorithm, "guess", "mixed", "rotated")
    loss = float(algorithm.compute_losses(batch))

    guess = seen["guess"].numpy()
    images, targets = seen["mixed"]
    rotated, rotation = seen["rotated"]
    assert [group.shape[0] for group in images] == [8, 16, 16, 16]
    strong = tf.cast(batch["unlabeled"]["ctaugment_1"], tf.float64)
    features, logits = algorithm.student_and_features(
        tf.concat([*images, strong, rotated], 0), training=True
    )
    probs = softmax(logits.numpy())
    target = np.concatenate(targets)
    losses = -(target * np.log(probs[:56])).sum(1)
    turns = softmax(algorithm.rotation_head(features[-16:]).numpy())
    expected = (
        losses[:8].mean()
        + 0.4 * 1.5 * losses[8:].mean()
        - 0.4 * 0.7 * (guess * np.log(probs[56:72])).sum(1).mean()
        - 0.3 * np.log(turns[np.arange(16), rotation.numpy()]).mean()
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-7)


def test_the_share_of_the_labels_is_averaged_after_it_was_used(float64):
    batch = tiny_batch()
    algorithm = tiny_algorithm("remixmatch")
    past = np.random.default_rng(0).dirichlet([1.0] * NUM_CLASSES, 128)
    start = np.array([0.5, 0.3, 0.2])
    algorithm.label_share.assign(start)
    algorithm.past_probs.assign(past)
    expected = algorithm.guess(batch["unlabeled"])
    algorithm.past_probs.assign(past)
    seen = spied(algorithm, "guess")
    algorithm.compute_losses(batch)
    np.testing.assert_allclose(seen["guess"], expected, rtol=1e-9)
    label = np.eye(NUM_CLASSES)[batch["labeled"]["label"].numpy()]
    np.testing.assert_allclose(
        algorithm.label_share,
        0.999 * start + 0.001 * label.mean(0),
        rtol=1e-6,
    )


def test_the_first_strong_view_is_turned():
    batch = tiny_batch()
    algorithm = tiny_algorithm("remixmatch")
    seen = spied(algorithm, "rotated")
    algorithm.compute_losses(batch)
    turned, rotation = (values.numpy() for values in seen["rotated"])
    # Quarter turns of an image that is not square lose some of it.
    whole = np.flatnonzero(rotation % 2 == 0)
    assert whole.size > 4
    for row in whole:
        image = batch["unlabeled"]["ctaugment_1"][row].numpy()
        np.testing.assert_allclose(
            turned[row], np.rot90(image, rotation[row]), atol=1e-3
        )


def test_the_rotation_head_is_trained():
    algorithm = tiny_algorithm("remixmatch", weight_decay=0.0)
    before = values(algorithm.rotation_head)
    algorithm.train_step(tiny_batch())
    for a, b in zip(before, values(algorithm.rotation_head), strict=True):
        assert not np.array_equal(a, b)


def test_images_are_turned_by_quarters():
    algorithm = tiny_algorithm("remixmatch")
    images = np.random.default_rng(0).uniform(0, 255, (64, 4, 4, 2))
    turned, rotation = algorithm.rotated(tf.constant(images, tf.float32))
    assert set(rotation.numpy()) == {0, 1, 2, 3}
    for image, found, turns in zip(
        images, turned.numpy(), rotation.numpy(), strict=True
    ):
        np.testing.assert_allclose(found, np.rot90(image, turns), atol=1e-3)


def test_probes_move_the_rates_by_the_averaged_network():
    batch = tiny_batch()
    algorithm = tiny_algorithm("remixmatch", ema_decay=0.9)
    before = algorithm.learned_rates.numpy()
    np.testing.assert_array_equal(before, augmentation_rates.initial())
    run(algorithm, batch)

    labeled = batch["labeled"]
    probs = softmax(algorithm.ema(labeled["probe"], training=False).numpy())
    label = np.eye(NUM_CLASSES)[labeled["label"].numpy()]
    proximity = 1 - np.abs(probs - label).sum(1) / 2
    rates = before.copy()
    counts = augmentation_rates.bin_counts().numpy()
    for row, value in enumerate(proximity):
        for op, bins in zip(
            labeled["probe_op"][row].numpy(),
            labeled["probe_bin"][row].numpy(),
            strict=True,
        ):
            for place, count in enumerate(counts[op]):
                if count:
                    rate = rates[op, place, bins[place]]
                    rates[op, place, bins[place]] += 0.01 * (value - rate)
    learned = algorithm.learned_rates
    np.testing.assert_allclose(learned, rates, rtol=1e-5, atol=1e-6)
    # The pipeline draws with them from the next evaluation on.
    np.testing.assert_array_equal(algorithm.augmentation_rates, before)
    algorithm.refresh_augmentation_rates()
    np.testing.assert_array_equal(algorithm.augmentation_rates, learned)


@pytest.mark.slow
def test_the_rates_are_those_of_one_replica(two_replicas):
    batch = tiny_batch(16, 32)

    def trained(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm(
                "remixmatch",
                network=lambda role: tiny_network(role, sync=True),
            )
        dataset = tf.data.Dataset.from_tensors(batch)
        step = algorithm.make_train_function()
        step(iter(strategy.experimental_distribute_dataset(dataset)))
        return algorithm

    one = trained(tf.distribute.get_strategy())
    two = trained(two_replicas)
    for name in ("learned_rates", "label_share", "past_probs"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-6
        )
