"""The nine patches of an image, on images whose pixels say where they are."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import jigsaw


def positions(height, width):
    """An image whose two channels are the row and the column of a pixel."""
    grid = np.stack(np.mgrid[:height, :width], axis=-1)
    return tf.constant(grid[None], tf.float32)


@pytest.mark.parametrize("shape", ((24, 24), (24, 36), (36, 12)))
@pytest.mark.parametrize("share", (0.0, 0.25, 1.0))
def test_a_patch_is_a_quarter_of_the_side_and_inside_its_cell(shape, share):
    height, width = shape
    size = (height // 4, width // 4)
    draw = tf.fill([1, 9, 2], share)
    found = jigsaw.patches(positions(*shape), draw, size)
    assert found.shape == (9, *size, 2)
    for place, patch in enumerate(found.numpy()):
        row, column = divmod(place, 3)
        # A third less a quarter of the side is left, and share of it before.
        top = height * (row / 3 + share / 12)
        left = width * (column / 3 + share / 12)
        expected = np.stack(np.mgrid[: size[0], : size[1]], -1) + [top, left]
        np.testing.assert_allclose(patch, expected, atol=1e-3)


def test_x_is_drawn_before_y_and_patches_of_an_image_are_together():
    images = tf.concat([positions(24, 24), 100 + positions(24, 24)], 0)
    draw = np.zeros((2, 9, 2), np.float32)
    draw[1, 2] = 1.0, 0.5
    found = jigsaw.patches(images, tf.constant(draw), (6, 6)).numpy()
    np.testing.assert_allclose(found[8, 0, 0], [16, 16], atol=1e-3)
    np.testing.assert_allclose(found[9, 0, 0], [100, 100], atol=1e-3)
    # The last patch of the first row, at the right of its cell.
    np.testing.assert_allclose(found[11, 0, 0], [101, 118], atol=1e-3)


def test_patches_are_enlarged_to_the_size_asked_for():
    draw = tf.zeros([1, 9, 2])
    found = jigsaw.patches(positions(24, 24), draw, (12, 12))[4].numpy()
    # Twice as large: neighbors are half a pixel apart, in the same place.
    np.testing.assert_allclose(
        found[:, 0, 0], 8 - 0.25 + 0.5 * np.arange(12), atol=1e-3
    )
    gray = tf.random.stateless_uniform([2, 9, 8, 1], [1, 2])
    assert jigsaw.patches(gray, tf.zeros([2, 9, 2]), (5, 7)).shape == (
        *(18, 5, 7),
        1,
    )
