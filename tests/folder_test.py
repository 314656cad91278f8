"""The user's own images: folders, a CSV file, and what is wrong with them."""

import csv
import io
import os
import shutil
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.real_data import real_data
from tf_metassl.data import decode, folder, sources, splits
from tf_metassl.data.options import DataOptions


def picture(seed=0, height=8, width=8, channels=3):
    """Smooth, so that a JPEG of it looks like it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (2, 2, channels), np.uint8)
    big = Image.fromarray(small.squeeze()).resize((width, height), 2)
    return np.asarray(big).reshape(height, width, channels)


def encoded(image, kind="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze())
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_classes(place, names=("cat", "dog"), count=5, start=0, **shape):
    for c, name in enumerate(names):
        for i in range(count):
            image = picture(start + 100 * c + i, **shape)
            write(place / name / f"{i}.png", encoded(image))


@pytest.fixture
def place(tmp_path):
    """Labeled, unlabeled and test images of two classes."""
    write_classes(tmp_path / "labeled", count=5)
    write_classes(tmp_path / "test", count=2, start=1000)
    write_classes(tmp_path / "unlabeled/deep", count=3, start=2000)
    return tmp_path


def load(place, dataset="folder", run_dir=None, **options):
    dirs = {
        f"{name}_dir": str(place / name)
        for name in ("labeled", "unlabeled", "validation", "test")
        if (place / name).exists() and dataset == "folder"
    }
    options = {"cache_dir": str(place / ".cache"), **dirs, **options}
    return sources.load(dataset, DataOptions(**options), run_dir)


def bad_images(run_dir):
    """`bad_images.csv`: path -> reason."""
    with open(run_dir / "bad_images.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "reason"]
    return dict(rows[1:])


# Decoding.


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


# What can be wrong with a file.


def png_chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def broken_files():
    """Name -> (bytes, beginning of the reason)."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    png, jpeg = encoded(noise), encoded(noise, "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    bomb = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return {
        "zero_bytes.png": (b"", "zero bytes"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "cut.gif": (encoded(noise, "GIF")[:900], "truncated"),
        "cut.bmp": (encoded(noise, "BMP")[:900], "truncated"),
        "cut.webp": (encoded(noise, "WEBP")[:200], ""),
        "only_a_header.jpg": (jpeg[:20], ""),
        "flipped_bits.png": (bytes(flipped), "broken"),
        "text.jpg": (b"not a picture\n" * 50, "not an image"),
        "page.png": (b"<!DOCTYPE html><html>404</html>", "not an image"),
        "noise.bmp": (noise.tobytes(), "not an image"),
        "archive.jpg": (b"PK\x03\x04" + bytes(500), "not an image"),
        "other_format.jpg": (encoded(noise, "TIFF"), "TIFF file"),
        "notes.txt": (b"my notes", "not an image"),
        "bomb.png": (
            b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", bomb)
            + png_chunk(b"IDAT", zlib.compress(bytes(1000))),
            "broken: Image size (3600000000 pixels) exceeds",
        ),
        "tiny.png": (encoded(picture(1, 7, 30)), "smaller than 8 pixels"),
    }


def test_every_broken_file_is_reported(place, tmp_path):
    run_dir = tmp_path / "runs/1"
    expected = {}
    places = ("labeled/cat", "labeled/dog", "unlabeled/deep", "test/cat")
    for i, (name, (data, reason)) in enumerate(broken_files().items()):
        path = place / places[i % len(places)] / name
        write(path, data)
        expected[str(path)] = reason
    (place / "unlabeled/link.png").symlink_to(place / "nowhere.png")
    expected[str(place / "unlabeled/link.png")] = "no such file"
    os.mkfifo(place / "unlabeled/pipe.png")
    expected[str(place / "unlabeled/pipe.png")] = "not a file"
    write(place / "labeled/loose.png", encoded(picture()))
    expected[str(place / "labeled/loose.png")] = "not in the folder of a class"

    source = load(place, run_dir=run_dir, image_size=8, max_bad_fraction=0.6)
    reported = bad_images(run_dir)
    assert reported.keys() == expected.keys()
    for path, reason in expected.items():
        assert reported[path].startswith(reason), (path, reported[path])
        assert "object at 0x" not in reported[path]
    assert len(source.train) == 10 + 6 and len(source.test) == 4
    assert f"{len(expected)} of {len(expected) + 20} files are left out" in (
        source.description
    )

    # What was found out is known to the next run, too.
    again = tmp_path / "runs/2"
    with pytest.raises(ValueError) as error:
        load(place, run_dir=again, image_size=8)
    assert bad_images(again) == reported
    text = str(error.value)
    assert f"{len(expected)} of {len(expected) + 20} image files" in text
    assert "--max_bad_fraction=0.01" in text and str(again) in text
    assert "1 of them are smaller than --image_size=8: lower it" in text


def test_unreadable_file(place, monkeypatch, tmp_path):
    secret = place / "unlabeled/deep/cat/1.png"
    real = type(secret).read_bytes

    def read_bytes(path):
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(type(secret), "read_bytes", read_bytes)
    load(place, run_dir=tmp_path, max_bad_fraction=0.1)
    assert bad_images(tmp_path) == {
        str(secret): "cannot be read: Permission denied"
    }


def test_no_broken_file(place, tmp_path):
    source = load(place, run_dir=tmp_path)
    assert bad_images(tmp_path) == {}
    assert "left out" not in source.description


def test_odd_names(place, tmp_path):
    write(place / 'unlabeled/ä, "b"\n.png', encoded(picture(7)))
    write(place / "unlabeled/broken, \n.png", b"")
    odd = os.fsencode(place) + b"/unlabeled/\xff.png"
    with open(odd, "wb") as file:
        file.write(encoded(picture(8)))
    with open(odd.replace(b".png", b"0.png"), "wb") as file:
        file.write(b"")
    source = load(place, run_dir=tmp_path, max_bad_fraction=0.2)
    assert {os.fsencode('ä, "b"\n.png'), b"\xff.png"} < set(source.train.ids)
    assert set(bad_images(tmp_path)) == {
        str(place / "unlabeled/broken, \n.png"),
        str(place / "unlabeled") + "/\\udcff0.png",
    }


# Folders.


def test_folder(place):
    source = load(place)
    assert source.info.name == "folder"
    assert source.info.class_names == ("cat", "dog")
    assert source.info.image_shape == (8, 8, 3)
    train = source.train
    assert train.labels.tolist() == [0] * 5 + [1] * 5 + [-1] * 6
    assert train.ids[6] == b"dog/1.png" and train.ids[10] == b"deep/cat/0.png"
    np.testing.assert_array_equal(train.read([6])[0], picture(101))
    np.testing.assert_array_equal(train.read([10])[0], picture(2000))
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(source.test.images[3], picture(1101))
    assert source.validation_rows is None
    assert source.description == (
        "Images with a label: cat 5, dog 5. Without a label: 6."
    )


def test_validation_folder(place):
    write_classes(place / "validation", count=3, start=3000)
    source = load(place)
    rows = source.validation_rows
    np.testing.assert_array_equal(source.train.read(rows[:1])[0], picture(3000))
    parts = splits.split(
        source.train.labels,
        num_labeled=0,
        num_validation=200,
        split_seed=0,
        labeled_inside=False,
        validation_rows=rows,
    )
    assert len(parts.validation) == 6
    np.testing.assert_array_equal(parts.labeled, np.arange(10))
    assert len(parts.unlabeled) == 6
    assert "cat 5, dog 5" in source.description


def test_test_images_are_held_out(place):
    shutil.rmtree(place / "test")
    write_classes(place / "labeled", count=20)
    source = load(place)
    assert "20% of each class's labeled images, held out" in source.description
    assert source.test.labels.tolist() == [0] * 4 + [1] * 4
    assert len(source.train) == 32 + 6
    assert not splits.duplicates(
        source,
        splits.Splits(np.arange(32), np.arange(38), np.arange(0)),
    )
    # The same ones, whatever comes in addition.
    for i in range(20, 25):
        write(place / f"labeled/cat/{i}.png", encoded(picture(i)))
    more = load(place)
    assert len(more.test) == 9
    assert set(source.test.ids) < set(more.test.ids)
    assert len(load(place, test_fraction=0.5).test) == 22


def test_each_class_keeps_a_labeled_image(tmp_path):
    write_classes(tmp_path / "labeled", count=2)
    shutil.copy(tmp_path / "labeled/cat/0.png", tmp_path / "labeled/cat/9.png")
    (tmp_path / "labeled/dog/1.png").unlink()
    source = load(tmp_path, test_fraction=0.9)
    assert source.train.labels.tolist() == [0, 1]
    assert source.test.labels.tolist() == [0, 0]


def test_imbalance_is_told(place):
    for i in range(5, 12):
        write(place / f"labeled/dog/{i}.png", encoded(picture(i)))
    assert (
        "cat 5, dog 12. Unbalanced: the largest class has 2.4 times the images "
        "of the smallest."
    ) in load(place).description


def test_many_classes_are_summed_up(tmp_path):
    names = [str(i) for i in range(21)]
    write_classes(tmp_path / "labeled", names, count=2)
    write(tmp_path / "labeled/3/9.png", encoded(picture(5)))
    write_classes(tmp_path / "test", names, count=1)
    source = load(tmp_path)
    assert "2 to 3 in a class, 2 in the median" in source.description
    # Numbers are sorted as numbers.
    assert source.info.class_names == tuple(names)


def test_hidden_files_and_links(place):
    for name in (".DS_Store", "._1.png", "Thumbs.db"):
        write(place / "labeled/cat" / name, b"junk")
        write(place / "labeled" / name, b"junk")
    (place / "labeled/.git").mkdir()
    (place / "elsewhere").mkdir()
    write(place / "elsewhere/a.png", encoded(picture(50)))
    (place / "labeled/dog/more").symlink_to(place / "elsewhere")
    (place / "unlabeled/deep/round").symlink_to(place / "unlabeled")
    source = load(place)
    assert source.train.labels.tolist() == [0] * 5 + [1] * 6 + [-1] * 6
    assert b"dog/more/a.png" in source.train.ids


def test_unlabeled_folder_around_the_others(place):
    source = load(place, unlabeled_dir=str(place))
    assert np.count_nonzero(source.train.labels < 0) == 6


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_and_size(place, channels):
    source = load(place, channels=channels, image_size=4)
    assert source.info.image_shape == (4, 4, channels)
    assert source.test.shape == (4, 4, channels)


def test_decoded_once(place, monkeypatch):
    first = load(place)
    monkeypatch.setattr(folder, "decode", None)
    in_file = load(place, cache_gib=0.0)
    assert isinstance(in_file.train.pixels, np.memmap)
    for a, b in ((first.train, in_file.train), (first.test, in_file.test)):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.ids, b.ids)
    assert first.description == in_file.description


