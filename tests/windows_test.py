"""Crops and windows do what was drawn, and draw what they should."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import policies
from tf_metassl.data.windows import WindowPolicy

SEED = tf.constant([3, 5], tf.int32)


def make_images(num_images, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


# Crops.


def test_crop_does_what_was_drawn():
    policy = policies.WEAK_POLICIES["flip_crop"]
    images = make_images(6, (32, 24, 3))
    draw = {
        "flip": tf.constant([False, True] * 3),
        "offset_y": tf.constant([3, 3, 0, 6, 1, 3]),
        "offset_x": tf.constant([3, 3, 6, 0, 3, 2]),
    }
    result = policy.apply(images, draw).numpy()
    np.testing.assert_array_equal(result[0], images[0])
    np.testing.assert_array_equal(result[1], images[1, :, ::-1])
    for row in range(2, 6):
        flipped = images[row, :, ::-1] if row % 2 else images[row]
        padded = np.pad(flipped, [[3, 3], [3, 3], [0, 0]], "reflect")
        y, x = int(draw["offset_y"][row]), int(draw["offset_x"][row])
        expected = padded[y : y + 32, x : x + 24]
        np.testing.assert_array_equal(result[row], expected)


def test_mpl_crop_pads_with_gray():
    policy = policies.WEAK_POLICIES["mpl"]
    images = np.full([1, 32, 32, 3], 9, np.uint8)
    corner = tf.constant([0])
    draw = {"flip": corner == 1, "offset_y": corner, "offset_x": corner}
    result = policy.apply(images, draw).numpy()
    assert np.all(result[0, :4] == 128) and np.all(result[0, :, :4] == 128)
    assert np.all(result[0, 4:, 4:] == 9)


@pytest.mark.parametrize("side, padding", [(8, 1), (28, 4), (32, 4), (96, 12)])
def test_crops_pad_an_eighth_of_the_side(side, padding):
    policy = policies.WEAK_POLICIES["crop"]
    draw = policy.draw(SEED, 2000, (side, side, 3))
    for name in ("offset_y", "offset_x"):
        values = set(draw[name].numpy().tolist())
        assert values == set(range(2 * padding + 1))
    assert not np.any(draw["flip"])


def test_flips_are_as_frequent_as_not():
    policy = policies.WEAK_POLICIES["flip_crop"]
    draw = policy.draw(SEED, 10_000, (32, 32, 3))
    assert abs(draw["flip"].numpy().mean() - 0.5) < 0.02


def test_none_changes_nothing():
    policy = policies.WEAK_POLICIES["none"]
    images = make_images(5, (8, 8, 1))
    draw = policy.draw(SEED, 5, (8, 8, 1))
    result = policy.apply(images, draw)
    np.testing.assert_array_equal(result, images)


# Windows of larger images.


def test_windows_of_the_wanted_size_are_cut_not_resized():
    policy = policies.WEAK_POLICIES["random_crop"]
    images = make_images(200, (12, 12, 3))
    draw = policy.draw(SEED, 200, (12, 12, 3), (8, 8))
    result = policy.apply(images, draw, (8, 8)).numpy()
    corners = set()
    for row in range(200):
        top, left = int(draw["top"][row]), int(draw["left"][row])
        corners.add((top, left))
        window = images[row, top : top + 8, left : left + 8]
        if draw["flip"][row]:
            window = window[:, ::-1]
        np.testing.assert_array_equal(result[row], window)
    assert corners == {(y, x) for y in range(5) for x in range(5)}


def test_resized_windows_have_the_drawn_areas_and_ratios():
    policy = policies.WEAK_POLICIES["resized_crop"]
    draw = policy.draw(SEED, 20_000, (256, 256, 3), (224, 224))
    draw = {name: values.numpy() for name, values in draw.items()}
    height, width = draw["height"], draw["width"]
    whole = (height == 256) & (width == 256)
    assert whole.mean() < 0.01
    area, ratio = height * width / 256**2, width / height
    assert 0.075 < area.min() < 0.1 and area.max() > 0.97
    within = (ratio > 0.74) & (ratio < 1.35)
    assert within[~whole].all()
    assert abs(np.log(ratio).mean()) < 0.01
    for place, size in (("top", height), ("left", width)):
        assert draw[place].min() >= 0
        assert (draw[place] + size <= 256).all()
        np.testing.assert_array_equal(draw[place], np.floor(draw[place]))


def test_other_weak_policies_see_the_middle_of_a_larger_image():
    images = make_images(6, (12, 12, 3))
    for name, policy in policies.WEAK_POLICIES.items():
        if isinstance(policy, WindowPolicy):
            continue
        draw = policy.draw(SEED, 6, (12, 12, 3), (8, 8))
        result = policy.apply(images, draw, (8, 8))
        middle = images[:, 2:10, 2:10]
        same = policy.draw(SEED, 6, (8, 8, 3))
        expected = policy.apply(middle, same)
        np.testing.assert_array_equal(result, expected, err_msg=name)
