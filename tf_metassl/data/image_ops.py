"""Image operations on whole batches, with one parameter per image.

All functions take uint8 images `[N, H, W, C]` and vectors `[N]` of parameters,
are pure, draw nothing, and work eagerly and in tf.data graphs; N may be unknown
or 0, but H, W and C must be static. Their results equal those of
tensorflow-addons 0.23.0 and Pillow in every pixel, unless a docstring says
otherwise.

Two families make RandAugment cheap: every geometric operation is a matrix for
one `projective_transform`, every tonal operation is a table for one
`apply_lookup_table`, so a batch in which each image has another operation still
needs a single kernel per family.

The kernels use bit operations, gathers and scatters instead of `tf.where`: on
uint8 images a broadcasting `tf.where` costs as much as a projective transform.
"""

import numpy as np
import tensorflow as tf

from tf_metassl.ops.checks import check_rank

INTERPOLATIONS = ("nearest", "bilinear")
PAD_MODES = ("reflect", "constant")
ROUNDINGS = ("nearest", "down")


def _images(images, name="images"):
    """Converts to a tensor and checks for uint8 `[N, H, W, C]`."""
    images = tf.convert_to_tensor(images)
    shape = images.shape
    if images.dtype != tf.uint8 or shape.rank != 4 or None in shape[1:]:
        raise ValueError(
            f"{name}: expected uint8 [N, H, W, C] with static H, W and C, got "
            f"{images.dtype.name} {shape}."
        )
    return images


def _vector(name, values, dtype, images=None):
    """Converts to `dtype` and checks for `[N]`, one value per image."""
    values = tf.convert_to_tensor(values)
    check_rank(name, values, 1)
    if dtype.is_integer and values.dtype.is_floating:
        raise ValueError(
            f"{name}: expected integers, got {values.dtype.name}; round first."
        )
    if images is not None:
        size, expected = values.shape[0], images.shape[0]
        if None not in (size, expected) and size != expected:
            raise ValueError(
                f"{name}: expected one value for each of {expected} images, "
                f"got {size}."
            )
    return tf.cast(values, dtype)


def _choice(name, value, choices):
    if value not in choices:
        raise ValueError(
            f"{name}: expected one of {', '.join(choices)}, got {value!r}."
        )


def _byte(name, value):
    if not 0 <= value <= 255:
        raise ValueError(f"{name}: expected 0 ... 255, got {value!r}.")


# Geometry: matrices for one projective transform.


def projective_transform(
    images, matrices, fill_value=0.0, interpolation="nearest", output_size=None
):
    """Moves the pixels of each image by its own matrix.

    A row `(a0, a1, a2, b0, b1, b2, c0, c1)` maps the output pixel (x, y) to
    the input position ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k) with
    k = c0 x + c1 y + 1, as in `tfa.image.transform`; the results are equal in
    every pixel. Bilinear values are rounded down, as there.

    Args:
        images: `[N, H, W, C]` uint8.
        matrices: `[N, 8]` float32.
        fill_value: number in 0 ... 255 for pixels from outside the image.
        interpolation: `nearest` or `bilinear`.
        output_size: height and width of the result; None for those of the
            images.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes, types or an unknown interpolation.
    """
    images = _images(images)
    size, *image_size, channels = images.shape
    output_size = list(output_size or image_size)
    matrices = tf.convert_to_tensor(matrices, tf.float32)
    check_rank("matrices", matrices, 2)
    if not matrices.shape.is_compatible_with([images.shape[0], 8]):
        raise ValueError(
            f"matrices: expected [{images.shape[0]}, 8] for images "
            f"{images.shape}, got {matrices.shape}."
        )
    _choice("interpolation", interpolation, INTERPOLATIONS)
    _byte("fill_value", fill_value)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=output_size,
        fill_value=tf.cast(fill_value, tf.float32),
        interpolation=interpolation.upper(),
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(moved, [size, *output_size, channels])


def _matrix(like, **entries):
    """Stacks `[N, 8]` from the given entries; the others are the identity."""
    zero, one = tf.zeros_like(like), tf.ones_like(like)
    default = {"a0": one, "b1": one}
    names = ("a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1")
    return tf.stack(
        [entries.get(name, default.get(name, zero)) for name in names], axis=1
    )