@pytest.mark.parametrize("change", ["content", "added", "removed", "moved"])
def test_changed_folder_is_decoded_again(place, change):
    load(place)
    path = place / "labeled/cat/1.png"
    if change == "content":
        write(path, encoded(255 - picture(1)))
    elif change == "added":
        write(place / "labeled/cat/9.png", encoded(picture(9)))
    elif change == "removed":
        path.unlink()
    else:
        path.rename(place / "labeled/dog/9.png")
    source = load(place)
    counts = {"content": (5, 5), "added": (6, 5)}
    counts |= {"removed": (4, 5), "moved": (4, 6)}
    assert np.bincount(
        source.train.labels[source.train.labels >= 0]
    ).tolist() == list(counts[change])
    if change == "content":
        np.testing.assert_array_equal(
            source.train.read([1])[0], 255 - picture(1)
        )


def test_duplicates_are_found(place):
    shutil.copy(place / "labeled/cat/1.png", place / "test/cat/copy.png")
    image = Image.open(place / "test/dog/0.png")
    image.save(place / "unlabeled/other_format.bmp")
    source = load(place)
    rows = splits.Splits(np.arange(10), np.arange(17), np.arange(0))
    text = splits.describe_duplicates(source, splits.duplicates(source, rows))
    assert text.splitlines() == [
        "1 test image(s) are also labeled images, such as cat/copy.png = "
        "cat/1.png",
        "1 test image(s) are also unlabeled images, such as dog/0.png = "
        "other_format.bmp",
    ]


