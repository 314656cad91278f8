"""Cuts images into the patches of a jigsaw."""

import tensorflow as tf

from tf_metassl.ops import transformations
from tf_metassl.ops.checks import check_rank

# The cells of the grid along each side.
_CELLS = 3
NUM_PATCHES = _CELLS**2
# The side of a patch as a share of the image's: 64 of 255 pixels.
_SIDE = 1 / 4


def patches(images, draw, size):
    """One patch of each cell of a grid of three by three.

    A patch has a quarter of the image's height and width, so that there is a
    gap between neighbors by which they could else be put together. It is
    enlarged or reduced to `size`, bilinear.

    Args:
        images: `[N, H, W, C]` of a float dtype.
        draw: `[N, 9, 2]` in [0, 1): the place of each patch in its cell, x and
            y; 0 is left and top.
        size: height and width of the result.

    Returns:
        `[N * 9, height, width, C]`, same dtype, the patches of an image
        together, row by row of the grid.

    Source: Noroozi and Favaro, arXiv 1603.09246, with the sizes of Misra and
    van der Maaten, arXiv 1912.01991.
    """
    check_rank("images", images, 4)
    check_rank("draw", draw, 3)
    height, width = images.shape[1:3]
    draw = tf.cast(draw, images.dtype)
    places = tf.range(NUM_PATCHES)
    column = tf.cast(places % _CELLS, draw.dtype)
    row = tf.cast(places // _CELLS, draw.dtype)

    def middle(cell, share, side):
        # In units of half of the longer side, from the image's middle.
        side = 2.0 * side / max(height, width)
        room = side * (1.0 / _CELLS - _SIDE)
        return side * (cell / _CELLS + 0.5 * _SIDE - 0.5) + room * share

    x = tf.reshape(middle(column, draw[..., 0], width), [-1])
    y = tf.reshape(middle(row, draw[..., 1], height), [-1])
    none, side = tf.zeros_like(x), tf.fill(tf.shape(x), _SIDE)
    side = tf.cast(side, x.dtype)
    matrices = tf.stack(
        [side, none, x, none, side, y, none, none, tf.ones_like(x)], axis=1
    )
    return transformations.warp(
        tf.repeat(images, NUM_PATCHES, axis=0),
        tf.reshape(matrices, [-1, 3, 3]),
        size,
    )