def rotation_matrix(angle, height, width):
    """Matrices that turn the content about the middle of the image.

    Args:
        angle: `[N]` float, radians, counter-clockwise in the displayed image.
        height: int, of the images.
        width: int, of the images.

    Returns:
        `[N, 8]` float32; as `tfa.image.rotate`.

    Raises:
        ValueError: if `angle` is not a vector.
    """
    angle = _vector("angle", angle, tf.float32)
    cos, sin = tf.cos(angle), tf.sin(angle)
    right, bottom = float(width - 1), float(height - 1)
    return _matrix(
        angle,
        a0=cos,
        a1=-sin,
        a2=(right - (cos * right - sin * bottom)) / 2.0,
        b0=sin,
        b1=cos,
        b2=(bottom - (sin * right + cos * bottom)) / 2.0,
    )


def shear_x_matrix(level):
    """Matrices that shift row y by -level * y pixels to the right.

    The top row stays, as in `tfa.image.shear_x`; Pillow's affine transform
    takes pixel centers half a pixel further, so it differs in some pixels.

    Args:
        level: `[N]` float.

    Returns:
        `[N, 8]` float32.

    Raises:
        ValueError: if `level` is not a vector.
    """
    level = _vector("level", level, tf.float32)
    return _matrix(level, a1=level)


def shear_y_matrix(level):
    """Matrices that shift column x by -level * x pixels downwards.

    The left column stays, as in `tfa.image.shear_y`; see `shear_x_matrix`.

    Args:
        level: `[N]` float.

    Returns:
        `[N, 8]` float32.

    Raises:
        ValueError: if `level` is not a vector.
    """
    level = _vector("level", level, tf.float32)
    return _matrix(level, b0=level)


def translation_matrix(dx, dy):
    """Matrices that move the content to the right and down.

    Args:
        dx: `[N]` float, pixels to the right.
        dy: `[N]` float, pixels down.

    Returns:
        `[N, 8]` float32; as `tfa.image.translate`.

    Raises:
        ValueError: if an argument is not a vector.
    """
    dx = _vector("dx", dx, tf.float32)
    dy = _vector("dy", dy, tf.float32)
    return _matrix(dx, a2=-dx, b2=-dy)


def window_matrix(top, left, height, width, output_size):
    """Matrices that resize a window of each image to a common size.

    The window's edges meet the result's edges, so that pixel centers are half
    a pixel inside, as in `tf.image.resize`.

    Args:
        top: `[N]` float, first row of the window; need not be whole.
        left: `[N]` float, first column.
        height: `[N]` float, rows of the window.
        width: `[N]` float, columns.
        output_size: height and width of the result, ints.

    Returns:
        `[N, 8]` float32.

    Raises:
        ValueError: if an argument is not a vector.
    """
    top, left = (
        _vector("top", top, tf.float32),
        _vector("left", left, tf.float32),
    )
    height = _vector("height", height, tf.float32)
    width = _vector("width", width, tf.float32)
    scale_y, scale_x = height / output_size[0], width / output_size[1]
    return _matrix(
        top,
        a0=scale_x,
        a2=left + (scale_x - 1.0) / 2.0,
        b1=scale_y,
        b2=top + (scale_y - 1.0) / 2.0,
    )


def scale_matrix(factor, height, width):
    """Matrices that enlarge the content about the middle of the image.

    Args:
        factor: `[N]` float > 0; 2 shows the middle half at double size.
        height: int, of the images.
        width: int, of the images.

    Returns:
        `[N, 8]` float32.

    Raises:
        ValueError: if `factor` is not a vector.
    """
    inverse = 1.0 / _vector("factor", factor, tf.float32)
    return _matrix(
        inverse,
        a0=inverse,
        a2=(1.0 - inverse) * (width - 1) / 2.0,
        b1=inverse,
        b2=(1.0 - inverse) * (height - 1) / 2.0,
    )


def compose(*matrices):
    """Matrices that do the given transforms one after the other.

    Args:
        *matrices: `[N, 8]` float32 each, the first is applied first.

    Returns:
        `[N, 8]` float32; as `tfa.image.transform_ops.compose_transforms`.

    Raises:
        ValueError: if none is given or one is not `[N, 8]`.
    """
    if not matrices:
        raise ValueError("compose: expected at least one matrix, got none.")
    squares = []
    for matrix in matrices:
        matrix = tf.convert_to_tensor(matrix, tf.float32)
        check_rank("matrices", matrix, 2)
        last = tf.ones_like(matrix[:, :1])
        square = tf.concat([matrix, last], axis=1)
        squares.append(tf.reshape(square, [-1, 3, 3]))
    # Matrices map output to input positions, hence first @ second.
    product = squares[0]
    for square in squares[1:]:
        product = tf.matmul(product, square)
    flat = tf.reshape(product, [-1, 9])
    return flat[:, :8] / flat[:, 8:]