def fails(place, message, **options):
    with pytest.raises(ValueError, match=message):
        load(place, **options)


def test_folder_errors(place):
    fails(place, "needs --labeled_dir", labeled_dir="")
    fails(
        place, "--labeled_dir=/nowhere: no such folder", labeled_dir="/nowhere"
    )
    fails(place, "--unlabeled_dir=x: no such folder", unlabeled_dir="x")
    fails(place, "--test_dir=x: no such folder", test_dir="x")
    empty = place / "empty"
    empty.mkdir()
    fails(
        place,
        "--labeled_dir=.*empty has no sub-folders",
        labeled_dir=str(empty),
    )
    fails(
        place,
        "--unlabeled_dir=.*empty holds no images",
        unlabeled_dir=str(empty),
    )
    (empty / "cat").mkdir()
    (empty / "dog").mkdir()
    fails(place, "--test_dir=.*empty holds no images", test_dir=str(empty))
    fails(place, "--labeled_dir=.*empty holds no", labeled_dir=str(empty))


def test_class_errors(place):
    (place / "labeled/ant").mkdir()
    (place / "test/ant").mkdir()
    fails(
        place, "--labeled_dir=.* has no usable labeled image of ant: add some"
    )
    (place / "test/ant").rmdir()
    fails(
        place,
        "--test_dir=.* and --labeled_dir=.* same sub-folders.* has: ant",
    )
    (place / "labeled/ant").rmdir()
    write_classes(place / "validation", ("cat", "bee"))
    fails(place, "--validation_dir=.* and --labeled_dir=.* has: bee, dog")
    shutil.rmtree(place / "validation")
    for part in ("labeled", "test"):
        shutil.rmtree(place / part / "dog")
    fails(place, "--labeled_dir=.* has only the class 'cat'")


