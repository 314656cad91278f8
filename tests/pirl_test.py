"""PIRL: its loss by hand, and what must not happen to its bank."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_IMAGES,
    perturb,
    run,
    spied,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    values,
)
from tf_metassl import models
from tf_metassl.meta import functional
from tf_metassl.ops import jigsaw


class Pool:
    """What `prepare` is called with."""

    unlabeled = np.array([3, 5, 5, 9])


def batch_of(*index):
    """A batch whose unlabeled images are these rows of the training set."""
    batch = tiny_batch()
    batch["unlabeled"]["index"] = tf.constant(index, tf.int64)
    return batch


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def contrast_by_hand(row, entry, negatives, temperature):
    """Equation 4, with the h of equation 3."""

    def h(other):
        score = np.exp(row @ other / temperature)
        return score / (score + np.exp(negatives @ row / temperature).sum())

    return -np.log(h(entry)) - sum(np.log(1 - h(other)) for other in negatives)


def test_a_step_by_hand(float64):
    algorithm = tiny_algorithm(
        "pirl", jigsaw_share=0.3, num_negatives=40, bank_momentum=0.8
    )
    for head in algorithm.heads:
        perturb(head, seed=2)
    index = 3 * np.arange(16)
    batch = batch_of(*index)
    bank = algorithm.bank.numpy()
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, rtol=1e-9)
    seen = spied(algorithm, "project", "project_patches", "negative_rows")
    algorithm.compute_losses(batch)
    image = unit(seen["project"][0].numpy())
    patches = unit(seen["project_patches"].numpy())
    negatives = seen["negative_rows"].numpy()
    assert set(negatives) & set(index)
    losses = []
    for place, row in enumerate(index):
        others = bank[negatives[negatives != row]]
        of_patches, of_image = (
            contrast_by_hand(rows[place], bank[row], others, 0.2)
            for rows in (patches, image)
        )
        losses.append(0.3 * of_patches + 0.7 * of_image)
    assert algorithm.metric("representation_loss") == pytest.approx(
        np.mean(losses), rel=1e-6
    )
    # The entries of the batch follow the projections of the images.
    expected = bank.copy()
    expected[index] = unit(0.8 * bank[index] + 0.2 * image)
    np.testing.assert_allclose(algorithm.bank, expected, rtol=1e-6)


def test_an_image_is_compared_with_its_entry_before_this_step(float64):
    """With momentum 0 its new entry would be its own projection, cosine 1."""
    algorithm = tiny_algorithm("pirl", bank_momentum=0.0, jigsaw_share=0.0)
    batch = tiny_batch()
    algorithm.compute_losses(batch)
    first = algorithm.metric("representation_loss")
    algorithm.reset_metrics()
    algorithm.compute_losses(batch)
    assert algorithm.metric("representation_loss") < first - 1


def test_no_image_is_among_its_own_negatives(float64):
    """A pool of one image leaves its loss without any negative."""
    algorithm = tiny_algorithm("pirl", num_negatives=5)
    algorithm._draw_negatives_from(np.array([7]))
    batch = batch_of(*[7] * 8, *[8] * 8)
    first, second = (
        batch["unlabeled"][f"contrastive_{number}"] for number in (1, 2)
    )
    losses = algorithm.representation_losses(
        first, second, batch["unlabeled"]["index"]
    ).numpy()
    np.testing.assert_allclose(losses[:8], 0, atol=1e-9)
    assert (losses[8:] > 1).all()


def test_no_gradient_reaches_the_bank():
    algorithm = tiny_algorithm("pirl")
    with tf.GradientTape() as tape:
        tape.watch(algorithm.bank.value)
        loss = algorithm.compute_losses(tiny_batch())
    assert tape.gradient(loss, algorithm.bank.value) is None


def test_both_losses_train_the_features():
    changes = []
    for share in (0.0, 1.0):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm("pirl", jigsaw_share=share)
        before = [values(head) for head in algorithm.heads]
        kernel = algorithm.student.trainable_variables[0].numpy()
        run(algorithm, tiny_batch())
        after = algorithm.student.trainable_variables[0].numpy()
        assert np.abs(after - kernel).max() > 1e-4
        # Without weight decay's share.
        changes.append(
            [
                np.abs(values(head)[0] - old[0]).max() > 1e-3
                for head, old in zip(algorithm.heads, before, strict=True)
            ]
        )
    assert changes == [[True, False, False], [False, True, True]]


def test_negatives_are_drawn_from_the_unlabeled_pool():
    algorithm = tiny_algorithm("pirl", num_negatives=300)
    everywhere = algorithm.negative_rows().numpy()
    assert set(everywhere) == set(range(NUM_IMAGES))
    algorithm.prepare(Pool())
    rows = algorithm.negative_rows().numpy()
    assert rows.dtype == np.int64
    # An image that is twice in the pool is not drawn more often.
    counts = np.bincount(rows, minlength=10)
    assert set(np.flatnonzero(counts)) == {3, 5, 9}
    assert (abs(counts[[3, 5, 9]] - 100) < 30).all()
    run(algorithm, tiny_batch())
    assert (algorithm.negative_rows().numpy() != rows).any()


def test_the_order_of_patches_is_drawn_for_each_image_and_step(monkeypatch):
    algorithm = tiny_algorithm("pirl")
    # Patches that only their places tell apart.
    place = tf.cast(tf.range(jigsaw.NUM_PATCHES), tf.float32)
    monkeypatch.setattr(
        algorithm, "patch_projector", lambda rows: tf.tile(place, [16])[:, None]
    )
    orders = []
    monkeypatch.setattr(
        algorithm,
        "jigsaw_projector",
        lambda rows, training: orders.append(rows.numpy()),
    )
    images = tiny_batch()["unlabeled"]["contrastive_2"]
    algorithm.project_patches(images)
    algorithm.optimizer.iterations.assign(1)
    algorithm.project_patches(images)
    np.testing.assert_array_equal(
        np.sort(orders, axis=-1), np.broadcast_to(place, (2, 16, 9))
    )
    assert len({tuple(row) for row in np.concatenate(orders)}) > 28


def test_patches_leave_batch_norm_averages_alone():
    algorithm = tiny_algorithm("pirl")
    before = values(algorithm.student)
    algorithm.project_patches(tiny_batch()["unlabeled"]["contrastive_2"])
    for old, new in zip(before, values(algorithm.student), strict=True):
        np.testing.assert_array_equal(old, new)


def test_patches_may_be_seen_at_another_size():
    assert tiny_algorithm("pirl").patch_features.input_shape[1:3] == (3, 3)
    small = tiny_algorithm("pirl", patch_size=4, ema_decay=0.0)
    assert small.patch_features.input_shape == (None, 4, 4, 1)
    shared = zip(small.patch_features.weights, small.student.weights, strict=1)
    assert all(one is two for one, two in shared)
    images = tf.random.stateless_uniform([2, 4, 4, 1], [1, 2], 0, 255)
    (features, _), _ = functional.call(
        small.patch_features,
        functional.parameters(small.patch_features),
        functional.state(small.patch_features),
        images,
    )
    assert features.shape == (2, 4)
    assert np.isfinite(list(run(small, tiny_batch()).values())).all()
    # Layers with two inputs are copied for the finetuning nevertheless.
    (stage,) = small.later_stages()
    assert stage.build().student.input_shape == small.student.input_shape


def test_a_network_that_needs_its_size_is_refused():
    pixels = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(pixels)
    network = keras.Model(pixels, keras.layers.Dense(3, name="logits")(x))
    with pytest.raises(ValueError, match="8x8 pixels and cannot take 4x4"):
        models.at_size(network, (4, 4))
    assert models.at_size(network, (8, 8)) is network


@pytest.mark.slow
def test_the_bank_is_the_same_on_two_replicas(two_replicas, float64):
    """Both draw the same negatives, and know all images of the batch."""
    batch = tiny_batch(16, 32)
    # Twice in the batch, as where an epoch ends inside: the first is taken.
    index = np.arange(32)
    index[20] = 15
    batch["unlabeled"]["index"] = tf.constant(index)
    banks, losses = [], []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm(
                "pirl", network=lambda role: tiny_network(role, sync=True)
            )
        step = algorithm.make_train_function()
        dataset = tf.data.Dataset.from_tensors(batch)
        metrics = step(iter(strategy.experimental_distribute_dataset(dataset)))
        losses.append(float(metrics["representation_loss"]))
        banks.append(strategy.experimental_local_results(algorithm.bank.value))
    np.testing.assert_allclose(*losses, rtol=1e-6)
    (alone,), (first, second) = banks
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, rtol=1e-6, atol=1e-9)
