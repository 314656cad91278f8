"""Mean, standard deviation and whitening of the training images."""

import keras
import numpy as np
import pytest

from tf_metassl import models
from tf_metassl.data import statistics
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.store import Images
from tf_metassl.ops import averaging


def correlated(num_images=500, shape=(4, 3, 2)):
    rng = np.random.default_rng(0)
    base = rng.normal(120, 30, (num_images, 1, 1, shape[2]))
    images = base + rng.normal(0, 12, (num_images, *shape))
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    return Images(pixels, np.zeros(num_images, np.int32))


def test_channel_statistics_are_those_of_numpy(monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK", 64)
    images = correlated()
    mean, std = statistics.channel_statistics(images)
    scaled = images.pixels / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-9)


def test_whitened_pixels_are_uncorrelated(monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK", 64)
    images = correlated()
    mean, matrix = statistics.whitening(images, epsilon=0.0)
    white = (images.pixels.reshape(500, -1) / 255 - mean) @ matrix
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(
        np.cov(white.T, bias=True), np.eye(24), atol=1e-3
    )
    # ZCA is the symmetric one of all whitening maps.
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    softened = statistics.whitening(images, epsilon=1.0)[1]
    assert np.abs(softened).max() < np.abs(matrix).max() / 2


def test_the_network_scales_as_computed():
    images = correlated()
    scaling = statistics.scaling("mean_std", "mine", images)
    network = models.build("digits_cnn", (4, 3, 2), 3, **scaling)
    first = keras.Model(network.inputs, network.layers[1].output)
    seen = first.predict(images.pixels, verbose=0)
    np.testing.assert_allclose(seen.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std((0, 1, 2)), 1, atol=1e-4)

    scaling = statistics.scaling("zca", "mine", images)
    network = models.build("digits_cnn", (4, 3, 2), 3, **scaling)
    twin = averaging.copy_of(network)
    for model in (network, twin):
        first = keras.Model(model.inputs, model.layers[1].output)
        seen = first.predict(images.pixels, verbose=0).reshape(500, -1)
        np.testing.assert_allclose(
            np.cov(seen.T, bias=True), np.eye(24), atol=0.05
        )
    plain = models.build("digits_cnn", (4, 3, 2), 3)
    assert len(network.weights) == len(plain.weights)


def test_known_values_are_used_and_others_are_kept(tmp_path):
    images = correlated()
    known = statistics.scaling("mean_std", "cifar10", None)
    published = DATASETS["cifar10"].pixel_statistics
    assert (known["mean"], known["std"]) == published
    assert statistics.scaling("unit", "cifar10", None) == {}
    path = tmp_path / "run" / "normalization.npz"
    first = statistics.scaling("mean_std", "mine", images, path)
    # Not computed again: there are no images to compute it from.
    assert statistics.scaling("mean_std", "mine", None, path) == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("text", (b"", b"PK", b"\x93NUMPY", b"{}"))
def test_a_damaged_file_is_computed_again(tmp_path, text):
    images, path = correlated(), tmp_path / "normalization.npz"
    expected = statistics.scaling("mean_std", "folder", images, path)
    path.write_bytes(text)
    assert expected == statistics.scaling("mean_std", "folder", images, path)
    assert expected == statistics.scaling("mean_std", "folder", None, path)


def test_errors():
    constant = Images(np.full((9, 2, 2, 1), 7, np.uint8), np.zeros(9, np.int32))
    with pytest.raises(ValueError, match="--normalization=unit"):
        statistics.channel_statistics(constant)
    large = Images(np.zeros((2, 96, 96, 3), np.uint8), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="27648 x 27648 .*--image_size"):
        statistics.whitening(large)
