"""Bytes of an image file become pixels."""

import numpy as np
import pytest
from PIL import Image

from tests.image_folders import encoded, picture
from tf_metassl.data import decode


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(kind, channels):
    image = picture(height=6, width=9, channels=channels)
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    got = decode.decode(
        encoded(image, kind, **lossless.get(kind, {})), channels=channels
    )
    assert got.shape == image.shape and got.dtype == np.uint8
    exact = kind in ("PNG", "BMP") or (kind == "WEBP" and channels == 3)
    worst = abs(got.astype(int) - image).max()
    assert worst == 0 if exact else worst < 25


def test_gray_and_transparent_become_color():
    gray = picture(channels=1)
    for mode in ("L", "LA", "1", "P"):
        image = Image.fromarray(gray.squeeze()).convert(mode)
        got = decode.decode(encoded(image))
        np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))
    color = picture()
    alpha = np.full((8, 8, 1), 7, np.uint8)
    got = decode.decode(encoded(np.concatenate([color, alpha], -1)))
    np.testing.assert_array_equal(got, color)
    cmyk = Image.fromarray(color).convert("CMYK")
    got = decode.decode(encoded(cmyk, "JPEG", quality=95))
    assert abs(got.astype(int) - color).mean() < 10


def test_color_becomes_gray():
    image = picture()
    expected = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    got = decode.decode(encoded(image), channels=1)
    np.testing.assert_array_equal(got, expected)


def test_sixteen_bits_are_scaled():
    gray = picture(channels=1).squeeze()
    image = Image.fromarray(gray.astype(np.uint16) * 256 + 3)
    got = decode.decode(encoded(image), channels=1)
    np.testing.assert_array_equal(got[..., 0], gray)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_first_frame(kind):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], lossless=True
    )
    assert decode.decode(data)[0, 0].tolist() == [255, 0, 0]


def test_camera_jpeg_of_several_pictures():
    frames = [Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 200)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert abs(int(decode.decode(data)[0, 0, 0]) - 10) < 3


@pytest.mark.parametrize("orientation, turns", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation(orientation, turns):
    image = picture(height=4, width=6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = decode.decode(encoded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(got, np.rot90(image, turns))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_not_a_damaged_picture():
    image = picture()
    data = encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert decode.decode(data).shape == image.shape


def test_resizing_keeps_the_center():
    # Left, middle and right third differ; a square is cut from the middle.
    image = np.repeat(np.array([0, 128, 255], np.uint8), 12)
    image = np.broadcast_to(image[None, :, None], (12, 36, 3)).copy()
    assert (decode.decode(encoded(image), image_size=12) == 128).all()
    assert (decode.decode(encoded(image), image_size=6)[:, 1:-1] == 128).all()
    turned = encoded(np.ascontiguousarray(image.swapaxes(0, 1)))
    assert (decode.decode(turned, image_size=12) == 128).all()
    assert decode.decode(encoded(image), image_size=5).shape == (5, 5, 3)


def test_right_size_is_not_touched():
    image = picture(3)
    np.testing.assert_array_equal(
        decode.decode(encoded(image), image_size=8), image
    )
