"""Bytes of an image file become pixels."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

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


def deep(top, size=(6, 8)):
    """A gray image with 16 bits whose largest value is `top`."""
    values = np.linspace(0, top, size[0] * size[1]).reshape(size)
    return np.rint(values).astype(np.uint16)


@pytest.mark.parametrize("kind", ("PNG", "TIFF"))
@pytest.mark.parametrize(
    "top, max_value", ((4095, 4095), (1023, 1023), (65535, 65535), (3000, 0))
)
def test_the_range_of_deep_images_can_be_told(kind, top, max_value):
    values = deep(top)
    image = decode.decode(
        encoded(Image.fromarray(values), kind), channels=1, max_value=max_value
    )
    expected = values / (max_value or top) * 255
    # The full range is divided by 256, as it always was.
    np.testing.assert_allclose(image[..., 0], expected, atol=1.0)
    assert image.max() == 255
    if top < 65535:
        dark = decode.decode(encoded(Image.fromarray(values), kind), channels=1)
        np.testing.assert_array_equal(dark[..., 0], values >> 8)


def png_of_16_bit_colors(values):
    """An encoded PNG of `[H, W, 3]` uint16; Pillow writes none."""
    return tf.io.encode_png(tf.constant(values)).numpy()


@pytest.mark.parametrize("top, max_value", ((4095, 4095), (3000, 0)))
def test_the_range_of_deep_colors_can_be_told(top, max_value):
    values = np.stack([deep(top), deep(top // 2), deep(top // 3)], axis=-1)
    data = png_of_16_bit_colors(values)
    image = decode.decode(data, max_value=max_value)
    np.testing.assert_allclose(image, values / top * 255, atol=0.51)
    np.testing.assert_array_equal(decode.decode(data), values >> 8)
    # Colors of 8 bits have their range.
    pixels = picture(3)
    kept = decode.decode(encoded(pixels), max_value=max_value)
    np.testing.assert_array_equal(kept, pixels)


def test_a_broken_deep_image_is_broken():
    data = png_of_16_bit_colors(np.full((40, 40, 3), 999, np.uint16))
    with pytest.raises(decode.BadImageError, match="broken|truncated"):
        decode.decode(data[: len(data) // 2], max_value=999)


def test_formats_that_need_more_memory_count_several_times():
    counted = []

    class Budget(decode.Budget):
        def spent(self, pixels):
            counted.append(pixels)
            return super().spent(pixels)

    for kind in ("PNG", "WEBP"):
        decode.decode(encoded(picture(3, 5, 8), kind), budget=Budget(100))
    assert counted == [40, 160]


def test_color_tiff():
    pixels = picture(3)
    np.testing.assert_array_equal(
        decode.decode(encoded(pixels, "TIFF")), pixels
    )
    floats = encoded(Image.fromarray(np.float32(pixels[..., 0])), "TIFF")
    with pytest.raises(decode.BadImageError, match="pixels are floats"):
        decode.decode(floats)


@pytest.mark.parametrize("kind", ("PNG", "JPEG"))
def test_too_large_is_not_broken(kind):
    data = encoded(np.zeros((90, 120, 3), np.uint8), kind)
    with pytest.raises(decode.BadImageError) as error:
        decode.decode(data, max_pixels=10_799)
    assert str(error.value) == (
        "too large: 90x120 are 10,800 pixels, more than "
        "--max_image_pixels=10799"
    )
    assert decode.decode(data, max_pixels=10_800).shape == (90, 120, 3)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size():
    data = encoded(picture(1, 800, 1200), "JPEG")
    small = decode.decode(data, 32, max_pixels=100_000)
    whole = decode.decode(data, 32)
    assert np.abs(small.astype(int) - whole).mean() < 3
    with pytest.raises(decode.BadImageError, match="too large: 800x1200"):
        decode.decode(encoded(picture(1, 800, 1200)), 32, max_pixels=100_000)


def test_threads_share_the_budget():
    budget = decode.Budget(10)
    most, held = [], []

    def work(pixels):
        with budget.spent(pixels):
            held.append(pixels)
            most.append(sum(min(p, 10) for p in held))
            time.sleep(0.005)
            held.remove(pixels)

    threads = [
        threading.Thread(target=work, args=(p,)) for p in (4, 3, 99, 6, 5, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 6 and max(most) <= 10


@pytest.mark.parametrize("channels", (1, 3))
def test_letterbox_by_hand(channels):
    """Four rows of eight pixels become two of four, and black above them."""
    image = np.repeat(
        np.repeat(
            np.array([[40, 80, 120, 160], [50, 90, 130, 170]], np.uint8), 2, 0
        ),
        2,
        1,
    )
    image = np.repeat(image[..., np.newaxis], channels, -1)
    found = decode.decode(encoded(image), 4, channels, resize="letterbox")
    assert found.shape == (4, 4, channels)
    assert not found[0].any() and not found[3].any()
    inner = found[1:3, :, 0].astype(int)
    # Antialiased: an eighth of each neighbor.
    np.testing.assert_allclose(inner[:, 1:3].mean(0), [85, 125], atol=1)
    whole = decode.decode(
        encoded(image[:, :4]), 4, channels, resize="letterbox"
    )
    np.testing.assert_array_equal(whole, image[:, :4])


def test_squash_by_hand():
    """A picture of four vertical stripes keeps all of them."""
    image = np.repeat(np.arange(0, 200, 50, dtype=np.uint8), 8)
    image = np.tile(image[np.newaxis, :, np.newaxis], (8, 1, 3))
    found = decode.decode(encoded(image), 8, resize="squash")
    assert found.shape == (8, 8, 3)
    stripes = found[..., 0].reshape(8, 4, 2).mean(axis=2)
    np.testing.assert_allclose(stripes, [[0, 50, 100, 150]] * 8, atol=8)
    cropped = decode.decode(encoded(image), 8)
    assert cropped.min() >= 50 and cropped.max() <= 100


def test_what_is_too_small_depends_on_the_square():
    data = encoded(picture(1, 4, 20))
    for resize in ("shorter_side", "squash"):
        with pytest.raises(decode.BadImageError, match="smaller than 8"):
            decode.decode(data, 8, resize=resize)
    assert decode.decode(data, 8, resize="letterbox").shape == (8, 8, 3)
    with pytest.raises(decode.BadImageError, match="smaller than 21"):
        decode.decode(data, 21, resize="letterbox")


def test_avif():
    if not features.check("avif"):
        pytest.skip("this Pillow has no decoder for AVIF")
    image = picture(3, 24, 32)
    data = encoded(image, "AVIF", quality=100)
    found = decode.decode(data).astype(int)
    assert np.abs(found - image.astype(int)).mean() < 4
    assert decode.decode(data, 16, 1).shape == (16, 16, 1)
    with pytest.raises(decode.BadImageError):
        decode.decode(data[: len(data) // 2])


def test_heic():
    heif = pytest.importorskip(
        "pillow_heif", reason="pillow-heif is not installed"
    )
    heif.register_heif_opener()
    image = picture(3, 24, 32)
    data = encoded(image, "HEIF", quality=100)
    found = decode.decode(data).astype(int)
    assert np.abs(found - image.astype(int)).mean() < 4
    assert decode.decode(data, 16, 1).shape == (16, 16, 1)


def test_what_decodes_a_picture_of_a_phone_is_named(monkeypatch):
    """Its header alone, which a Pillow without a decoder does not know."""
    monkeypatch.setattr(decode, "_register_heif", lambda: None)
    header = b"\0\0\0\x18ftyp%b\0\0\0\0mif1heic"
    with pytest.raises(
        decode.BadImageError, match="HEIC file.*install the package pillow-heif"
    ):
        decode.decode(header % b"heix" + bytes(100))


@pytest.mark.parametrize("mode", ("RGB", "L", "I;16", "CMYK", "P"))
def test_tiff(mode):
    image = Image.fromarray(picture(4, 20, 30))
    if mode == "I;16":
        levels = np.asarray(image)[..., 0].astype(np.uint16) * 257
        data = encoded(Image.fromarray(levels), "TIFF")
        found = decode.decode(data, channels=1)[..., 0]
        np.testing.assert_array_equal(found, np.asarray(image)[..., 0])
        return
    other = image.convert(mode)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
        data = encoded(other, "TIFF", compression=compression)
        np.testing.assert_array_equal(
            decode.decode(data), np.asarray(other.convert("RGB"))
        )
