"""Two corpora as one dataset of which the first classes are learned."""

import types

import numpy as np

from tf_metassl.contract import DatasetInfo
from tools import mixed_corpora


def corpus(images, labels, num_classes, prefix):
    names = tuple(f"{prefix}{i}" for i in range(num_classes))
    info = DatasetInfo("corpus", names, images.shape[1:])
    images = types.SimpleNamespace(images=images, labels=np.array(labels))
    return types.SimpleNamespace(info=info, train=images, test=images)


def test_pixels_are_means_of_the_larger_ones():
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, :2, 2:4] = [[[10], [20]], [[30], [40]]]
    small = mixed_corpora.small(image)
    assert small.shape == (1, 8, 8, 1)
    assert small[0, 0, 1, 0] == 25 and small.sum() == 25


def test_there_are_as_many_of_each_and_the_others_have_other_classes():
    digits = corpus(np.full((3, 8, 8, 1), 7, np.uint8), [0, 1, 2], 10, "digit")
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None]
    clothes = corpus(
        np.tile(pixels, (1, 16, 16, 1)), [0, 1, 2, 3, 4], 10, "garment"
    )
    found = mixed_corpora.mixed(digits, clothes)
    assert found["x_train"].shape == (6, 8, 8, 1)
    np.testing.assert_array_equal(found["y_train"][:3], [0, 1, 2])
    # Pictures of one gray level, which is their class.
    np.testing.assert_array_equal(
        found["y_train"][3:], 10 + found["x_train"][3:, 0, 0, 0]
    )
    assert len(set(found["y_train"][3:])) == 3
    np.testing.assert_array_equal(found["y_test"], [0, 1, 2])
    assert len(found["class_names"]) == 20
