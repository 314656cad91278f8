"""Decodes image files, and says why one cannot be decoded."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# MPO, written by some cameras, is a JPEG followed by further JPEGs.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP")


class BadImageError(ValueError):
    """The file cannot be used as an image; the message says why."""


def decode(data, image_size=0, channels=3):
    """Decodes one image file: JPEG, PNG, BMP, GIF (first frame) or WebP.

    The image is turned upright by its EXIF orientation. Transparency is
    dropped, as TensorFlow's decoders do.

    Args:
        data: bytes of the file.
        image_size: height and width of the result: the shorter side is resized
            to it and the center is cut out. 0 = the image's own size.
        channels: 3 = color, 1 = gray.

    Returns:
        `[H, W, channels]` uint8.

    Raises:
        BadImageError: if the file is not a complete image of a known format,
            or its shorter side is less than `image_size`.
    """
    if not data:
        raise BadImageError("zero bytes")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise BadImageError("not an image") from error
    except Exception as error:  # A broken header can raise anything.
        raise BadImageError(f"broken: {error}") from error
    if image.format not in FORMATS:
        raise BadImageError(
            f"{image.format} file; JPEG, PNG, BMP, GIF and WebP are supported"
        )
    try:
        image.load()
    except Exception as error:  # Decoders raise many kinds, even SyntaxError.
        truncated = "truncated" in str(error) or isinstance(error, EOFError)
        kind = "truncated" if truncated else "broken"
        raise BadImageError(f"{kind}: {error}") from error
    # A picture with a damaged EXIF block is still a picture.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    image = _eight_bits(image).convert("RGB" if channels == 3 else "L")
    if min(image.size) < image_size:
        raise BadImageError(
            f"smaller than {image_size} pixels: {image.height}x{image.width}"
        )
    if image_size and image.size != (image_size, image_size):
        image = ImageOps.fit(
            image, (image_size, image_size), Image.Resampling.BILINEAR
        )
    return np.asarray(image).reshape(image.height, image.width, channels)


def _eight_bits(image):
    """Scales 16-bit gray values to 8 bits; Pillow's conversion clips them."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return image
