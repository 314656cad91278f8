"""The user's own images are decoded, checked and described."""

import os
import shutil
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.image_folders import (
    bad_images,
    encoded,
    fails,
    load,
    picture,
    write,
    write_classes,
    write_place,
)
from tests.real_data import real_data
from tf_metassl.data import folder, splits
from tf_metassl.data.options import DataOptions


@pytest.fixture
def place(tmp_path):
    write_place(tmp_path)
    return tmp_path


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
        "other_format.jpg": (encoded(noise, "PPM"), "PPM file"),
        "notes.txt": (b"my notes", "not an image"),
        "bomb.png": (
            b"\x89PNG\r\n\x1a\n"
            + png_chunk(b"IHDR", bomb)
            + png_chunk(b"IDAT", zlib.compress(bytes(1000))),
            "too large: 60000x60000",
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


def test_class_errors(place):
    (place / "labeled/ant").mkdir()
    (place / "test/ant").mkdir()
    fails(
        place, "--labeled_dir=.* has no usable labeled image of ant: add some"
    )
    (place / "labeled/ant").rmdir()
    fails(
        place,
        "--test_dir=.* classes that --labeled_dir=.* has not: ant. Rename",
    )
    (place / "test/ant").rmdir()
    write_classes(place / "validation", ("cat", "bee"))
    fails(place, "--validation_dir=.* that --labeled_dir=.* has not: bee. Ren")
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


def test_splits_may_lack_classes(place):
    shutil.rmtree(place / "test/cat")
    write_classes(place / "validation", ("cat",), count=2, start=3000)
    source = load(place)
    assert source.test.labels.tolist() == [1, 1]
    labels = source.train.labels[source.validation_rows]
    assert labels.tolist() == [0, 0]
    rows = splits.Splits(np.arange(10), np.arange(12), source.validation_rows)
    assert splits.describe_absent(source, rows).splitlines() == [
        "No validation image of 1 of 2 classes: dog. Macro-F1 is the mean over "
        "the others.",
        "No test image of 1 of 2 classes: cat. Macro-F1 is the mean over the "
        "others.",
    ]


def test_one_image_a_class(place, tmp_path):
    shutil.rmtree(place / "labeled")
    write_classes(place / "labeled", count=1)
    # Nothing is left to be tested with, which one flag changes.
    with pytest.raises(ValueError) as error:
        load(place, test_dir="")
    assert str(error.value) == (
        f"No class of --labeled_dir={place / 'labeled'} has more than one "
        "labeled image, so that none can be held out for testing: give "
        "--test_dir (csv: rows with the split test). Validation images are not "
        "needed."
    )
    source = load(place)
    count = splits.default_num_validation(source.train.labels)
    rows = splits.split(
        source.train.labels,
        num_labeled=0,
        num_validation=count,
        split_seed=0,
        labeled_inside=True,
    )
    assert count == 0 and rows.labeled.tolist() == [0, 1]
    splits.check_unlabeled(rows)


def test_names_that_are_not_utf8(place, tmp_path):
    """Their bytes are shown, and every list of them can be written."""
    for part in ("labeled", "test"):
        (place / part / "dog").rename(place / part / os.fsdecode(b"d\xf6g"))
    source = load(place, run_dir=tmp_path)
    assert source.info.class_names == ("cat", "d\\xf6g")
    rows = splits.Splits(np.arange(10), np.arange(16), np.arange(0))
    splits.save_ids(source, rows, tmp_path / "ids.txt")
    lines = (tmp_path / "ids.txt").read_text("utf-8").splitlines()
    assert lines[6] == "5\td\\xf6g\td\\xf6g/0.png"
    source.description.encode()


def test_classes_in_another_unicode_form(place):
    for part, name in (("labeled", "do\u0308g"), ("test", "d\u00f6g")):
        (place / part / "dog").rename(place / part / name)
    source = load(place)
    assert source.info.class_names == ("cat", "d\u00f6g")
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    (place / "labeled/d\u00f6g").mkdir()
    fails(place, "several sub-folders of the same name, .* d\u00f6g. Put")


def test_the_list_of_bad_images_has_no_formulas(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    write(place / "=1+2/cat/0.png", b"")
    write(place / "=1+2/cat/1.png", encoded(picture()))
    write(place / "=1+2/dog/1.png", encoded(picture()))
    load(place, run_dir=tmp_path, labeled_dir="=1+2", max_bad_fraction=0.5)
    assert bad_images(tmp_path) == {"'=1+2/cat/0.png": "zero bytes"}


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


@pytest.mark.slow
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


@pytest.mark.parametrize("text", ("=cmd()", "+1", "-1.png", "@x", "\tx"))
def test_the_list_of_bad_images_is_no_program(tmp_path, text):
    folder._check_bad(
        [(text, "not an image")], 1, DataOptions(max_bad_fraction=1.0), tmp_path
    )
    assert bad_images(tmp_path) == {f"'{text}": "not an image"}


def test_a_file_that_is_too_large_is_not_read(place, tmp_path, monkeypatch):
    film = place / "labeled/cat/film.avi"
    with open(film, "wb") as file:
        file.truncate(12 * 2**30)  # Takes no space.
    read = folder.pathlib.Path.read_bytes

    def guarded(path):
        assert path != film
        return read(path)

    monkeypatch.setattr(folder.pathlib.Path, "read_bytes", guarded)
    load(place, run_dir=tmp_path, max_bad_fraction=0.5)
    (reason,) = bad_images(tmp_path).values()
    assert reason == (
        "too large: 12,884,901,888 bytes, more than --max_image_bytes=200000000"
    )


def test_the_limits_and_the_range_are_those_of_the_flags(place, tmp_path):
    with pytest.raises(ValueError, match="no usable labeled image"):
        load(place, run_dir=tmp_path, max_image_pixels=63, max_bad_fraction=1.0)
    for reason in bad_images(tmp_path).values():
        assert reason.endswith("more than --max_image_pixels=63")
    dark = np.uint16([[0, 1000], [2000, 4095]])
    write(place / "labeled/cat/0.png", encoded(dark.repeat(4, 0).repeat(4, 1)))
    whole = load(place, channels=1).train.read([0])
    scaled = load(place, channels=1, max_value=4095).train.read([0])
    assert whole.max() == 15 and scaled.max() == 255


def test_pillows_limit_is_as_before(place):
    before = Image.MAX_IMAGE_PIXELS
    load(place)
    assert Image.MAX_IMAGE_PIXELS == before


def test_other_squares_are_other_images(tmp_path):
    write_classes(tmp_path / "labeled", height=8, width=16)
    found = {
        resize: load(tmp_path, image_size=8, resize=resize).train.images
        for resize in ("shorter_side", "letterbox", "squash")
    }
    assert not found["letterbox"][:, :2].any()
    assert not np.array_equal(found["shorter_side"], found["squash"])


def test_files_left_out_come_back_with_a_decoder(tmp_path, monkeypatch):
    write_classes(tmp_path / "labeled")
    for name in ("cat", "dog"):
        place = tmp_path / f"labeled/{name}/0.png"
        place.rename(place.with_suffix(".heic"))
    kept = []
    for names in ([], ["HEIF"]):
        monkeypatch.setattr(folder, "optional_formats", lambda n=names: n)
        load(tmp_path)
        kept.append(len(list((tmp_path / ".cache").glob("folder-*"))))
    assert kept[1] > kept[0]
