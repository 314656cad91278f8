"""VAT: the direction by finite differences, the loss by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    IMAGE_SHAPE,
    central_difference,
    gradient_of,
    loss_and_gradient,
    numpy_cross_entropy,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
    values,
)
from tf_metassl import models
from tf_metassl.algorithms import vat
from tf_metassl.algorithms.vat import (
    steepest_direction,
    unit_rows,
)
from tf_metassl.meta import functional
from tf_metassl.ops import draws


def kl(target, logits):
    p, q = softmax(target), softmax(logits)
    return (p * (np.log(p) - np.log(q))).sum(-1)


def in_numpy(algorithm, batch, epsilon, xi):
    """Target, perturbation in pixels, and KL of each image."""
    images = batch["unlabeled"]["weak"].numpy().astype(np.float64)
    (target,) = training_logits(algorithm.student, images)
    noise = algorithm.draw(draws.normal, images.shape, "vat")
    noise = noise.numpy().astype(np.float64).reshape(len(images), -1)
    start = xi * noise / np.linalg.norm(noise, axis=1, keepdims=True)

    def divergence(perturbation):
        moved = images + 127.5 * perturbation.reshape(images.shape)
        return kl(target, training_logits(algorithm.student, moved)[0])

    gradient = central_difference(
        lambda r: divergence(r).sum(), start, epsilon=1e-4
    )
    direction = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    return target, 127.5 * epsilon * direction, divergence(epsilon * direction)


@pytest.mark.slow
@pytest.mark.parametrize("entropy_weight", (0.0, 0.5))
def test_the_loss_by_hand(entropy_weight, float64):
    algorithm = tiny_algorithm(
        "vat",
        unlabeled_loss_weight=3.0,
        vat_epsilon=1.5,
        vat_xi=0.5,
        entropy_weight=entropy_weight,
    )
    batch = tiny_batch(8, 8)
    target, _, divergence = in_numpy(algorithm, batch, 1.5, 0.5)
    (labeled,) = training_logits(algorithm.student, batch["labeled"]["weak"])
    p = softmax(target)
    losses = divergence - entropy_weight * (p * np.log(p)).sum(-1)
    expected = numpy_cross_entropy(batch["labeled"]["label"].numpy(), labeled)
    expected += 3 * losses.sum() / 8
    loss, _ = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_no_gradient_goes_through_target_or_direction(float64):
    algorithm = tiny_algorithm(
        "vat", unlabeled_loss_weight=20.0, vat_epsilon=1.5, vat_xi=0.5
    )
    batch = tiny_batch(8, 8)
    target, perturbation, _ = in_numpy(algorithm, batch, 1.5, 0.5)
    student = algorithm.student
    images = batch["unlabeled"]["weak"].numpy()
    moved = images + perturbation.reshape(images.shape)
    label = np.eye(3)[batch["labeled"]["label"].numpy()]

    def loss_at(params):
        state = functional.state(student)
        labeled, _ = functional.call(
            student, params, state, batch["labeled"]["weak"]
        )
        logits, _ = functional.call(student, params, state, moved)
        likelihood = tf.reduce_sum(label * tf.nn.log_softmax(labeled))
        product = tf.reduce_sum(softmax(target) * tf.nn.log_softmax(logits))
        return -(likelihood + 20 * product) / 8

    _, actual = loss_and_gradient(algorithm, batch)
    for a, b in zip(actual, gradient_of(loss_at, student), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_the_direction_has_length_one_and_beats_a_random_one(float64):
    algorithm = tiny_algorithm("vat")
    batch = tiny_batch(8, 8)
    _, perturbation, divergence = in_numpy(algorithm, batch, 1.0, 0.1)
    length = np.linalg.norm(perturbation, axis=1)
    np.testing.assert_allclose(length, np.full(8, 127.5), rtol=1e-6)
    images = batch["unlabeled"]["weak"].numpy().astype(np.float64)
    (target,) = training_logits(algorithm.student, images)
    noise = np.random.default_rng(0).normal(size=images.shape)
    noise *= 127.5 / np.sqrt((noise**2).sum((1, 2, 3), keepdims=True))
    moved = training_logits(algorithm.student, images + noise)[0]
    assert divergence.sum() > 2 * kl(target, moved).sum()


@pytest.fixture
def policy():
    """Sets Keras' dtype policy, for the time of a test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("recompute", (False, True))