def centered(matrices, height, width):
    """Moves the fixed point from the top left corner to the image's center.

    Args:
        matrices: `[N, 8]` float32, such as shears.
        height: int, of the images.
        width: int, of the images.

    Returns:
        `[N, 8]` float32.

    Raises:
        ValueError: if `matrices` is not `[N, 8]`.
    """
    zero = tf.zeros_like(matrices[:, 0])
    x, y = zero + (width - 1) / 2.0, zero + (height - 1) / 2.0
    return compose(
        translation_matrix(-x, -y), matrices, translation_matrix(x, y)
    )


# Tones: tables for one look-up.


def apply_lookup_table(images, table):
    """Replaces every pixel value by its entry in the table of its image.

    Args:
        images: `[N, H, W, C]` uint8.
        table: `[N, C, 256]` uint8, or `[N, 1, 256]` for all channels alike.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    images = _images(images)
    table = tf.convert_to_tensor(table)
    size, height, width, channels = images.shape
    fits = [
        table.shape.is_compatible_with([size, c, 256]) for c in (1, channels)
    ]
    if table.dtype != tf.uint8 or not any(fits):
        raise ValueError(
            f"table: expected uint8 [{size}, {channels} or 1, 256] for images "
            f"{images.shape}, got {table.dtype.name} {table.shape}."
        )
    tables_per_image = table.shape[1]
    # [H * W * C] and [N, 1]: a broadcast along three channels would be slow.
    channel = tf.range(channels) % tables_per_image
    column = tf.tile(channel * 256, [height * width])
    row = tf.range(tf.shape(images)[0])[:, None] * (tables_per_image * 256)
    flat = tf.reshape(images, [-1, height * width * channels])
    position = tf.cast(flat, tf.int32) + column + row
    values = tf.gather_nd(tf.reshape(table, [-1]), position[..., None])
    return tf.reshape(values, tf.shape(images))


def histograms(images):
    """Counts the pixel values of every channel.

    Args:
        images: `[N, H, W, C]` uint8.

    Returns:
        `[N, C, 256]` int32.

    Raises:
        ValueError: on other shapes or types.
    """
    images = _images(images)
    _, height, width, channels = images.shape
    size = tf.shape(images)[0]
    column = tf.tile(tf.range(channels) * 256, [height * width])
    row = tf.range(size)[:, None] * (channels * 256)
    flat = tf.reshape(images, [-1, height * width * channels])
    position = tf.reshape(tf.cast(flat, tf.int32) + column + row, [-1])
    counts = tf.math.unsorted_segment_sum(
        tf.ones_like(position), position, size * (channels * 256)
    )
    return tf.reshape(counts, [-1, channels, 256])


def gray(images):
    """Luminance as Pillow's `convert("L")`: ITU-R 601-2, rounded.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 or 3.

    Returns:
        `[N, H, W, 1]` int32 in 0 ... 255.

    Raises:
        ValueError: on other shapes, types or numbers of channels.
    """
    images = _images(images)
    if images.shape[3] not in (1, 3):
        raise ValueError(
            f"images: expected 1 or 3 channels, got {images.shape[3]}."
        )
    values = tf.cast(images, tf.int32)
    if images.shape[3] == 1:
        return values
    red, green, blue = tf.split(values, 3, axis=3)
    weighted = 19595 * red + 38470 * green + 7471 * blue + 32768
    return tf.bitwise.right_shift(weighted, 16)


def gray_mean(images):
    """Mean luminance of every image, rounded as `ImageEnhance.Contrast` does.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 or 3.

    Returns:
        `[N]` int32 in 0 ... 255.

    Raises:
        ValueError: on other shapes, types or numbers of channels.
    """
    luminance = gray(images)
    count = luminance.shape[1] * luminance.shape[2]
    total = tf.reduce_sum(luminance, axis=[1, 2, 3])
    return (2 * total + count) // (2 * count)


def _ramp(dtype):
    return tf.range(256, dtype=dtype)[None]


def _table(values):
    """Rounds `[N, 256]` or `[N, C, 256]` down to a look-up table."""
    table = tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)
    return table[:, None] if table.shape.rank == 2 else table


def identity_table(num_images):
    """Tables that change nothing.

    Args:
        num_images: int or scalar int tensor N.

    Returns:
        `[N, 1, 256]` uint8.
    """
    return tf.tile(_table(_ramp(tf.int32)), [num_images, 1, 1])


def invert_table(num_images):
    """Tables of the negative, x -> 255 - x; as `ImageOps.invert`.

    Args:
        num_images: int or scalar int tensor N.

    Returns:
        `[N, 1, 256]` uint8.
    """
    return 255 - identity_table(num_images)


def solarize_table(threshold):
    """Tables that invert the values from the threshold on.

    As `ImageOps.solarize`. The threshold stays an int32: 256 and more change
    nothing, they do not wrap around.

    Args:
        threshold: `[N]` int.

    Returns:
        `[N, 1, 256]` uint8.

    Raises:
        ValueError: if `threshold` is not a vector of integers.
    """
    threshold = _vector("threshold", threshold, tf.int32)[:, None]
    value = _ramp(tf.int32)
    return _table(tf.where(value < threshold, value, 255 - value))


def posterize_table(bits):
    """Tables that keep the highest bits of each value.

    As `ImageOps.posterize`.

    Args:
        bits: `[N]` int, the number of bits kept; clipped to 1 ... 8.

    Returns:
        `[N, 1, 256]` uint8.

    Raises:
        ValueError: if `bits` is not a vector of integers.
    """
    bits = _vector("bits", bits, tf.int32)[:, None]
    step = tf.bitwise.left_shift(1, 8 - tf.clip_by_value(bits, 1, 8))
    return _table(_ramp(tf.int32) // step * step)


def brightness_table(factor):
    """Tables x -> factor * x, rounded down; as `ImageEnhance.Brightness`.

    Args:
        factor: `[N]` float; 1 changes nothing, 0 is black.

    Returns:
        `[N, 1, 256]` uint8.

    Raises:
        ValueError: if `factor` is not a vector.
    """
    factor = _vector("factor", factor, tf.float32)[:, None]
    return _table(factor * _ramp(tf.float32))


def contrast_table(factor, mean):
    """Tables x -> mean + factor * (x - mean), as `ImageEnhance.Contrast`.

    Rounded down.

    Args:
        factor: `[N]` float; 1 changes nothing, 0 is plain gray.
        mean: `[N]` int, see `gray_mean`.

    Returns:
        `[N, 1, 256]` uint8.

    Raises:
        ValueError: if an argument is not a vector or `mean` not of integers.
    """
    factor = _vector("factor", factor, tf.float32)[:, None]
    mean = _vector("mean", mean, tf.int32)
    mean = tf.cast(mean, tf.float32)[:, None]
    return _table(mean + factor * (_ramp(tf.float32) - mean))


def _check_histograms(counts):
    counts = tf.convert_to_tensor(counts)
    if counts.dtype != tf.int32 or counts.shape.rank != 3:
        raise ValueError(
            f"histograms: expected int32 [N, C, 256], got {counts.dtype.name} "
            f"{counts.shape}."
        )
    return counts


def autocontrast_table(counts):
    """Tables that stretch each channel's values to 0 ... 255.

    As `ImageOps.autocontrast`; a channel of one value stays as it is.

    Args:
        counts: `[N, C, 256]` int32, see `histograms`.

    Returns:
        `[N, C, 256]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    present = _check_histograms(counts) > 0
    value = tf.range(256)
    low = tf.reduce_min(tf.where(present, value, 255), axis=2)
    high = tf.reduce_max(tf.where(present, value, 0), axis=2)
    # In float64, because Pillow's product is in some places one ulp below the
    # integer that it is then rounded down to.
    span = tf.cast(tf.maximum(high - low, 1), tf.float64)
    scale = 255.0 / span
    offset = -tf.cast(low, tf.float64) * scale
    value = tf.range(256, dtype=tf.float64)
    stretched = _table(value * scale[..., None] + offset[..., None])
    flat = (high <= low)[..., None]
    return tf.where(flat, tf.cast(value, tf.uint8), stretched)


def equalize_table(counts):
    """Tables that make each channel's histogram as even as possible.

    As `ImageOps.equalize` and `tfa.image.equalize`; a channel with hardly more
    than one value stays as it is.

    Args:
        counts: `[N, C, 256]` int32, see `histograms`.

    Returns:
        `[N, C, 256]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    counts = _check_histograms(counts)
    below = tf.cumsum(counts, axis=2, exclusive=True)
    # The pixels below the highest value that occurs: all but those of it.
    below_highest = tf.reduce_max(
        tf.where(counts > 0, below, 0), axis=2, keepdims=True
    )
    step = below_highest // 255
    divisor = tf.maximum(step, 1)
    even = (below + step // 2) // divisor
    return _table(tf.where(step == 0, tf.range(256), even))


# Operations on neighbors, several channels or positions.


def blend(first, second, factor, rounding="nearest"):
    """Interpolates or extrapolates: first + factor * (second - first).

    Computed in float32 and clipped to 0 ... 255.

    Args:
        first: `[N, H, W, C]` uint8, the result for factor 0.
        second: `[N, H, W, C]` uint8, the result for factor 1.
        factor: `[N]` float.
        rounding: `nearest` (ties to even, as `tfa.image.blend`) or `down` (as
            Pillow's `Image.blend`).

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes, types or an unknown rounding.
    """
    first, second = _images(first, "first"), _images(second, "second")
    if not first.shape.is_compatible_with(second.shape):
        raise ValueError(
            "blend: expected images of the same shape, got "
            f"{first.shape} and {second.shape}."
        )
    factor = _vector("factor", factor, tf.float32, first)
    _choice("rounding", rounding, ROUNDINGS)
    start = tf.cast(first, tf.float32)
    change = tf.cast(second, tf.float32) - start
    result = start + factor[:, None, None, None] * change
    result = tf.clip_by_value(result, 0.0, 255.0)
    if rounding == "nearest":
        result = tf.round(result)
    return tf.cast(result, tf.uint8)


def color(images, factor):
    """Changes the saturation, as `ImageEnhance.Color`.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 (nothing changes) or 3.
        factor: `[N]` float; 1 changes nothing, 0 is gray.

    Returns:
        `[N, H, W, C]` uint8, rounded down as in Pillow.

    Raises:
        ValueError: on other shapes, types or numbers of channels.
    """
    images = _images(images)
    _vector("factor", factor, tf.float32, images)
    luminance = tf.cast(gray(images), tf.uint8)
    if images.shape[3] == 1:
        return images
    return blend(tf.tile(luminance, [1, 1, 1, 3]), images, factor, "down")


def hue(images, factor):
    """Turns the hue, as torchvision's `adjust_hue` on a Pillow image.

    In Pillow's HSV of 8 bits: the turn is 255 * factor, rounded toward 0, and
    a factor of 0 may change a value by the rounding of HSV.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 (nothing changes) or 3.
        factor: `[N]` float in -0.5 ... 0.5, part of a full turn.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes, types or numbers of channels.
    """
    images = _images(images)
    factor = _vector("factor", factor, tf.float32, images)
    if images.shape[3] == 1:
        return images
    if images.shape[3] != 3:
        raise ValueError(
            f"images: expected 1 or 3 channels, got {images.shape[3]}."
        )
    turn = tf.cast(factor * 255.0, tf.int32)[:, None, None]
    hue, saturation, value = _to_hsv(tf.cast(images, tf.int32))
    return _from_hsv((hue + turn) % 256, saturation, value)


def _to_hsv(images):
    """Pillow's hue, saturation and value `[N, H, W]` int32, of RGB int32.

    The types of the intermediate results are those of Pillow, because the last
    step rounds down.
    """
    high = tf.reduce_max(images, axis=3)
    span = high - tf.reduce_min(images, axis=3)
    is_gray = span == 0
    divisor = tf.cast(tf.maximum(span, 1), tf.float32)
    below = tf.cast(high[..., None] - images, tf.float32) / divisor[..., None]
    red, green, blue = tf.unstack(tf.cast(below, tf.float64), axis=3)
    sector = tf.where(
        images[..., 0] == high,
        blue - green,
        tf.where(
            images[..., 1] == high,
            2.0 + red - blue,
            4.0 + green - red,
        ),
    )
    sector = tf.cast(tf.cast(sector, tf.float32), tf.float64)
    hue = (sector / 6.0 + 1.0) % 1.0
    saturation = tf.cast(span, tf.float32) / tf.cast(
        tf.maximum(high, 1), tf.float32
    )

    def byte(share):
        share = tf.cast(tf.cast(share, tf.float32), tf.float64)
        return tf.where(is_gray, 0, tf.cast(share * 255.0, tf.int32))

    return byte(hue), byte(saturation), high


def _from_hsv(hue, saturation, value):
    """RGB `[N, H, W, 3]` uint8 of Pillow's HSV, three `[N, H, W]` int32."""
    position = tf.cast(hue, tf.float64) * 6.0 / 255.0
    sector = tf.floor(position)
    part = tf.cast(position - sector, tf.float32)
    share = tf.cast(tf.cast(saturation, tf.float64) / 255.0, tf.float32)
    light = tf.cast(value, tf.float64)

    def times(factor):
        """value * (1 - factor); positive, and halves are rounded up."""
        kept = 1.0 - tf.cast(factor, tf.float64)
        return tf.cast(tf.floor(light * kept + 0.5), tf.int32)

    low = times(share)
    falling = times(share * part)
    rising = times(
        tf.cast(share, tf.float64) * (1.0 - tf.cast(part, tf.float64))
    )
    choices = {
        0: (value, rising, low),
        1: (falling, value, low),
        2: (low, value, rising),
        3: (low, falling, value),
        4: (rising, low, value),
        5: (value, low, falling),
    }
    sector = tf.cast(sector, tf.int32) % 6
    result = tf.zeros([*tf.unstack(tf.shape(hue)), 3], tf.int32)
    for number, channels in choices.items():
        chosen = tf.cast(sector == number, tf.int32)[..., None]
        result += chosen * tf.stack(channels, axis=3)
    return tf.ensure_shape(tf.cast(result, tf.uint8), [*hue.shape, 3])


def gray_copy(images):
    """The luminance in every channel, as Pillow's `convert("L")`.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 (nothing changes) or 3.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes, types or numbers of channels.
    """
    images = _images(images)
    luminance = tf.cast(gray(images), tf.uint8)
    return tf.tile(luminance, [1, 1, 1, images.shape[3]])


def gaussian_blur(images, sigma, radius):
    """Blurs with a Gaussian kernel, as torchvision's `gaussian_blur`.

    The kernel is cut off at `radius` and normalized; borders are reflected.
    Computed in float32, rows after columns, and rounded to the nearest integer.
    Pillow's `GaussianBlur` is another function: a sequence of box filters.

    Args:
        images: `[N, H, W, C]` uint8.
        sigma: `[N]` float > 0, in pixels.
        radius: int, smaller than H and W; 0 changes nothing.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types, or a radius that is too large.
    """
    images = _images(images)
    sigma = _vector("sigma", sigma, tf.float32, images)
    if not 0 <= radius < min(images.shape[1:3]):
        raise ValueError(
            f"radius: expected 0 ... {min(images.shape[1:3]) - 1} for images "
            f"{images.shape}, got {radius}."
        )
    if not radius:
        return images
    offset = tf.range(-radius, radius + 1, dtype=tf.float32)
    weight = tf.exp(-0.5 * tf.square(offset / sigma[:, None]))
    weight /= tf.reduce_sum(weight, axis=1, keepdims=True)
    values = tf.cast(images, tf.float32)
    for axis in (1, 2):
        size = images.shape[axis]
        # Not tf.pad, which reflects no empty batch.
        place = _reflect(tf.range(-radius, size + radius), size)
        padded = tf.gather(values, place, axis=axis)
        values = 0.0
        for tap in range(2 * radius + 1):
            part = padded[:, tap : tap + size]
            if axis == 2:
                part = padded[:, :, tap : tap + size]
            values += weight[:, tap, None, None, None] * part
    return tf.cast(tf.round(values), tf.uint8)


def _smooth(images):
    """Blurs with [[1 1 1] [1 5 1] [1 1 1]] / 13, border kept, rounded down.

    The taps are added one by one in float32, row by row: where the exact sum is
    an integer the rounded one may lie below it, and this order makes the same
    choice as `tfa.image.sharpness` on every machine.
    """
    _, height, width, _ = images.shape
    values = tf.cast(images, tf.float32)
    total = 0.0
    for y in range(3):
        for x in range(3):
            tap = values[:, y : height - 2 + y, x : width - 2 + x]
            total += tap * tf.constant(5.0 / 13 if x == y == 1 else 1.0 / 13)
    middle = tf.cast(total, tf.uint8)
    rows = [images[:, 1:-1, :1], middle, images[:, 1:-1, -1:]]
    return tf.concat(
        [images[:, :1], tf.concat(rows, axis=2), images[:, -1:]], axis=1
    )


def sharpness(images, factor):
    """Blends with a blurred copy, as `tfa.image.sharpness`.

    The outermost pixels keep their values. As in tensorflow-addons the blurred
    values are rounded down and the blend to the nearest integer; Pillow's
    `ImageEnhance.Sharpness` does the opposite, so that the two differ by up to
    1.5 + |1 - factor| gray levels.

    Args:
        images: `[N, H, W, C]` uint8.
        factor: `[N]` float; 1 changes nothing, 0 is the blurred image.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    images = _images(images)
    _vector("factor", factor, tf.float32, images)
    if min(images.shape[1:3]) < 3:
        return images
    return blend(_smooth(images), images, factor)


def _filtered(images, kernel):
    """Convolves with whole numbers, divided by their sum and rounded.

    Border pixels that the kernel does not fit on keep their values. In
    integers, so that no order of summation matters.
    """
    _, height, width, _ = images.shape
    side, divisor = len(kernel), sum(map(sum, kernel))
    border = side // 2
    if min(height, width) < side:
        return images
    values = tf.cast(images, tf.int32)
    total = divisor // 2
    for y, row in enumerate(kernel):
        for x, factor in enumerate(row):
            if factor:
                total += (
                    factor
                    * (
                        values[
                            :,
                            y : y + height - 2 * border,
                            x : x + width - 2 * border,
                        ]
                    )
                )
    middle = tf.cast(total // divisor, tf.uint8)
    rows = slice(border, height - border)
    inner = tf.concat(
        [images[:, rows, :border], middle, images[:, rows, width - border :]],
        axis=2,
    )
    return tf.concat(
        [images[:, :border], inner, images[:, height - border :]], axis=1
    )


def smoothed(images):
    """Pillow's filter SMOOTH: 3 x 3, the center five times.

    Args:
        images: `[N, H, W, C]` uint8.

    Returns:
        `[N, H, W, C]` uint8; images smaller than the kernel are not changed.
    """
    return _filtered(_images(images), [[1, 1, 1], [1, 5, 1], [1, 1, 1]])


def blurred(images):
    """Pillow's filter BLUR: the outermost ring of 5 x 5.

    Args:
        images: `[N, H, W, C]` uint8.

    Returns:
        `[N, H, W, C]` uint8; images smaller than the kernel are not changed.
    """
    full, ends = [1, 1, 1, 1, 1], [1, 0, 0, 0, 1]
    return _filtered(_images(images), [full, ends, ends, ends, full])


def _sinc(x):
    x = np.pi * x
    return tf.where(
        x == 0,
        tf.ones_like(x),
        tf.sin(x) / tf.where(x == 0, tf.ones_like(x), x),
    )


def _cubic(x):
    x = tf.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return tf.where(x < 1, near, far)


# Resampling filter -> half its width in pixels, and the filter.
RESAMPLING = {
    "lanczos": (3.0, lambda x: _sinc(x) * _sinc(x / 3.0)),
    "bicubic": (2.0, _cubic),
    "bilinear": (1.0, lambda x: 1.0 - tf.abs(x)),
    "box": (0.5, tf.ones_like),
    "hamming": (
        1.0,
        lambda x: _sinc(x) * (0.54 + 0.46 * tf.cos(np.pi * x)),
    ),
    "nearest": (0.5, tf.ones_like),
}


def _enlarging_weights(size, first, last, method):
    """`[N, size, size]`: what each pixel of a window gives to the result."""
    support, kernel = RESAMPLING[method]
    first = tf.cast(first, tf.float64)[:, None, None]
    last = tf.cast(last, tf.float64)[:, None, None]
    position = tf.range(size, dtype=tf.float64)
    center = first + (position[:, None] + 0.5) * (last - first) / size
    # Which pixels count is decided by whole numbers, as in Pillow: a center
    # between two pixels belongs to one of them.
    low = tf.maximum(tf.floor(center - support + 0.5), first)
    high = tf.minimum(tf.floor(center + support + 0.5), last)
    weights = tf.where(
        (position >= low) & (position < high),
        kernel(position + 0.5 - center),
        0.0,
    )
    weights = tf.cast(weights, tf.float32)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def enlarge_center(images, margin, method):
    """Cuts a margin off each image and resizes the rest to the old size.

    As Pillow's `crop` and `resize`, columns first, but with exact weights where
    Pillow has 22 bits: some pixels differ by 1. Of two equally near pixels
    `nearest` takes the right or lower one; in Pillow it depends on rounding.

    Args:
        images: `[N, H, W, C]` uint8.
        margin: `[N]` float, what to cut off each side as a fraction of it, 0
            to 0.25; the window is rounded to whole pixels.
        method: a key of `RESAMPLING`.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types or an unknown method.
    """
    images = _images(images)
    margin = _vector("margin", margin, tf.float32, images)
    _choice("method", method, tuple(RESAMPLING))
    values = tf.cast(images, tf.float32)
    for axis, equation in ((2, "nhjc,nwj->nhwc"), (1, "njwc,nhj->nhwc")):
        size = images.shape[axis]
        weights = _enlarging_weights(
            size,
            tf.round(margin * size),
            tf.round((1.0 - margin) * size),
            method,
        )
        values = tf.einsum(equation, values, weights)
        values = tf.floor(tf.clip_by_value(values, 0.0, 255.0) + 0.5)
    return tf.cast(values, tf.uint8)


def center_crop(images, height, width):
    """Cuts `[N, height, width, C]` out of the middle of `[N, H, W, C]`."""
    top = (images.shape[1] - height) // 2
    left = (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def _inside(size, center, half_width):
    """Masks `[N, size]` uint8: 255 in [center - half, center + half)."""
    position = tf.range(size)
    start, stop = center - half_width, center + half_width
    inside = (position >= start[:, None]) & (position < stop[:, None])
    return tf.cast(inside, tf.uint8) * 255


def cutout(images, center_y, center_x, half_width, fill_value=0):
    """Covers a square of side 2 * half_width in each image.

    The square reaches from `center - half_width` to `center + half_width - 1`
    and is clipped at the border, as `tfa.image.cutout` does.

    Source: DeVries and Taylor, arXiv 1708.04552.

    Args:
        images: `[N, H, W, C]` uint8.
        center_y: `[N]` int.
        center_x: `[N]` int.
        half_width: `[N]` int; 0 changes nothing.
        fill_value: int in 0 ... 255.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    images = _images(images)
    _, height, width, channels = images.shape
    center_y = _vector("center_y", center_y, tf.int32, images)
    center_x = _vector("center_x", center_x, tf.int32, images)
    half_width = _vector("half_width", half_width, tf.int32, images)
    _byte("fill_value", fill_value)
    rows = _inside(height, center_y, half_width)[:, :, None]
    columns = _inside(width, center_x, half_width)
    columns = tf.repeat(columns, channels, axis=1)[:, None]
    covered = tf.reshape(rows & columns, tf.shape(images))
    # images where not covered, fill_value where covered.
    fill = tf.constant(fill_value, tf.uint8)
    return images ^ ((images ^ fill) & covered)


def flip_horizontal(images, flip):
    """Mirrors the chosen images left to right.

    Args:
        images: `[N, H, W, C]` uint8.
        flip: `[N]` bool.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    images = _images(images)
    flip = tf.convert_to_tensor(flip)
    if flip.dtype != tf.bool:
        raise ValueError(f"flip: expected bool [N], got {flip.dtype.name}.")
    flip = _vector("flip", flip, tf.bool, images)
    rows = tf.where(flip)
    mirrored = tf.reverse(tf.gather(images, rows[:, 0]), axis=[2])
    return tf.tensor_scatter_nd_update(images, rows, mirrored)


def _reflect(position, size):
    """Maps positions outside 0 ... size - 1 to those of their mirror images."""
    last = size - 1
    return last - tf.abs(last - tf.abs(position))


def pad_and_crop(
    images, offset_y, offset_x, padding, mode="reflect", constant_value=0
):
    """Pads all sides and cuts a window of the old size from each image.

    Args:
        images: `[N, H, W, C]` uint8.
        offset_y: `[N]` int in 0 ... 2 * padding, the window's first row;
            `padding` is the unmoved image.
        offset_x: `[N]` int, likewise.
        padding: int, pixels added to every side.
        mode: `reflect` (about the outermost pixel, which is not repeated) or
            `constant`.
        constant_value: int in 0 ... 255 for the mode `constant`.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types, an unknown mode, or a reflected
            padding that is not smaller than the image.
    """
    images = _images(images)
    _, height, width, _ = images.shape
    offset_y = _vector("offset_y", offset_y, tf.int32, images)
    offset_x = _vector("offset_x", offset_x, tf.int32, images)
    _choice("mode", mode, PAD_MODES)
    _byte("constant_value", constant_value)
    limit = min(height, width) - 1 if mode == "reflect" else padding
    if not 0 <= padding <= limit:
        raise ValueError(
            f"padding: expected 0 ... {limit} for images {images.shape} and "
            f"mode {mode!r}, got {padding}."
        )
    rows = offset_y[:, None] + tf.range(height)
    columns = offset_x[:, None] + tf.range(width)
    if mode == "reflect":
        # The padded rows are looked up, not made: tf.pad reflects slowly.
        rows = _reflect(rows - padding, height)
        columns = _reflect(columns - padding, width)
    else:
        sides = [[0, 0], [padding, padding], [padding, padding], [0, 0]]
        images = tf.pad(images, sides, constant_values=constant_value)
    window = tf.gather(images, rows, batch_dims=1)
    return tf.gather(window, columns, axis=2, batch_dims=1)
