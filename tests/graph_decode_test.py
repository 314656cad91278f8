"""What a graph decodes is what training decodes."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.helpers import mostly_exhaustive
from tests.image_folders import encoded, picture
from tf_metassl.data import graph_decode
from tf_metassl.data.decode import decode, fit
from tf_metassl.data.options import RESIZES
from tf_metassl.data.pictures import Decoding


def in_graph(data, decoding):
    return graph_decode.decoder(decoding)(tf.constant([data])).numpy()[0]


def noisy(seed, height, width, channels=3):
    """A picture with detail, so that wrong weights would show."""
    rng = np.random.default_rng(seed)
    smooth = picture(seed, height, width, channels).astype(int)
    noise = rng.integers(-40, 41, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "size", ((37, 53), (53, 37), (20, 20), (20, 31), (24, 18), (30, 20))
)
@pytest.mark.parametrize("side", (16, 20))
def test_fit_is_that_of_pillow(size, side):
    side = min(side, *size)
    image = noisy(1, *size)
    expected = np.asarray(fit(Image.fromarray(image), side))
    found = graph_decode.fit(tf.constant(image), side)
    np.testing.assert_array_equal(found, expected)
    # Whose order of passes depends on its version.
    pillow = ImageOps.fit(
        Image.fromarray(image), (side, side), Image.Resampling.BILINEAR
    )
    assert np.abs(np.asarray(pillow).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("resize", ("letterbox", "squash"))
@pytest.mark.parametrize(
    "size",
    ((37, 53), (53, 37), (20, 20), (16, 31), (31, 16), (16, 16), (200, 2)),
)
def test_other_squares_are_those_of_pillow(size, resize):
    side = 16 if resize == "letterbox" else min(16, *size)
    image = noisy(1, *size)
    expected = np.asarray(fit(Image.fromarray(image), side, resize))
    found = graph_decode.fit(tf.constant(image), side, resize)
    np.testing.assert_array_equal(found, expected)


def test_gray_is_that_of_pillow():
    image = noisy(2, 30, 30)
    expected = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(
        graph_decode.gray(tf.constant(image))[..., 0], expected
    )


def made(mode, kind, seed, size=(41, 29)):
    """The bytes of a file of a mode and a format."""
    image = Image.fromarray(noisy(seed, *size))
    options = {"WEBP": {"quality": 80}, "JPEG": {"quality": 85}}.get(kind, {})
    if mode == "I;16":
        values = noisy(seed, *size, 1)[..., 0].astype(np.uint16) * 255
        return encoded(Image.fromarray(values), kind)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(noisy(seed + 1, *size, 1)[..., 0]))
        mode = mode.replace("RGBA", "RGBA")
    return encoded(image.convert(mode), kind, **options)


FILES = [
    *(("JPEG", mode) for mode in ("RGB", "L")),
    *(("PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA", "L")),
    ("GIF", "P"),
    ("BMP", "RGB"),
]


@pytest.mark.parametrize("kind, mode", FILES)
@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize(
    "resize", mostly_exhaustive(RESIZES, list(RESIZES)[:1])
)
def test_every_mode_and_format(kind, mode, channels, resize):
    decoding = Decoding((12, 12, channels), 16, resize=resize)
    for seed, size in enumerate(((41, 29), (29, 41), (16, 16))):
        data = made(mode, kind, seed, size)
        expected = decode(data, 16, channels, resize=resize)[2:14, 2:14]
        np.testing.assert_array_equal(in_graph(data, decoding), expected)


def test_inks_become_colors():
    """Up to the rounding of a product, for which decoders differ by one."""
    data = made("CMYK", "JPEG", 4)
    found = in_graph(data, Decoding((16, 16, 3), 16)).astype(int)
    assert np.abs(found - decode(data, 16)).max() <= 2


@pytest.mark.parametrize("kind", ("JPEG", "PNG", "WEBP"))
@pytest.mark.parametrize("orientation", range(10))
def test_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x010E] = "a description, so that the tag is not the first one"
    exif[0x0112] = orientation
    image = Image.fromarray(noisy(5, 24, 18))
    data = encoded(image, kind, exif=exif.tobytes())
    expected = decode(data, 16)
    found = in_graph(data, Decoding((16, 16, 3), 16))
    np.testing.assert_array_equal(found, expected)
    if orientation in (2, 6):
        plain = decode(encoded(image, kind), 16)
        assert np.any(plain != expected)


def test_orientation_of_the_other_byte_order():
    tiff = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01"
    tiff += b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + bytes(4)
    image = Image.fromarray(noisy(6, 24, 18))
    data = encoded(image, "JPEG", exif=b"Exif\x00\x00" + tiff)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    np.testing.assert_array_equal(
        in_graph(data, Decoding((16, 16, 3), 16)), decode(data, 16)
    )


@pytest.mark.parametrize("max_value", (4095, 0))
def test_the_range_of_deep_images(max_value):
    values = np.linspace(0, 3000, 48).reshape(6, 8).astype(np.uint16)
    decoding = Decoding((6, 6, 3), 6, max_value)
    for data in (
        encoded(Image.fromarray(values), "PNG"),
        tf.io.encode_png(np.stack([values, values // 2, values], -1)).numpy(),
        made("RGB", "PNG", 7),
    ):
        expected = decode(data, 6, max_value=max_value)
        np.testing.assert_array_equal(in_graph(data, decoding), expected)


@pytest.mark.parametrize(
    "data, words",
    (
        (b"no image", "Unknown image file format|no decoder"),
        (encoded(picture(1, 9, 30)), "smaller than 16 pixels"),
        (encoded(picture(1, 40, 40), "JPEG")[:200], "Invalid JPEG|JPEG"),
    ),
)
def test_what_cannot_be_decoded(data, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        in_graph(data, Decoding((16, 16, 3), 16))


def test_a_letterbox_takes_a_short_side():
    data = encoded(noisy(9, 4, 30))
    found = in_graph(data, Decoding((16, 16, 3), 16, resize="letterbox"))
    np.testing.assert_array_equal(found, decode(data, 16, resize="letterbox"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than 16"):
        in_graph(
            encoded(noisy(9, 4, 15)),
            Decoding((16, 16, 3), 16, resize="letterbox"),
        )


def test_a_network_of_another_shape_takes_its_size_alone():
    image = noisy(8, 10, 14)
    decoding = Decoding((10, 14, 3), 0)
    np.testing.assert_array_equal(in_graph(encoded(image), decoding), image)
    with pytest.raises(tf.errors.InvalidArgumentError, match="10x14 pixels"):
        in_graph(encoded(noisy(8, 14, 10)), decoding)
