"""Decodes image files inside a TensorFlow graph, as `decode` does in Python.

An exported network takes encoded images where neither Pillow nor this package
is installed. JPEG, PNG, GIF (first frame), BMP and WebP files give the pixels
of `tf_metassl.data.decode`, which training uses: TensorFlow has the same
decoders, and what follows them, the orientation, gray levels and resizing, is
done here with the integer arithmetic of Pillow. TensorFlow has no decoder for
TIFF, nor for BMP files with a palette.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

from tf_metassl.data.pictures import Decoding

# Pillow's resampling has weights of this many bits.
_PRECISION_BITS = 22
_ORIENTATION = 0x0112  # A tag of EXIF.


def decode_batch(encoded: tf.Tensor, decoding: Decoding) -> tf.Tensor:
    """Decodes files into inputs of a network.

    Args:
        encoded: `[N]` strings, the bytes of the files.
        decoding: a `Decoding`.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        tf.errors.InvalidArgumentError: when it is run, if one is no image of
            these formats, or is too small.
    """
    height, width, channels = decoding.image_shape
    images = tf.map_fn(
        lambda data: decode(data, decoding),
        encoded,
        fn_output_signature=tf.TensorSpec([None, None, channels], tf.uint8),
    )
    return tf.ensure_shape(images, [None, height, width, channels])


@functools.cache
def decoder(decoding: Decoding) -> Callable[[tf.Tensor], tf.Tensor]:
    """`decode_batch` as a `tf.function` of its first argument.

    Its graph has over a thousand nodes and is traced once.
    """
    return tf.function(
        functools.partial(decode_batch, decoding=decoding),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )


def decode(data: tf.Tensor, decoding: Decoding) -> tf.Tensor:
    """Decodes one file, see `decode_batch`.

    Args:
        data: a string scalar.
        decoding: a `Decoding`.

    Returns:
        `[H, W, C]` uint8.
    """
    height, width, channels = decoding.image_shape
    image = _decode_colors(data, decoding.max_value)
    image = _upright(image, _orientation(data))
    if channels == 1:
        image = gray(image)
    side = decoding.stored_size
    if side:
        letterbox = decoding.resize == "letterbox"
        reduce = tf.reduce_max if letterbox else tf.reduce_min
        smallest = reduce(tf.shape(image)[:2])
        message = f"The image is smaller than {side} pixels."
        with tf.control_dependencies(
            [tf.debugging.assert_greater_equal(smallest, side, message)]
        ):
            image = fit(image, side, decoding.resize)
        top, left = (side - height) // 2, (side - width) // 2
        image = image[top : top + height, left : left + width]
    tf.debugging.assert_equal(
        tf.shape(image),
        [height, width, channels],
        f"The network takes images of {height}x{width} pixels.",
    )
    return image


def _decode_colors(data: tf.Tensor, max_value: int) -> tf.Tensor:
    """The pixels of a file in three channels, `[H, W, 3]` uint8."""

    def starts_with(prefix: bytes, position: int = 0) -> tf.Tensor:
        return tf.strings.substr(data, position, len(prefix)) == prefix

    def png() -> tf.Tensor:
        # The depth in bits is the 25th byte.
        if max_value == 0xFFFF:
            return tf.io.decode_png(data, channels=3)
        return tf.cond(
            starts_with(b"\x10", 24),
            lambda: _scaled(
                tf.io.decode_png(data, channels=3, dtype=tf.uint16), max_value
            ),
            lambda: tf.io.decode_png(data, channels=3),
        )

    kinds = (
        (
            starts_with(b"\xff\xd8\xff"),
            lambda: tf.io.decode_jpeg(
                data, channels=3, dct_method="INTEGER_ACCURATE"
            ),
        ),
        (starts_with(b"\x89PNG"), png),
        (starts_with(b"GIF8"), lambda: tf.io.decode_gif(data)[0]),
        (starts_with(b"WEBP", 8), lambda: _webp(data)),
    )
    image = tf.case(
        kinds,
        default=lambda: tf.io.decode_image(
            data, channels=3, expand_animations=False
        ),
        exclusive=True,
    )
    return tf.ensure_shape(image, [None, None, 3])


def _webp(data: tf.Tensor) -> tf.Tensor:
    """The first frame; transparency is dropped."""
    frames = tf.raw_ops.DecodeWebP(contents=data, channels=0)
    return frames[0, ..., :3]


def _scaled(values: tf.Tensor, max_value: int) -> tf.Tensor:
    """uint16 values, of which `max_value` or the largest becomes 255."""
    values = tf.cast(values, tf.int32)
    top = max_value or tf.maximum(tf.reduce_max(values), 1)
    scaled = tf.cast(tf.minimum(values, top), tf.float32)
    scaled *= tf.cast(255 / top, tf.float32)
    return tf.cast(tf.round(scaled), tf.uint8)


def gray(image: tf.Tensor) -> tf.Tensor:
    """Pillow's gray levels of colors.

    Args:
        image: `[H, W, 3]` uint8.

    Returns:
        `[H, W, 1]` uint8.
    """
    weights = tf.constant([19595, 38470, 7471])
    total = tf.reduce_sum(
        tf.cast(image, tf.int32) * weights, axis=-1, keepdims=True
    )
    shifted = tf.bitwise.right_shift(total + 0x8000, 16)
    return tf.cast(shifted, tf.uint8)


def fit(image: tf.Tensor, side: int, resize: str = "shorter_side") -> tf.Tensor:
    """Makes a square of an image, as `decode.fit`.

    Args:
        image: `[H, W, C]` uint8, not smaller than the result.
        side: height and width of the result.
        resize: as there.

    Returns:
        `[side, side, C]` uint8.
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    shorter, longer = tf.minimum(height, width), tf.maximum(height, width)

    def resampled(
        image: tf.Tensor, length: tf.Tensor, out: tf.Tensor
    ) -> tf.Tensor:
        """The second axis of `[A, length, C]`, resampled to `out`."""
        cut = shorter if resize == "shorter_side" else length
        weights = _weights(length, cut, out)
        values = tf.einsum("xw,awc->axc", weights, tf.cast(image, tf.float64))
        # All values are whole numbers, which 64 bits hold exactly.
        rounded = tf.floor((values + 2.0 ** (_PRECISION_BITS - 1)) / _ONE)
        return tf.cast(tf.clip_by_value(rounded, 0.0, 255.0), tf.uint8)

    def turned(image: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Resamples the second axis, and exchanges it with the first one."""
        out = tf.constant(side)
        if resize == "letterbox":
            out = tf.maximum((2 * length * side + longer) // (2 * longer), 1)
        image = tf.cond(
            tf.equal(length, out),
            lambda: image,
            lambda: resampled(image, length, out),
        )
        if resize == "letterbox":
            before = (side - out) // 2
            after = side - out - before
            image = tf.pad(image, [[0, 0], [before, after], [0, 0]])
        return _swapped(image)

    result = turned(turned(image, width), height)
    return tf.ensure_shape(result, [side, side, image.shape[-1]])


_ONE = float(2**_PRECISION_BITS)


def _weights(length: tf.Tensor, cut: tf.Tensor, out: tf.Tensor) -> tf.Tensor:
    """Pillow's bilinear weights with antialiasing, in units of 2**-22.

    Source: `precompute_coeffs` and `normalize_coeffs_8bpc` of Resample.c.

    Args:
        length: of the axis, int32.
        cut: pixels in its middle that are used, int32.
        out: pixels that come out, int32.

    Returns:
        `[out, length]` float64, whole numbers.
    """
    size, used = tf.cast(length, tf.float64), tf.cast(cut, tf.float64)
    first = (size - used) / 2.0
    scale = used / tf.cast(out, tf.float64)
    support = tf.maximum(scale, 1.0)
    position = tf.cast(tf.range(out), tf.float64)
    center = (first + (position + 0.5) * scale)[:, tf.newaxis]
    # Casts to int truncate in C.
    begin = tf.maximum(tf.floor(center - support + 0.5), 0.0)
    end = tf.minimum(tf.floor(center + support + 0.5), size)
    position = tf.range(size, dtype=tf.float64)[tf.newaxis]
    distance = tf.abs(position - center + 0.5) / support
    weights = tf.maximum(1.0 - distance, 0.0)
    inside = tf.logical_and(position >= begin, position < end)
    weights *= tf.cast(inside, tf.float64)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.floor(weights * _ONE + 0.5)


def _swapped(image: tf.Tensor) -> tf.Tensor:
    """Rows as columns; `[H, W, C]` uint8."""
    # Not tf.transpose, where TensorFlow prints an error if oneDNN has no kernel
    # for integers; nor of floats, because it would move the casts.
    height, width = tf.unstack(tf.shape(image)[:2])
    pixels = tf.range(width)[:, tf.newaxis] + width * tf.range(height)
    return tf.gather(tf.reshape(image, [-1, image.shape[-1]]), pixels)


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image by its EXIF orientation, 1 to 8; others change nothing."""
    flips = (
        lambda x: x,
        lambda x: x[:, ::-1],
        lambda x: x[::-1, ::-1],
        lambda x: x[::-1],
        _swapped,
        lambda x: _swapped(x[::-1]),
        lambda x: _swapped(x[::-1, ::-1]),
        lambda x: _swapped(x[:, ::-1]),
    )
    branches = [lambda flip=flip: flip(image) for flip in flips]
    known = tf.logical_and(orientation >= 1, orientation <= 8)
    index = tf.where(known, orientation - 1, 0)
    turned = tf.switch_case(index, branches)
    return tf.ensure_shape(turned, [None, None, 3])


def _orientation(data: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, PNG or WebP file; 1 if it has none."""
    values = tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32)
    # Reads beyond the end, as in a broken file, see zeros.
    values = tf.concat([values, tf.zeros([16], tf.int32)], axis=0)
    last = tf.shape(values)[0] - 16

    def at(position: tf.Tensor, count: int) -> tf.Tensor:
        start = tf.clip_by_value(position, 0, last)
        return values[start : start + count]

    def number(position: tf.Tensor, count: int, big: tf.Tensor) -> tf.Tensor:
        digits = at(position, count)
        digits = tf.cond(big, lambda: digits, lambda: digits[::-1])
        result = tf.constant(0)
        for i in range(count):
            result = result * 256 + digits[i]
        return result

    def equal(position: tf.Tensor, text: bytes) -> tf.Tensor:
        return tf.reduce_all(at(position, len(text)) == list(text))

    yes, no = tf.constant(True), tf.constant(False)
    is_jpeg, is_png = equal(0, b"\xff\xd8\xff"), equal(0, b"\x89PNG")
    is_webp = equal(8, b"WEBP")

    def part(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where EXIF data begin in the part here, or -1, and the next part."""

        def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
            here = tf.logical_and(
                equal(position, b"\xff\xe1"),
                equal(position + 4, b"Exif\x00\x00"),
            )
            length = number(position + 2, 2, yes)
            # The picture follows the marker DA.
            ended = tf.logical_or(
                equal(position, b"\xff\xda"), at(position, 1)[0] != 0xFF
            )
            following = tf.where(ended, last, position + 2 + length)
            return tf.where(here, position + 10, -1), following

        def png() -> tuple[tf.Tensor, tf.Tensor]:
            here = equal(position + 4, b"eXIf")
            length = number(position, 4, yes)
            return tf.where(here, position + 8, -1), position + 12 + length

        def webp() -> tuple[tf.Tensor, tf.Tensor]:
            here = equal(position, b"EXIF")
            length = number(position + 4, 4, no)
            start = tf.where(
                equal(position + 8, b"Exif\x00\x00"),
                position + 14,
                position + 8,
            )
            # Parts have an even length.
            following = position + 8 + length + length % 2
            return tf.where(here, start, -1), following

        return tf.cond(is_jpeg, jpeg, lambda: tf.cond(is_png, png, webp))

    def search(
        position: tf.Tensor, found: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del found
        found, following = part(position)
        # A broken length must not lead backwards.
        return tf.maximum(following, position + 1), found

    first = tf.where(is_jpeg, 2, tf.where(is_png, 8, 12))
    any_kind = tf.logical_or(tf.logical_or(is_jpeg, is_png), is_webp)
    _, start = tf.while_loop(
        lambda position, found: tf.logical_and(
            any_kind, tf.logical_and(found < 0, position < last)
        ),
        search,
        [first, tf.constant(-1)],
    )

    def of_exif() -> tf.Tensor:
        big = equal(start, b"MM")
        table = start + number(start + 4, 4, big)
        count = tf.minimum(number(table, 2, big), 1000)

        def entry(index: tf.Tensor, value: tf.Tensor) -> tuple:
            place = table + 2 + 12 * index
            is_it = number(place, 2, big) == _ORIENTATION
            return index + 1, tf.where(is_it, number(place + 8, 2, big), value)

        _, value = tf.while_loop(
            lambda index, value: tf.logical_and(index < count, value < 0),
            entry,
            [tf.constant(0), tf.constant(-1)],
        )
        return value

    return tf.cond(start >= 0, of_exif, lambda: tf.constant(1))
