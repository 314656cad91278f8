"""CC-GAN: holes and losses by hand, who learns from what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    numpy_cross_entropy,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
    values,
)
from tf_metassl.algorithms import algorithm_class, cc_gan
from tf_metassl.models.in_painter import in_painter
from tf_metassl.ops import draws


def test_holes_pixel_by_pixel():
    # Sides of 2 in 4x5 images: three places in height, four in width.
    draw = tf.constant([[0.0, 0.0], [0.99, 0.99], [0.4, 0.3]])
    got = cc_gan.holes(draw, (4, 5), 0.5, tf.float32)[..., 0].numpy()
    expected = np.zeros((3, 4, 5))
    expected[0, 0:2, 0:2] = 1
    expected[1, 2:4, 3:5] = 1
    expected[2, 1:3, 1:3] = 1
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("share, side", ((0.0, 1), (0.3, 2), (1.0, 5)))
def test_a_hole_is_neither_empty_nor_the_image(share, side):
    draw = tf.constant(np.random.default_rng(0).random((50, 2)), tf.float32)
    hole = cc_gan.holes(draw, (6, 9), share, tf.float32).numpy()
    np.testing.assert_array_equal(hole.sum((1, 2, 3)), np.full(50, side**2))


@pytest.mark.parametrize("image_shape", ((8, 8, 1), (7, 5, 3), (96, 96, 3)))
def test_the_generator_makes_images(image_shape):
    height, width, channels = image_shape
    generator = in_painter(image_shape)
    made = generator(tf.zeros([2, height, width, channels + 1]))
    assert made.shape == (2, *image_shape)
    assert generator.trainable_variables == generator.variables


def stepped(algorithm, batch):
    """Takes a step without tracing it; returns the metrics."""
    algorithm.reset_metrics()
    algorithm.train_step(batch)
    return {name: algorithm.metric(name) for name in algorithm.metric_names}


def softplus(values):
    return np.log1p(np.exp(values))


def scores(algorithm, *groups):
    """Log-odds of being real, of groups that are one batch-norm batch."""
    kernel, bias = (v.numpy() for v in algorithm.real_head.weights)
    # The features of the tiny network are the input of its last layer.
    logits = training_logits(features_of(algorithm), *groups)
    return [values @ kernel[:, 0] + bias for values in logits]


def features_of(algorithm):
    network = algorithm.student
    return keras.Model(network.input, network.get_layer("logits").input)


@pytest.mark.parametrize(
    "whole_image_weight, view", ((0.0, "weak"), (0.5, "strong"))
)
def test_both_losses_by_hand(whole_image_weight, view, float64):
    algorithm = tiny_algorithm(
        "cc_gan",
        adversarial_weight=2.0,
        whole_image_weight=whole_image_weight,
        learned_view=view,
    )
    batch = tiny_batch()
    labeled, real = (
        images.numpy().astype(np.float64)
        for images in (batch["labeled"][view], batch["unlabeled"]["weak"])
    )
    draw = algorithm.draw(draws.uniform, [16, 2], "hole")
    hole = cc_gan.holes(draw, (6, 5), 0.5, tf.float64).numpy()
    context = np.where(hole, 0.0, real / 127.5 - 1.0)
    made = algorithm.generator(np.concatenate([context, hole], -1)).numpy()
    whole = 127.5 * (made + 1.0)
    in_painted = np.where(hole, whole, real)

    logits, _ = training_logits(algorithm.student, labeled, real)
    _, of_real = scores(algorithm, labeled, real)
    of_in_painted, of_whole = scores(algorithm, in_painted, whole)
    labeled_loss = numpy_cross_entropy(batch["labeled"]["label"], logits)
    discriminator_loss = np.mean(
        softplus(-of_real)
        + softplus(of_in_painted)
        + whole_image_weight * softplus(of_whole)
    )
    generator_loss = np.mean(
        softplus(-of_in_painted) + whole_image_weight * softplus(-of_whole)
    )
    metrics = stepped(algorithm, batch)
    expected = {
        "loss": labeled_loss + 2.0 * discriminator_loss,
        "labeled_loss": labeled_loss,
        "discriminator_loss": discriminator_loss,
        "generator_loss": generator_loss,
        "discriminator_accuracy": np.mean([of_real > 0, of_in_painted < 0]),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-6), name


def steps(**hp):
    """Student and generator before and after the gradients of one step."""
    keras.utils.set_random_seed(1)
    algorithm = tiny_algorithm("cc_gan", weight_decay=0.0, **hp)
    before = {r: values(getattr(algorithm, r)) for r in algorithm.roles}
    stepped(algorithm, tiny_batch())
    after = {r: values(getattr(algorithm, r)) for r in algorithm.roles}
    return before, after


def test_the_generator_does_not_learn_the_discriminators_loss():
    """Its gradient is that of its own loss, whatever the student's weight."""
    generators = [
        steps(adversarial_weight=weight)[1]["generator"]
        for weight in (1.0, 100.0)
    ]
    for a, b in zip(*generators, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_step_of_the_generator_makes_images_look_more_real(float64):
    losses = []
    algorithm = tiny_algorithm("cc_gan", learning_rate=0.0)
    algorithm.generator_optimizer.learning_rate = 0.001
    for _ in range(3):
        # The same holes in every step.
        algorithm.student_optimizer.iterations.assign(0)
        losses.append(stepped(algorithm, tiny_batch())["generator_loss"])
    assert losses[0] > losses[1] > losses[2]


def test_generated_images_move_no_average_of_batch_norm(float64):
    algorithm = tiny_algorithm("cc_gan")
    batch = tiny_batch()
    norm = next(
        layer
        for layer in algorithm.student.layers
        if "normalization" in layer.name
    )
    images = [batch["labeled"]["strong"], batch["unlabeled"]["weak"]]
    images = tf.concat(images, axis=0)
    before = keras.Model(algorithm.student.input, norm.input)(images)
    mean = tf.reduce_mean(before, axis=(0, 1, 2))
    stepped(algorithm, batch)
    # The first update takes the mean as it is.
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-6)


def test_the_generator_is_saved_and_not_evaluated():
    algorithm = tiny_algorithm("cc_gan")
    assert set(algorithm.evaluated_networks) == {"student", "ema"}
    state = {id(v) for v in algorithm.state_variables}
    for network in (algorithm.generator, algorithm.real_head):
        assert {id(v) for v in network.weights} <= state


def test_images_without_context_are_refused():
    def points(role):
        pixels = keras.Input((1, 1, 2))
        x = keras.layers.Flatten()(pixels)
        return keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))

    with pytest.raises(ValueError, match="at least 4x4 pixels, got 1x1"):
        algorithm_class("cc_gan").build_networks(points, NUM_CLASSES)
    networks = algorithm_class("cc_gan").build_networks(
        tiny_network, NUM_CLASSES
    )
    assert networks["generator"].output_shape == (None, *IMAGE_SHAPE)