def test_class_whose_images_are_all_broken(place):
    for path in (place / "labeled/dog").iterdir():
        path.write_bytes(b"")
    fails(place, "--max_bad_fraction")
    fails(place, "no usable labeled image of dog", max_bad_fraction=1.0)


def test_size_errors(place):
    fails(
        place,
        "10 of them are smaller than --image_size=9: lower it",
        image_size=9,
        test_dir="",
        unlabeled_dir="",
    )
    write(place / "unlabeled/wide.png", encoded(picture(0, 8, 9)))
    fails(place, "--image_size must be set: .* is 8x8, .*wide.png is 8x9")
    (place / "unlabeled/wide.png").unlink()
    write(place / "test/dog/wide.png", encoded(picture(0, 8, 9)))
    fails(place, "--image_size must be set: .* is 8x8, .*wide.png is 8x9")
    assert load(place, image_size=8).info.image_shape == (8, 8, 3)
    kept_larger = load(place, image_size=6, stored_size=8)
    assert kept_larger.info.image_shape == (6, 6, 3)
    assert kept_larger.train.shape == (8, 8, 3)
    assert kept_larger.weak_policy == "random_crop"
    fails(
        place,
        "smaller than --stored_size=9: lower it",
        image_size=6,
        stored_size=9,
        test_dir="",
        unlabeled_dir="",
    )


def test_no_test_image(place):
    fails(
        place,
        "--test_dir .*or raise --test_fraction",
        test_dir="",
        test_fraction=0.0,
    )


def test_labels_that_do_not_suffice(place):
    source = load(place)
    for num_labeled, message in ((1, "--num_labeled=1 gives"), (11, "exceed")):
        with pytest.raises(ValueError, match=message):
            splits.split(
                source.train.labels,
                num_labeled=num_labeled,
                num_validation=0,
                split_seed=0,
                labeled_inside=True,
            )


# CSV.


def manifest(place, text, name="images.csv"):
    (place / name).write_text(text, encoding="utf-8")
    return str(place / name)


