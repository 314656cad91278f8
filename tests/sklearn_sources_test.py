"""Digits and two moons: shapes, ranges, splits."""

import numpy as np

from tf_metassl.data import sources


def test_digits():
    source = sources.load("digits")
    assert source.info.image_shape == (8, 8, 1)
    assert len(source.train) == 1400 and len(source.test) == 397
    assert source.train.images.max() == 255


def test_two_moons():
    source = sources.load("two_moons")
    assert source.info.image_shape == (1, 1, 2)
    assert len(source.train) == 2200 and len(source.test) == 1000
    both = np.concatenate([source.train.images, source.test.images])[:, 0, 0]
    assert len(np.unique(both, axis=0)) == 3200
    # The arcs: half circles around (0, 0) and (1, 0.5), up to their noise.
    x, y = (both * (4 / 255) - (1.5, 1.75)).T
    label = np.concatenate([source.train.labels, source.test.labels])
    upper, lower = np.hypot(x, y), np.hypot(x - 1, y - 0.5)
    distance = np.where(label == 0, upper, lower)
    assert np.mean(np.abs(distance - 1) < 0.3) > 0.99
