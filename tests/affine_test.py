"""The affine transform does what was drawn, inside its ranges."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import policies

SEED = tf.constant([3, 5], tf.int32)


def make_images(num_images, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


STILL = {
    "angle": 0.0,
    "scale": 1.0,
    "shear_x": 0.0,
    "shear_y": 0.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "contrast": 1.0,
    "brightness": 1.0,
    "center_y": 100,
    "center_x": 100,
}


def still(num_images, **values):
    values = {**STILL, **values}
    return {name: tf.fill([num_images], v) for name, v in values.items()}


@pytest.mark.parametrize("side", [8, 28])
def test_affine_digits_that_draw_nothing_change_nothing(side):
    policy = policies.STRONG_POLICIES["affine_digits"]
    images = make_images(3, (side, side, 1))
    result = policy.apply(images, still(3))
    np.testing.assert_array_equal(result, images)


def test_affine_does_what_was_drawn():
    policy = policies.STRONG_POLICIES["affine_digits"]
    images = np.zeros([1, 3, 3, 1], np.uint8)
    images[0, 1, 1] = 100

    def result(**values):
        drawn = policy.apply(images, still(1, **values))
        return drawn[0, :, :, 0].numpy().tolist()

    empty = [0, 0, 0]
    assert result(shift_x=1.0, shift_y=-1.0) == [[0, 0, 100], empty, empty]
    assert result(angle=0.4, shear_x=0.2, scale=1.2)[1][1] in (99, 100)
    assert result(brightness=1.4) == [empty, [0, 140, 0], empty]
    # The gray mean is 11.1; 11 + 1.4 * (100 - 11) = 135.6.
    assert result(contrast=1.4) == [empty, [0, 135, 0], empty]
    images[:] = 100
    assert result(shift_x=1.0) == [[0, 100, 100]] * 3
    covered = policy.apply(
        make_images(1, (8, 8, 1)) // 2 + 1,
        still(1, center_y=2, center_x=5),
    )[0, :, :, 0].numpy()
    assert np.argwhere(covered == 0).tolist() == [
        [1, 4],
        [1, 5],
        [2, 4],
        [2, 5],
    ]


def test_affine_draws_stay_in_their_ranges():
    policy = policies.STRONG_POLICIES["affine_digits"]
    draw = policy.draw(SEED, 20_000, (24, 12, 1))
    for name, low, high in (
        ("angle", -0.5, 0.5),
        ("scale", 0.75, 1.25),
        ("shear_x", -0.3, 0.3),
        ("shear_y", -0.3, 0.3),
        ("shift_x", -2.0, 2.0),
        ("shift_y", -4.0, 4.0),
        ("contrast", 0.6, 1.4),
        ("brightness", 0.6, 1.4),
        ("center_y", 0, 23),
        ("center_x", 0, 11),
    ):
        values = draw[name].numpy()
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02 * (high - low)


def test_weak_affine_moves_one_pixel_on_eight():
    policy = policies.WEAK_POLICIES["affine"]
    draw = policy.draw(SEED, 2000, (8, 8, 1))
    assert 0.99 < np.abs(draw["shift_x"]).max() <= 1.0
    assert 0.245 < np.abs(draw["angle"]).max() <= 0.25
    assert not np.any(draw["shear_x"])
