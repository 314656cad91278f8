"""MixMatch's step against loops in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    perturb,
    softmax,
    spied,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl.ops import mixing, pseudo_labels


def test_sharpening_by_hand():
    probs = tf.constant([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    sharpened = pseudo_labels.sharpened(probs, 0.5)
    np.testing.assert_allclose(
        sharpened, [np.array([4, 25, 9]) / 38, [0, 1, 0]], rtol=1e-5
    )
    np.testing.assert_allclose(
        pseudo_labels.sharpened(probs, 1.0), probs, atol=1e-7
    )
    # The hundredth power of these is no float.
    flat = tf.constant([[0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_allclose(
        pseudo_labels.sharpened(flat, 0.01), [[0, 0, 0, 1]], atol=1e-6
    )


def test_groups_are_joined_block_by_block_and_parted_again():
    a, b = tf.range(4), tf.range(10, 18)
    joined = mixing.joined([a, b], 2)
    assert joined.numpy().tolist() == [0, 1, 10, 11, 12, 13, 2, 3] + list(
        range(14, 18)
    )
    for found, group in zip(
        mixing.parted(joined, [4, 8], 2), (a, b), strict=True
    ):
        np.testing.assert_array_equal(found, group)


@pytest.mark.parametrize("name", ("mixmatch", "enaet"))
def test_the_guess_is_the_sharpened_mean_and_moves_nothing(name, float64):
    batch = tiny_batch()["unlabeled"]
    algorithm = tiny_algorithm(name, temperature=0.5)
    before = values(algorithm.student)
    guess = algorithm.guess(batch).numpy()
    for a, b in zip(before, values(algorithm.student), strict=True):
        np.testing.assert_array_equal(a, b)
    images = tf.concat([batch["weak_1"], batch["weak_2"]], 0)
    probs = softmax(algorithm.student(images, training=True).numpy())
    mean = (probs[:16] + probs[16:]) / 2
    expected = mean**2 / (mean**2).sum(1, keepdims=True)
    np.testing.assert_allclose(guess, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ("mixmatch", "remixmatch", "enaet"))
def test_the_student_guesses_not_its_average_and_without_gradient(
    name, float64
):
    unlabeled = tiny_batch()["unlabeled"]
    keras.utils.set_random_seed(1)
    expected = tiny_algorithm(name).guess(unlabeled)
    keras.utils.set_random_seed(1)
    algorithm = tiny_algorithm(name)
    perturb(algorithm.ema, scale=3.0)
    with tf.GradientTape() as tape:
        guess = algorithm.guess(unlabeled)
        total = tf.reduce_sum(guess**2)
    np.testing.assert_allclose(guess, expected, rtol=1e-9)
    variables = [v.value for v in algorithm.student.trainable_variables]
    assert tape.gradient(total, variables) == [None] * len(variables)


@pytest.mark.parametrize(
    "name, views",
    [
        ("mixmatch", ("weak", "weak_1", "weak_2")),
        ("remixmatch", ("ctaugment", "ctaugment_1", "ctaugment_2", "weak")),
        ("enaet", ("weak", "weak_1", "weak_2")),
    ],
)
def test_the_views_that_are_mixed_and_their_targets(name, views, float64):
    batch = tiny_batch()
    for group, size in (("labeled", 8), ("unlabeled", 16)):
        # Every image is its own mixture.
        batch[group]["mix_weight"] = tf.ones([size])
    algorithm = tiny_algorithm(name)
    seen = spied(algorithm, "guess", "mixed")
    algorithm.compute_losses(batch)
    images, targets = seen["mixed"]
    label = np.eye(NUM_CLASSES)[batch["labeled"]["label"].numpy()]
    np.testing.assert_array_equal(images[0], batch["labeled"][views[0]])
    np.testing.assert_array_equal(targets[0], label)
    for view, image, target in zip(
        views[1:], images[1:], targets[1:], strict=True
    ):
        np.testing.assert_array_equal(image, batch["unlabeled"][view])
        np.testing.assert_array_equal(target, seen["guess"])


def test_mixmatch_by_hand(float64):
    batch = tiny_batch(16, 32)
    algorithm = tiny_algorithm(
        "mixmatch", unlabeled_loss_weight=7.0, unlabeled_ramp_steps=10
    )
    algorithm.optimizer.iterations.assign(4)
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    guess = algorithm.guess(unlabeled).numpy()
    seen = spied(algorithm, "mixed")
    loss = float(algorithm.compute_losses(batch))
    mixed_images, mixed_targets = seen["mixed"]

    # Every mixed row is a mixture of its own row and of one row of its block
    # of 8 labeled and 2 x 16 unlabeled rows; each is a partner once.
    label = np.eye(NUM_CLASSES)[labeled["label"].numpy()]
    weights = [
        labeled["mix_weight"].numpy(),
        unlabeled["mix_weight"].numpy(),
        np.roll(unlabeled["mix_weight"].numpy().reshape(-1, 8), 1, 1).ravel(),
    ]
    plain = [
        labeled["weak"].numpy() / 1.0,
        unlabeled["weak_1"].numpy() / 1.0,
        unlabeled["weak_2"].numpy() / 1.0,
    ]
    targets = [label, guess, guess]
    crossed = 0
    for block in range(2):
        rows = [
            (group, row)
            for group, size in ((0, 8), (1, 16), (2, 16))
            for row in range(block * size, (block + 1) * size)
        ]
        used = []
        for group, row in rows:
            weight = float(weights[group][row])
            image = mixed_images[group][row].numpy()
            other = (image - weight * plain[group][row]) / (1 - weight)
            errors = [np.abs(other - plain[g][r]).max() for g, r in rows]
            partner = rows[int(np.argmin(errors))]
            assert min(errors) < 1e-3
            used.append(partner)
            crossed += partner[0] != group
            mixed = weight * targets[group][row]
            mixed += (1 - weight) * targets[partner[0]][partner[1]]
            np.testing.assert_allclose(
                mixed_targets[group][row], mixed, rtol=1e-6
            )
        assert sorted(used) == rows
    assert crossed > 20

    logits = algorithm.student(
        tf.concat(mixed_images, 0), training=True
    ).numpy()
    probs = softmax(logits)
    target = np.concatenate(mixed_targets)
    cross_entropy = -(target[:16] * np.log(probs[:16])).sum(1).mean()
    # Averaged over images and classes.
    error = ((target[16:] - probs[16:]) ** 2).mean()
    np.testing.assert_allclose(
        loss, cross_entropy + 0.4 * 7.0 * error, rtol=1e-8
    )


def test_the_mixture_changes_from_step_to_step():
    batch = tiny_batch()
    algorithm = tiny_algorithm("mixmatch")
    seen = spied(algorithm, "mixed")
    images = []
    for step in range(2):
        algorithm.optimizer.iterations.assign(step)
        algorithm.compute_losses(batch)
        images.append(seen["mixed"][0][0].numpy())
    assert np.abs(images[0] - images[1]).max() > 1


def test_a_batch_without_whole_blocks_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        mixing.num_blocks(12)
