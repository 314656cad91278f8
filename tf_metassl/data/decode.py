"""Decodes image files, and says why one cannot be decoded."""

import contextlib
import functools
import io
import threading

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

# MPO, written by some cameras, is a JPEG followed by further JPEGs.
FORMATS = (
    *("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF"),
    # Where Pillow has a decoder, see `_open`.
    *("AVIF", "HEIF"),
)
# The brand of a file in the container of ISO/IEC 14496-12 -> its format, and
# what decodes it.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), ("AVIF", "Pillow 11.3 or later")),
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"),
        ("HEIC", "the package pillow-heif"),
    ),
}
# The largest value of images with 16 bits.
FULL_RANGE = 65_535
_BITS_PER_SAMPLE = 258  # A tag of TIFF.
# Memory per pixel, relative to the other formats' 4 bytes: measured, 16 bytes.
# The last two are taken to need as much as WebP.
_WEIGHTS = {"WEBP": 4, "AVIF": 4, "HEIF": 4}


class BadImageError(ValueError):
    """The file cannot be used as an image; the message says why."""


@contextlib.contextmanager
def limits_of_our_own():
    """Switches off Pillow's limit on pixels, whose message names an attack.

    Call it around threads that decode, not in them: the limit is global.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


class Budget:
    """Bounds the pixels that all threads decode at the same time.

    Pixels of formats whose decoders need more memory count several times.

    Args:
        pixels: the bound. A single larger image is decoded alone.
    """

    def __init__(self, pixels):
        self._free = self._all = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def spent(self, pixels):
        """Waits until so many pixels are free, and holds them in the block."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


def decode(
    data,
    image_size=0,
    channels=3,
    *,
    max_pixels=None,
    resize="shorter_side",
    max_value=FULL_RANGE,
    budget=None,
):
    """Decodes an image file: JPEG, PNG, BMP, GIF (first frame), WebP or TIFF.

    HEIC files are decoded if the package pillow-heif is installed, AVIF files
    by Pillow 11.3 and later.

    The image is turned upright by its EXIF orientation. Transparency is
    dropped, as TensorFlow's decoders do.

    Args:
        data: bytes of the file.
        image_size: height and width of the result. 0 = the image's own size.
        channels: 3 = color, 1 = gray.
        max_pixels: larger images are refused before they are decoded, but for
            JPEGs that can be decoded at a fraction of their size; None: no
            limit.
        resize: see `fit`.
        max_value: the value of images with 16 bits that becomes 255; 0 = the
            largest one of each image.
        budget: a `Budget` that all threads share, or None.

    Returns:
        `[H, W, channels]` uint8.

    Raises:
        BadImageError: if the file is not a complete image of a known format,
            or is smaller than `image_size`: its longer side with `letterbox`,
            else its shorter side.
    """
    if not data:
        raise BadImageError("zero bytes")
    try:
        image = _open(data)
    except UnidentifiedImageError as error:
        if _brand(data) in _BRANDS:
            kind, decoder = _BRANDS[_brand(data)]
            raise BadImageError(
                f"{kind} file, which cannot be decoded here: install "
                f"{decoder}; or the file is broken"
            ) from error
        raise BadImageError("not an image") from error
    except Exception as error:  # A broken header can raise anything.
        raise BadImageError(f"broken: {error}") from error
    if image.format not in FORMATS:
        raise BadImageError(
            f"{image.format} file; JPEG, PNG, BMP, GIF, WebP and TIFF are "
            "supported"
        )
    if image.mode == "F":
        raise BadImageError("pixels are floats; integers are supported")
    whole = image.size
    if max_pixels and _pixels(image) > max_pixels and image_size:
        # Only JPEGs have this; others are unchanged.
        image.draft(image.mode, (2 * image_size, 2 * image_size))
    if max_pixels and _pixels(image) > max_pixels:
        raise BadImageError(
            f"too large: {whole[1]}x{whole[0]} are {whole[0] * whole[1]:,} "
            f"pixels, more than --max_image_pixels={max_pixels}"
        )
    budget = budget or Budget(_pixels(image))
    with budget.spent(_pixels(image) * _WEIGHTS.get(image.format, 1)):
        if max_value != FULL_RANGE and channels == 3 and _is_deep_color(image):
            image = _deep_color(image, data, max_value)
        return _pixels_of(image, image_size, channels, resize, max_value)


def _open(data):
    """Opens an image with Pillow, and with the decoder for HEIC if need be."""
    if _brand(data) in _BRANDS:
        _register_heif()
    return Image.open(io.BytesIO(data))