@pytest.mark.parametrize("name", ("vat", "sntg"))
def test_the_direction_is_not_lost_in_bfloat16(
    name, recompute, policy, monkeypatch
):
    """A pixel changes as little as at xi = 0.1 in images of 32x32x3."""
    directions, variables = [], []

    def spied(*arguments):
        directions.append(steepest_direction(*arguments).numpy())
        return directions[-1]

    monkeypatch.setattr(vat, "steepest_direction", spied)
    batch, weights = tiny_batch(), None
    for precision in ("float32", "mixed_bfloat16"):
        policy(precision)
        algorithm = tiny_algorithm(
            name,
            network=lambda role: models.build(
                "wrn_16_1", IMAGE_SHAPE, 3, network_name=role
            ),
            recompute=recompute,
            vat_xi=0.01,
            **({"sntg_base": "vat"} if name == "sntg" else {}),
        )
        weights = weights or algorithm.student.get_weights()
        algorithm.student.set_weights(weights)
        algorithm.train_step(batch)
        variables.append(len(algorithm.state_variables))
    exact, actual = directions
    cosine = np.abs(np.sum(exact * actual, axis=(1, 2, 3)))
    assert cosine.min() > 0.99, cosine
    assert variables[0] == variables[1]


def test_one_power_iteration_on_a_quadratic_form():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 4)).astype(np.float32)
    matrix = matrix @ matrix.T
    noise = rng.normal(size=(3, 2, 2)).astype(np.float32)

    def losses_at(r):
        flat = tf.reshape(r, [3, 4])
        return tf.einsum("ni,ij,nj->n", flat, matrix, flat)

    direction = steepest_direction(losses_at, tf.constant(noise), 0.1)
    expected = noise.reshape(3, 4) @ matrix
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(
        tf.reshape(direction, [3, 4]), expected, rtol=1e-5
    )


def test_unit_rows_of_tiny_and_zero_vectors():
    rows = tf.constant([[3.0, 4.0], [3e-30, 4e-30], [0.0, 0.0]])
    np.testing.assert_allclose(
        unit_rows(rows), [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6
    )


def test_unlabeled_passes_move_no_batch_norm_average():
    algorithm, batch = tiny_algorithm("vat"), tiny_batch()
    expected = tiny_network("alone")
    expected.set_weights(algorithm.student.get_weights())
    algorithm.forward(expected, batch["labeled"]["weak"])
    algorithm.compute_losses(batch)
    for a, b in zip(values(algorithm.student), values(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_clean_and_moved_images_share_dropout_masks():
    algorithm = tiny_algorithm(
        "vat",
        vat_epsilon=1e-6,
        network=lambda role: tiny_network(role, dropout=0.5),
    )
    algorithm.compute_losses(tiny_batch())
    assert algorithm.metric("unlabeled_loss") < 1e-6


def test_the_default_length_grows_with_the_image():
    """As long as it was for digits, and as published for CIFAR-10."""
    assert vat.default_epsilon((8, 8, 1)) == 1.0
    assert 6.0 < vat.default_epsilon((32, 32, 3)) < 8.0
    batch = tiny_batch()
    shape = batch["unlabeled"]["weak"].shape[1:]
    losses = []
    for epsilon in (
        0.0,
        vat.default_epsilon(shape),
        0.5 * vat.default_epsilon(shape),
    ):
        keras.utils.set_random_seed(0)
        algorithm = tiny_algorithm("vat", vat_epsilon=epsilon)
        losses.append(float(algorithm.compute_losses(batch)))
    assert losses[0] == losses[1] != losses[2]
