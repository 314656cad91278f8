"""Warps and colors against images written out and loops."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import transformations


def image(*rows):
    return tf.constant(rows, tf.float32)[None, ..., None]


def pixels(images):
    return np.squeeze(images.numpy())


NOTHING = {
    "projective": lambda: transformations.projective(tf.zeros([2, 8])),
    "affine": lambda: transformations.affine(tf.zeros([2, 6]), 180.0),
    "similarity": lambda: transformations.similarity(tf.zeros([2, 4]), 180.0),
    "euclidean": lambda: transformations.euclidean(tf.zeros([2, 3]), 180.0),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_a_draw_of_zero_changes_nothing(kind):
    matrix = NOTHING[kind]()
    np.testing.assert_allclose(matrix, [np.eye(3)] * 2, atol=1e-7)
    images = tf.constant(
        np.random.default_rng(0).uniform(0, 255, (2, 4, 5, 3)), tf.float32
    )
    np.testing.assert_allclose(
        transformations.warp(images, matrix), images, atol=1e-3
    )


def test_a_quarter_turn():
    matrix = transformations.euclidean(tf.constant([[1.0, 0, 0]]), 90.0)
    turned = transformations.warp(
        image([1, 2, 3], [4, 5, 6], [7, 8, 9]), matrix
    )
    # The output's corner (-1, -1) comes from the input's (1, -1).
    np.testing.assert_allclose(
        pixels(turned), [[3, 6, 9], [2, 5, 8], [1, 4, 7]], atol=1e-5
    )


def test_a_quarter_turn_keeps_the_scale_of_an_oblong_image():
    matrix = transformations.euclidean(tf.constant([[1.0, 0, 0]]), 90.0)
    turned = transformations.warp(image([1, 2, 3, 4, 5]), matrix)
    # The row stands upright; one pixel of it is left, and its border goes on.
    np.testing.assert_allclose(pixels(turned), [3] * 5, atol=1e-5)


def test_a_shift_continues_the_border_and_interpolates():
    # 0.4 of half the width of 5 is one pixel.
    shift = tf.constant([[0.0, 1.0, 0.0]])
    row = image([1, 2, 3, 4, 5])
    matrix = transformations.euclidean(shift, 0.0)
    np.testing.assert_allclose(
        pixels(transformations.warp(row, matrix)), [2, 3, 4, 5, 5], atol=1e-5
    )
    half = transformations.euclidean(shift / 2, 0.0)
    np.testing.assert_allclose(
        pixels(transformations.warp(row, half)),
        [1.5, 2.5, 3.5, 4.5, 5],
        atol=1e-5,
    )


def test_an_affine_matrix_by_hand():
    draw = tf.constant([[0.5, -1.0, 0.5, 1.0, -1.0, 1.0]], tf.float64)
    angle, shear = math.radians(20), math.tan(math.radians(30))
    turn = [[math.cos(angle), -math.sin(angle)]]
    turn += [[math.sin(angle), math.cos(angle)]]
    expected = np.eye(3)
    expected[:2, :2] = (
        np.array(turn) @ np.array([[1, shear], [0, 1]]) @ np.diag([1.2, 0.8])
    )
    expected[:2, 2] = [-0.4, 0.2]
    np.testing.assert_allclose(
        transformations.affine(draw, 40.0)[0], expected, rtol=1e-9
    )
    similar = transformations.similarity(draw[:, :4], 40.0)[0]
    np.testing.assert_allclose(similar[:2, :2], 1.2 * np.array(turn), rtol=1e-9)


def test_a_projective_matrix_moves_the_corners_to_where_they_were_drawn():
    draw = np.random.default_rng(0).uniform(-1, 1, (4, 8))
    matrices = transformations.projective(tf.constant(draw)).numpy()
    np.testing.assert_allclose(matrices[:, 2, 2], 1, rtol=1e-12)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    for matrix, moves in zip(matrices, draw.reshape(4, 4, 2), strict=True):
        for corner, move in zip(corners, moves, strict=True):
            x, y, w = matrix @ [*corner, 1]
            np.testing.assert_allclose([x / w, y / w], corner + 0.25 * move)


def test_factors_of_contrast_brightness_and_sharpness():
    gray = image([10, 20], [30, 40])

    def recolored(*draw):
        return pixels(transformations.recolored(gray, tf.constant([draw])))

    np.testing.assert_allclose(
        recolored(0.0, 0.0, 0.0), [[10, 20], [30, 40]], rtol=1e-6
    )
    # Contrast 0.2 around the mean of 25; brightness 0.2.
    np.testing.assert_allclose(
        recolored(-1.0, 0.0, 0.0), [[22, 24], [26, 28]], rtol=1e-5
    )
    np.testing.assert_allclose(
        recolored(0.0, -1.0, 0.0), [[2, 4], [6, 8]], rtol=1e-5
    )
    # The border goes on as a mirror: the corner 10 has three neighbors 10,
    # two 20, two 30 and one 40 of weight 1, and itself of weight 5.
    smooth = (5 * 10 + 3 * 10 + 2 * 20 + 2 * 30 + 40) / 13
    np.testing.assert_allclose(
        recolored(0.0, 0.0, -1.0)[0, 0],
        smooth + 0.2 * (10 - smooth),
        rtol=1e-5,
    )
    assert recolored(0.0, 1.0, 0.0).max() <= 255


def test_saturation_pulls_toward_gray():
    red = tf.constant([[[[100.0, 0.0, 0.0]]]])
    draw = tf.constant([[0.0, 0.0, 0.0, -1.0]])
    found = transformations.recolored(red, draw)
    np.testing.assert_allclose(
        pixels(found), [29.9 + 0.2 * 70.1, 0.8 * 29.9, 0.8 * 29.9], rtol=1e-5
    )
    assert transformations.num_color_factors(1) == 3
    assert transformations.num_color_factors(3) == 4