def optional_formats():
    """The formats that not every installation decodes and this one does."""
    _register_heif()
    found = {"AVIF": features.check("avif"), "HEIF": "HEIF" in Image.OPEN}
    return [name for name, known in found.items() if known]


def _brand(data):
    """The brand of a file, such as `heic`; empty for other containers."""
    return data[8:12] if data[4:8] == b"ftyp" else b""


@functools.cache
def _register_heif():
    """Makes Pillow open HEIC files, if pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _pixels(image):
    return image.width * image.height


def _pixels_of(image, image_size, channels, resize, max_value):
    """The second half of `decode`, which takes the memory."""
    try:
        image.load()
    except Exception as error:  # Decoders raise many kinds, even SyntaxError.
        truncated = "truncated" in str(error) or isinstance(error, EOFError)
        kind = "truncated" if truncated else "broken"
        raise BadImageError(f"{kind}: {error}") from error
    # A picture with a damaged EXIF block is still a picture.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    image = _eight_bits(image, max_value)
    mode = "RGB" if channels == 3 else "L"
    if image.mode != mode:  # It would copy the image.
        image = image.convert(mode)
    side = max(image.size) if resize == "letterbox" else min(image.size)
    if side < image_size:
        raise BadImageError(
            f"smaller than {image_size} pixels: {image.height}x{image.width}"
        )
    if image_size and image.size != (image_size, image_size):
        image = fit(image, image_size, resize)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _is_deep_color(image):
    """Whether a color image has 16 bits, of which Pillow keeps the upper 8."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    if image.format == "PNG":
        return any("16B" in str(tile[3]) for tile in image.tile)
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return max(np.ravel(bits)) > 8


def _deep_color(image, data, max_value):
    """The 8-bit image of a color image with 16 bits, scaled by `max_value`."""
    if image.format != "PNG":
        raise BadImageError(
            f"{image.format} with 16 bits per color, which --max_value cannot "
            "scale; PNG is supported"
        )
    # A file that is decoded by Pillow needs no TensorFlow.
    import tensorflow as tf

    try:
        values = tf.io.decode_png(data, channels=3, dtype=tf.uint16).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise BadImageError(f"broken: {error.message}") from error
    result = Image.fromarray(_scaled(values, max_value))
    result.getexif().update(image.getexif())
    return result


def _scaled(values, max_value):
    """Integers, of which `max_value` or the largest one becomes 255, uint8."""
    top = max_value or max(int(values.max()), 1)
    scaled = np.clip(values, 0, top).astype(np.float32)
    scaled *= 255 / top
    return np.rint(scaled, out=scaled).astype(np.uint8)


def fit(image, side, resize="shorter_side"):
    """Makes a square of an image, with antialiased bilinear resizing.

    The columns are resized before the rows: which come first depends on
    Pillow's version, and results differ by a level, because they are rounded in
    between.

    Args:
        image: a `PIL.Image`, not smaller than the result.
        side: height and width of the result.
        resize: `shorter_side`: it is resized and the center is cut out, as
            `PIL.ImageOps.fit` does; `letterbox`: the longer side is resized
            and the rest is black, on both sides of the image; `squash`: both
            sides are resized.
    """
    width, height = image.size
    cut_x, cut_y, out_x, out_y = width, height, side, side
    if resize == "shorter_side":
        cut_x = cut_y = min(image.size)
    elif resize == "letterbox":
        longer = max(image.size)
        out_x, out_y = (
            max((2 * length * side + longer) // (2 * longer), 1)
            for length in image.size
        )
    left, top = (width - cut_x) / 2, (height - cut_y) / 2
    image = image.resize(
        (out_x, height),
        Image.Resampling.BILINEAR,
        box=(left, 0, left + cut_x, height),
    )
    image = image.resize(
        (out_x, out_y),
        Image.Resampling.BILINEAR,
        box=(0, top, out_x, top + cut_y),
    )
    if image.size == (side, side):
        return image
    whole = Image.new(image.mode, (side, side))
    whole.paste(image, ((side - out_x) // 2, (side - out_y) // 2))
    return whole


def _eight_bits(image, max_value):
    """Scales 16-bit gray values to 8 bits; Pillow's conversion clips them."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if max_value == FULL_RANGE:
        # In place, because such images are large; 32 bits hold 16 here.
        values = np.clip(values, 0, FULL_RANGE)
        values >>= 8
        return Image.fromarray(values.astype(np.uint8))
    return Image.fromarray(_scaled(values, max_value))