LINES = """path,label,split
labeled/cat/0.png,kitten,train
labeled/cat/1.png,kitten,
labeled/dog/0.png,puppy,train
unlabeled/deep/cat/0.png,,
unlabeled/deep/cat/1.png,,train
labeled/dog/1.png,puppy,unlabeled
labeled/dog/2.png,puppy,validation
test/cat/0.png,kitten,test
test/dog/0.png,puppy,test
"""


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(place, mark):
    source = load(place, "csv", manifest=manifest(place, mark + LINES))
    assert source.info.name == "csv"
    assert source.info.class_names == ("kitten", "puppy")
    assert source.train.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert source.train.ids[4] == b"unlabeled/deep/cat/0.png"
    np.testing.assert_array_equal(source.train.read([4])[0], picture(2000))
    assert source.validation_rows.tolist() == [3]
    assert source.test.labels.tolist() == [0, 1]


def test_csv_without_splits_and_with_other_columns(place, tmp_path):
    text = "who,label,path\n"
    for name in ("cat", "dog"):
        for i in range(5):
            text += f"me,{name},{place}/labeled/{name}/{i}.png\n"
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    source = load(place, "csv", manifest=manifest(elsewhere, text))
    assert source.test.labels.tolist() == [0, 1]
    assert len(source.train) == 8


def test_csv_with_files_that_are_not_there(place, tmp_path):
    text = LINES + "nowhere.png,kitten,\nlabeled,,\n"
    path = manifest(place, text)
    load(place, "csv", tmp_path, manifest=path, max_bad_fraction=0.2)
    assert bad_images(tmp_path) == {
        str(place / "nowhere.png"): "no such file",
        str(place / "labeled"): "not a file",
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no column label or path"),
        ("file,label\na.png,b\n", "no column path: its first line must be"),
        ("path,label\na.png,\n", "has no image with a label"),
        (LINES + "x.png,kitten,dev\n", "line 11: the split 'dev' is none of"),
        (LINES + "x.png,,test\n", "line 11: a test image needs a label"),
        (LINES + ",kitten,test\n", "line 11: the path is empty"),
        (LINES + "x.png,kitten,test,1\n", "line 11: more columns than"),
        (LINES + "x.png,owl,test\n", "no usable labeled image of owl"),
        (LINES.replace("puppy", "kitten"), "only the class 'kitten'"),
    ],
)
def test_csv_errors(place, text, message):
    path = manifest(place, text)
    with pytest.raises(ValueError, match=message) as error:
        load(place, "csv", manifest=path, max_bad_fraction=1.0)
    assert f"--manifest={path}" in str(error.value)


def test_manifest_that_is_no_text(place):
    fails(place, "needs --manifest", dataset="csv")
    fails(place, "no such file", dataset="csv", manifest="/nowhere.csv")
    (place / "images.csv").write_bytes(b"path,label\n\xff\xfe,\n")
    path = str(place / "images.csv")
    fails(place, "not a CSV file in UTF-8", dataset="csv", manifest=path)


# Real photos.


@pytest.fixture(scope="module")
def clothing(tmp_path_factory):
    """Half of the training images without labels, and some broken files."""
    place = tmp_path_factory.mktemp("clothing")
    with tarfile.open(real_data("clothing96.tar.xz")) as archive:
        archive.extractall(place, filter="data")
    root = place / "clothing96"
    (root / "train").rename(root / "labeled")
    for kind in (root / "labeled").iterdir():
        for path in sorted(kind.glob("*.jpg"))[::2]:
            other = root / "unlabeled" / kind.name[0] / path.name
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other)
    for name, (data, _) in broken_files().items():
        write(root / "unlabeled" / name, data)
    return root


def test_real_photos(clothing, tmp_path):
    source = load(clothing, run_dir=tmp_path, image_size=96)
    num_bad = len(broken_files())
    assert len(bad_images(tmp_path)) == num_bad
    assert source.info.num_classes == 10
    assert source.info.image_shape == (96, 96, 3)
    assert len(source.test) == 372 and len(source.validation_rows) == 341
    assert len(source.train) == 3068 + 341
    assert "t-shirt 397" in source.description
    assert f"{num_bad} of {3781 + num_bad} files" in source.description
    rows = splits.split(
        source.train.labels,
        num_labeled=100,
        num_validation=0,
        split_seed=0,
        labeled_inside=True,
        validation_rows=source.validation_rows,
        label_split="proportional",
    )
    assert np.bincount(source.train.labels[rows.labeled]).max() == 26
    assert len(rows.unlabeled) == 3068
