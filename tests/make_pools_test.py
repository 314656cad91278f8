"""Datasets of which the first classes are learned."""

import types

import numpy as np
import pytest

from tf_metassl.contract import DatasetInfo
from tools import make_pools


def corpus(images, labels, names):
    info = DatasetInfo("corpus", tuple(names), images.shape[1:])
    images = types.SimpleNamespace(images=images, labels=np.array(labels))
    return types.SimpleNamespace(info=info, train=images, test=images)


def test_pixels_are_means_of_the_larger_ones():
    image = np.zeros((1, 16, 16, 1), np.uint8)
    image[0, :2, 2:4] = [[[10], [20]], [[30], [40]]]
    small = make_pools.small(image, 8)
    assert small.shape == (1, 8, 8, 1)
    assert small[0, 0, 1, 0] == 25 and small.sum() == 25
    colored = make_pools.small(
        np.concatenate([image, 2 * image], -1)[..., [0, 1, 1]], 8
    )
    assert colored.shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(colored[0, 0, 1], [25, 50, 50])


def test_there_are_as_many_of_each_and_the_others_have_other_classes():
    digits = corpus(np.full((3, 8, 8, 1), 7, np.uint8), [0, 1, 2], "0123456789")
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None]
    clothes = corpus(
        np.tile(pixels, (1, 16, 16, 1)), [0, 1, 2, 3, 4], "abcdefghij"
    )
    found = make_pools.mixed(digits, clothes)
    assert found["x_train"].shape == (6, 8, 8, 1)
    np.testing.assert_array_equal(found["y_train"][:3], [0, 1, 2])
    # Pictures of one gray level, which is their class.
    np.testing.assert_array_equal(
        found["y_train"][3:], 10 + found["x_train"][3:, 0, 0, 0]
    )
    assert len(set(found["y_train"][3:])) == 3
    np.testing.assert_array_equal(found["y_test"], [0, 1, 2])
    assert len(found["class_names"]) == 20


def test_classes_that_are_learned_come_first():
    images = np.zeros((4, 4, 4, 3), np.uint8)
    source = corpus(images, [0, 1, 2, 3], ["car", "cat", "ship", "dog"])
    found = make_pools.reordered(source, ("dog", "cat"), 2)
    assert list(found["class_names"]) == ["dog", "cat", "car", "ship"]
    np.testing.assert_array_equal(found["y_train"], [2, 1, 3, 0])
    np.testing.assert_array_equal(found["y_test"], [2, 1, 3, 0])
    assert found["x_train"].shape == found["x_test"].shape == (4, 2, 2, 3)


def test_labels_of_people_have_to_be_of_these_images():
    arrays = {"y_train": np.array([0, 1, 2]), "y_test": np.array([0])}
    found = make_pools.relabeled(arrays, np.array([0, 1, 9], np.uint8))
    np.testing.assert_array_equal(found["y_train"], [0, 1, 9])
    assert found["y_train"].dtype == arrays["y_train"].dtype
    assert found["y_test"] is arrays["y_test"]
    with pytest.raises(ValueError, match="33% of the labels of people"):
        make_pools.relabeled(arrays, np.array([0, 9, 9]))
