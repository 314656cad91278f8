"""Image transformations inside a training step, whose parameters are predicted.

Unlike the operations of the data pipeline they work on float images, are
differentiable in their parameters and compile under XLA. A matrix maps
homogeneous coordinates `(x, y, 1)` of the output to those of the input, both
centered and divided by half of the longer side: -1...1 on a square image.
"""

import math

import tensorflow as tf

from tf_metassl.ops.checks import check_rank

# By 0, 1, 2 and 3 quarters of a turn.
_QUARTER_TURNS = (
    ((1, 0), (0, 1)),
    ((0, -1), (1, 0)),
    ((-1, 0), (0, -1)),
    ((0, 1), (-1, 0)),
)


def euclidean(draw, max_rotation):
    """Rotation and translation.

    Args:
        draw: `[N, 3]` in -1...1: angle, shift in x and y.
        max_rotation: degrees.

    Returns:
        `[N, 3, 3]`; shifts are at most a fifth of the longer side.
    """
    angle, x, y = tf.unstack(draw, 3, axis=1)
    return _affine_matrix(angle * max_rotation, x, y)


def similarity(draw, max_rotation):
    """Rotation, translation and one scale of 0.8...1.2.

    Args:
        draw: `[N, 4]` in -1...1: those of `euclidean`, scale.
        max_rotation: degrees.

    Returns:
        `[N, 3, 3]`.
    """
    angle, x, y, scale = tf.unstack(draw, 4, axis=1)
    scale = 1.0 + 0.2 * scale
    return _affine_matrix(angle * max_rotation, x, y, scale, scale)


def affine(draw, max_rotation):
    """Rotation, translation, a scale of each axis, shear of up to 30 degrees.

    Args:
        draw: `[N, 6]` in -1...1: those of `euclidean`, two scales, shear.
        max_rotation: degrees.

    Returns:
        `[N, 3, 3]`.
    """
    angle, x, y, scale_x, scale_y, shear = tf.unstack(draw, 6, axis=1)
    return _affine_matrix(
        angle * max_rotation,
        x,
        y,
        1.0 + 0.2 * scale_x,
        1.0 + 0.2 * scale_y,
        tf.tan(shear * math.radians(30.0)),
    )


def _affine_matrix(degrees, x, y, scale_x=1.0, scale_y=1.0, shear=0.0):
    """Rotation after shear after scale, then a shift by a fifth of `x, y`."""
    angle = degrees * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _matrix(
        cos * scale_x,
        (cos * shear - sin) * scale_y,
        0.4 * x,
        sin * scale_x,
        (sin * shear + cos) * scale_y,
        0.4 * y,
        tf.zeros_like(angle),
        tf.zeros_like(angle),
    )


