"""SWWAE: unpooling by hand, the losses against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.helpers import (
    assert_same,
    loss_and_gradient,
    numpy_cross_entropy,
    pooling_network,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    trained_under,
)
from tf_metassl import models
from tf_metassl.algorithms import swwae
from tf_metassl.models import costs


def unpooled(values, maps, size):
    """What `Unpooling` does, window by window."""
    result = np.zeros(maps.shape)
    for n, i, j, f in np.ndindex(values.shape):
        rows, columns = size
        window = maps[
            n, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns, f
        ]
        row, column = np.unravel_index(window.argmax(), window.shape)
        place = n, i * rows + row, j * columns + column, f
        result[place] = values[n, i, j, f]
    return result


@pytest.mark.parametrize("size", ((2, 2), (3, 2)))
def test_unpooling_window_by_window(size, float64):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 7, 5, 3))
    values = rng.normal(size=(2, 7 // size[0], 5 // size[1], 3))
    got = swwae.Unpooling(size)([tf.constant(values), tf.constant(maps)])
    np.testing.assert_array_equal(got, unpooled(values, maps, size))
    # What was pooled comes back to its place, and pooling finds it again.
    pool = layers.MaxPooling2D(size)
    what = pool(tf.constant(maps + 10.0))
    back = swwae.Unpooling(size)([what, tf.constant(maps)])
    np.testing.assert_array_equal(pool(back), what)


def test_equal_maxima_have_one_place():
    """A comparison with the maximum would put the value at all of them."""
    maps = tf.zeros([1, 4, 4, 1])
    got = swwae.Unpooling((2, 2))([tf.ones([1, 2, 2, 1]), maps])
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(got[0, ..., 0], expected)


def test_the_gradient_flows_to_the_values_alone(float64):
    rng = np.random.default_rng(0)
    values = tf.constant(rng.normal(size=(1, 2, 2, 1)))
    maps = tf.constant(rng.normal(size=(1, 4, 4, 1)))
    weight = rng.normal(size=(1, 4, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch([values, maps])
        got = swwae.Unpooling((2, 2))([values, maps])
        loss = tf.reduce_sum(weight * got)
    to_values, to_maps = tape.gradient(loss, [values, maps])
    assert to_maps is None
    # The weight at the place of each maximum.
    mask = unpooled(np.ones((1, 2, 2, 1)), maps.numpy(), (2, 2))
    expected = (weight * mask).reshape(2, 2, 2, 2).sum((1, 3))
    np.testing.assert_allclose(to_values[0, ..., 0], expected)


@pytest.mark.parametrize("view", ("weak", "strong"))
def test_the_loss_by_hand(view, float64):
    algorithm = tiny_algorithm(
        "swwae",
        network=pooling_network,
        learned_view=view,
        reconstruction_weight=2.0,
        intermediate_weight=3.0,
    )
    batch = tiny_batch()
    images = [batch["labeled"][view], batch["unlabeled"]["weak"]]
    images = tf.concat(images, axis=0)
    maps, code, logits = algorithm.encoder(images, training=True)
    maps, code = maps[8:], code[8:]
    assert maps.shape == (16, 4, 3, 4) and code.shape == (16, 2, 1, 5)
    decoded = algorithm.decoder([code, maps])
    image, (what,) = decoded["image"], decoded["whats"]
    pixels = batch["unlabeled"]["weak"].numpy() / 127.5 - 1.0
    pooled = maps.numpy()[:, :, :2].reshape(16, 2, 2, 1, 2, 4).max((2, 4))
    expected = (
        numpy_cross_entropy(batch["labeled"]["label"], logits.numpy()[:8])
        + 2.0 * np.mean((image - pixels) ** 2)
        + 3.0 * np.mean((what - pooled) ** 2)
    )
    # Of a network whose batch-norm averages have not moved in between.
    loss, _ = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


def test_the_where_reaches_the_image(float64):
    """Without positions, images with equal pooled values would be equal."""
    decoder = swwae.decoder(pooling_network())
    rng = np.random.default_rng(0)
    code = tf.constant(rng.normal(size=(1, 2, 1, 5)))
    maps = tf.constant(rng.normal(size=(1, 4, 3, 4)))
    first = decoder([code, maps])["image"]
    second = decoder([code, maps[:, ::-1]])["image"]
    assert np.abs(first - second).max() > 1e-3
    # Which maximum is there, its size does not matter.
    np.testing.assert_allclose(first, decoder([code, 3.0 * maps])["image"])


def test_a_decoder_is_trained_with_the_student():
    algorithm = tiny_algorithm("swwae", network=pooling_network)
    before = [v.numpy() for v in algorithm.decoder.trainable_variables]
    algorithm.train_step(tiny_batch())
    after = [v.numpy() for v in algorithm.decoder.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_positions_are_the_same_on_two_replicas(two_replicas, float64):
    batches = [tiny_batch(16, 32, seed=seed) for seed in range(3)]
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        results.append(
            trained_under(
                strategy,
                "swwae",
                batches,
                network=lambda role: pooling_network(role, sync=True),
            )
        )
    (one, of_one), (two, of_two) = results
    assert_same(one, two, rtol=1e-6, atol=1e-8)
    assert of_two == pytest.approx(of_one, rel=1e-5)


@pytest.mark.parametrize(
    "name, image_shape, num_poolings",
    (
        ("digits_pooling_cnn", (8, 8, 1), 2),
        ("cnn13", (32, 32, 3), 2),
        ("swwae_cnn", (96, 96, 3), 4),
        # Strided convolutions; a pooling whose windows overlap.
        ("digits_cnn", (8, 8, 1), 0),
        ("wrn_10_1", (30, 26, 3), 0),
    ),
)
def test_decoders_of_the_networks(name, image_shape, num_poolings):
    network = models.build(name, image_shape, 10)
    assert len(swwae.poolings(network)) == num_poolings
    images = tf.zeros([2, *image_shape])
    *maps, code, _ = swwae.encoder(network)(images)
    decoded = swwae.decoder(network)([code, *maps])
    assert decoded["image"].shape == images.shape
    for pooling, what in zip(
        swwae.poolings(network), decoded["whats"], strict=True
    ):
        assert what.shape[1:] == pooling.output.shape[1:]


@pytest.mark.parametrize(
    "name, image_shape",
    (("two_moons_mlp", (1, 1, 2)), ("vit_b16", (32, 32, 3))),
)
def test_a_network_without_feature_maps_is_refused(name, image_shape):
    with pytest.raises(ValueError, match="swwae decodes .*--model=cnn13"):
        with costs.shapes_only():
            swwae.encoder(models.build(name, image_shape, 10))


def test_a_network_without_pooling_has_no_intermediate_loss():
    algorithm = tiny_algorithm("swwae", network=tiny_network)
    algorithm.train_step(tiny_batch())
    assert algorithm.metric("intermediate_loss") == 0
    assert algorithm.metric("reconstruction_loss") > 0