def projective(draw):
    """Every corner moves by up to an eighth of the longer side.

    Source: Heckbert, "Fundamentals of Texture Mapping and Image Warping",
    1989, section 2.2.3, for the matrix that maps a square to four points.

    Args:
        draw: `[N, 8]` in -1...1: x and y of the corners (-1, -1), (1, -1),
            (1, 1) and (-1, 1).

    Returns:
        `[N, 3, 3]` with 1 as its last entry.
    """
    corners = tf.constant([-1, -1, 1, -1, 1, 1, -1, 1], draw.dtype)
    x0, y0, x1, y1, x2, y2, x3, y3 = tf.unstack(
        corners + 0.25 * draw, 8, axis=1
    )
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g = (dx3 * dy2 - dx2 * dy3) / area
    h = (dx1 * dy3 - dx3 * dy1) / area
    from_unit_square = _matrix(
        x1 - x0 + g * x1,
        x3 - x0 + h * x3,
        x0,
        y1 - y0 + g * y1,
        y3 - y0 + h * y3,
        y0,
        g,
        h,
    )
    to_unit_square = tf.constant(
        [[0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], draw.dtype
    )
    matrix = from_unit_square @ to_unit_square
    return matrix / matrix[:, 2:, 2:]


def _matrix(*entries):
    """`[N, 3, 3]` from the first eight entries `[N]`; the last is 1."""
    rows = tf.stack([*entries, tf.ones_like(entries[0])], axis=1)
    return tf.reshape(rows, [-1, 3, 3])


def quarter_turned(images, turns):
    """Turns images counterclockwise by multiples of 90 degrees.

    Args:
        images: `[N, H, W, C]` of a float dtype. Those that are not square are
            turned within their frame.
        turns: `[N]` integers in 0...3.

    Returns:
        `[N, H, W, C]`, same dtype.
    """
    check_rank("turns", turns, 1)
    matrices = tf.constant(_QUARTER_TURNS, images.dtype)  # [4, 2, 2]
    matrices = tf.pad(matrices, [[0, 0], [0, 1], [0, 1]])
    last = tf.constant([0, 0, 1], images.dtype)
    matrices += tf.linalg.diag(last)
    return warp(images, tf.gather(matrices, turns))


def warp(images, matrices, size=None):
    """Bilinear sampling; outside of an image its border is continued.

    Args:
        images: `[N, H, W, C]` of a float dtype, static but for N.
        matrices: `[N, 3, 3]`, see the module.
        size: height and width of the output; None for those of the images.

    Returns:
        `[N, height, width, C]`, same dtype.
    """
    check_rank("images", images, 4)
    check_rank("matrices", matrices, 3)
    height, width, channels = images.shape[1:]
    dtype = matrices.dtype
    new_height, new_width = size or (height, width)
    new_half = max(new_height, new_width) / 2.0
    x = (tf.range(new_width, dtype=dtype) - (new_width - 1) / 2.0) / new_half
    y = (tf.range(new_height, dtype=dtype) - (new_height - 1) / 2.0) / new_half
    x, y = (tf.reshape(t, [-1]) for t in tf.meshgrid(x, y))
    half = max(height, width) / 2.0
    middle_x, middle_y = (width - 1) / 2.0, (height - 1) / 2.0
    points = matrices @ tf.stack([x, y, tf.ones_like(x)])  # [N, 3, H * W]
    x = points[:, 0] / points[:, 2] * half + middle_x
    y = points[:, 1] / points[:, 2] * half + middle_y
    x = tf.clip_by_value(x, 0.0, width - 1.0)
    y = tf.clip_by_value(y, 0.0, height - 1.0)

    left, top = tf.floor(x), tf.floor(y)
    right_share, bottom_share = x - left, y - top
    left, top = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
    right = tf.minimum(left + 1, width - 1)
    bottom = tf.minimum(top + 1, height - 1)
    flat = tf.reshape(images, [-1, height * width, channels])

    def part(row, column, share):
        values = tf.gather(flat, row * width + column, batch_dims=1)
        return tf.cast(share[..., tf.newaxis], flat.dtype) * values

    mixed = (
        part(top, left, (1.0 - bottom_share) * (1.0 - right_share))
        + part(top, right, (1.0 - bottom_share) * right_share)
        + part(bottom, left, bottom_share * (1.0 - right_share))
        + part(bottom, right, bottom_share * right_share)
    )
    return tf.reshape(mixed, [-1, new_height, new_width, channels])


def recolored(images, draw):
    """Changes contrast, brightness, sharpness and the saturation of colors.

    Args:
        images: `[N, H, W, C]` of a float dtype in 0...255.
        draw: `[N, 4]`, or `[N, 3]` if C is 1, in -1...1; the factors are
            0.2...1.8.

    Returns:
        `[N, H, W, C]`, clipped to 0...255.
    """
    check_rank("images", images, 4)
    check_rank("draw", draw, 2)
    factors = tf.cast(1.0 + 0.8 * draw, images.dtype)
    for position, other in enumerate(_COLORLESS[: draw.shape[1]]):
        factor = factors[:, position, tf.newaxis, tf.newaxis, tf.newaxis]
        base = other(images)
        images = tf.clip_by_value(base + factor * (images - base), 0.0, 255.0)
    return images


def num_color_factors(channels):
    """Number of factors of `recolored` for images with these channels."""
    return 3 if channels == 1 else 4


def _gray(images):
    if images.shape[-1] == 1:
        return images
    weights = tf.constant([0.299, 0.587, 0.114], images.dtype)
    return tf.reduce_sum(images * weights, axis=-1, keepdims=True)


def _mean_gray(images):
    return tf.reduce_mean(_gray(images), axis=[1, 2, 3], keepdims=True)


def _smooth(images):
    """Mean of 3x3 pixels, in which the center counts five times."""
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    total = 4.0 * images
    for y in range(3):
        for x in range(3):
            total += padded[:, y : y + height, x : x + width]
    return total / 13.0


# The image for a factor of 0, in the order of the factors.
_COLORLESS = (_mean_gray, tf.zeros_like, _smooth, _gray)
