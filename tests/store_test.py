"""Images in memory and on disk; a cache that is whole or absent."""

import json
import os
import subprocess
import sys
import threading

import filelock
import numpy as np
import pytest
import tensorflow as tf

from tf_metassl import files
from tf_metassl.data import store
from tf_metassl.data.store import Images

SHAPE = (4, 3, 2)


def pixels(count=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SHAPE), np.uint8)


def batches(images, labels=None, ids=None):
    """What `store.write` takes, two batches."""
    labels = np.arange(len(images)) if labels is None else np.array(labels)
    ids = ids or [f"{i:03d}".encode() for i in range(len(images))]
    parts = [slice(0, 3), slice(3, None)]
    whole = [(images[p], labels[p], ids[p], p.start) for p in parts]
    return lambda done: iter([b for b in whole if len(b[0])][done:])


def mapped(tmp_path, images):
    """The same images in a file."""
    store.write(tmp_path, "x", batches(images), total=9)
    return store.read(tmp_path, ["x"], cache_gib=0)[0]


# Random access.


@pytest.fixture(params=["tensor", "numpy", "file"])
def forms(request, tmp_path, monkeypatch):
    """The same images in each of the forms that they can have."""
    images = pixels()
    if request.param == "file":
        result = mapped(tmp_path, images)
        assert isinstance(result.pixels, np.memmap)
        return images, result
    if request.param == "numpy":
        monkeypatch.setattr(store, "_TENSOR_BYTES", 0)
    return images, Images(images, np.arange(10, dtype=np.int32))


def test_gather_gives_the_same_in_every_form(forms):
    images, held = forms
    index = np.array([3, 0, 9, 3])
    np.testing.assert_array_equal(held.gather(index).numpy(), images[index])
    assert held.gather(index).dtype == tf.uint8
    np.testing.assert_array_equal(held.read(index), images[index])
    np.testing.assert_array_equal(held.images, images)
    assert len(held) == 10 and held.shape == SHAPE


@pytest.mark.parametrize("drop_remainder", [True, False])
def test_gather_inside_a_map(forms, drop_remainder):
    images, held = forms
    data = tf.data.Dataset.range(10).batch(4, drop_remainder=drop_remainder)
    data = data.map(held.gather, tf.data.AUTOTUNE)
    size = 4 if drop_remainder else None
    assert data.element_spec.shape.as_list() == [size, *SHAPE]
    got = np.concatenate(list(data.as_numpy_iterator()))
    np.testing.assert_array_equal(got, images[: len(got)])


def test_gather_outside_of_the_images(forms):
    with pytest.raises((IndexError, tf.errors.InvalidArgumentError)):
        forms[1].gather([10]).numpy()


def test_take(forms):
    images, held = forms
    part = held.take([7, 2, 5]).take([2, 0])
    np.testing.assert_array_equal(part.images, images[[5, 7]])
    np.testing.assert_array_equal(part.gather([1, 0]).numpy(), images[[7, 5]])
    np.testing.assert_array_equal(part.labels, [5, 7])
    np.testing.assert_array_equal(
        part.content_hashes([0]), held.content_hashes([5])
    )
    # The file is not read into memory for it.
    assert isinstance(part.pixels, np.memmap) == isinstance(
        held.pixels, np.memmap
    )


def test_graph_does_not_contain_the_pixels():
    held = Images(pixels(1000), np.zeros(1000, np.int32))
    graph = tf.function(held.gather).get_concrete_function(
        tf.TensorSpec([2], tf.int64)
    )
    assert graph.graph.as_graph_def().ByteSize() < 5000


def test_content_hashes():
    images = pixels(3000)
    images[2999] = images[5]
    held = Images(images, np.zeros(3000, np.int32))
    hashes = held.content_hashes(np.arange(3000))
    assert hashes.dtype == np.uint64
    assert len(np.unique(hashes)) == 2999 and hashes[5] == hashes[2999]
    np.testing.assert_array_equal(held.content_hashes([7, 3]), hashes[[7, 3]])
    assert held.content_hashes([]).shape == (0,)


def test_wrong_arrays():
    with pytest.raises(ValueError, match=r"pixels: expected uint8 \[N, H, W"):
        Images(pixels().astype(np.float64), np.zeros(10, np.int32))
    with pytest.raises(ValueError, match=r"labels: expected shape \(10,\)"):
        Images(pixels(), np.zeros(9, np.int32))
    with pytest.raises(ValueError, match=r"ids: expected shape \(2,\)"):
        Images(
            pixels(),
            np.zeros(2, np.int32),
            rows=np.array([1, 2]),
            ids=np.zeros(3, "S1"),
        )


# Files.


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_write_and_read(tmp_path, cache_gib):
    images = pixels()
    store.write(tmp_path, "x", batches(images), total=9)
    (held,) = store.read(tmp_path, ["x"], cache_gib)
    np.testing.assert_array_equal(held.images, images)
    np.testing.assert_array_equal(held.labels, np.arange(10))
    assert held.labels.dtype == np.int32
    assert held.ids[3] == b"003"
    np.testing.assert_array_equal(held.hashes, store.hash_pixels(images))
    assert isinstance(held.pixels, np.memmap) == (cache_gib == 0)


def test_all_files_together_decide_about_memory(tmp_path):
    store.write(tmp_path, "x", batches(pixels()), total=9)
    store.write(tmp_path, "y", batches(pixels()), total=9)
    size = pixels().nbytes / 2**30
    for limit, in_file in ((1.9 * size, True), (2 * size, False)):
        for held in store.read(tmp_path, ["x", "y"], limit):
            assert isinstance(held.pixels, np.memmap) == in_file


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_sorted_by_id_with_unlabeled_images_last(tmp_path, cache_gib):
    images = pixels(5)
    labels, ids = [-1, 3, 2, -1, 1], [b"b", b"z", b"d", b"a", b"e"]
    store.write(
        tmp_path, "x", batches(images, labels, ids), total=9, sort_by_id=True
    )
    (held,) = store.read(tmp_path, ["x"], cache_gib)
    order = [2, 4, 1, 3, 0]
    assert held.ids.tolist() == [ids[i] for i in order]
    assert held.labels.tolist() == [labels[i] for i in order]
    np.testing.assert_array_equal(held.images, images[order])
    np.testing.assert_array_equal(held.gather([0, 4]).numpy(), images[[2, 0]])
    np.testing.assert_array_equal(held.take([3, 1]).images, images[[3, 4]])
    np.testing.assert_array_equal(
        held.content_hashes([1]), store.hash_pixels(images[4:])
    )


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_no_images(tmp_path, cache_gib):
    store.write(tmp_path, "x", lambda done: iter(()), total=9)
    assert len(store.read(tmp_path, ["x"], cache_gib)[0]) == 0


# The cache.


class Builder:
    """Counts how often it builds."""

    def __init__(self, text="whole"):
        self.text = text
        self.count = 0

    def __call__(self, folder):
        self.count += 1
        (folder / "a.u8").write_text(self.text * 100)
        (folder / "b.npz").write_text("labels")


def cached(tmp_path, build, fingerprint="f", **settings):
    return store.cached(
        tmp_path / "cache",
        "name/part",
        settings=settings,
        fingerprint=fingerprint,
        build=build,
    )


def test_cache_is_built_once(tmp_path, capsys):
    build = Builder()
    folder = cached(tmp_path, build)
    assert "Decoding the images of name/part once" in capsys.readouterr().err
    assert cached(tmp_path, build) == folder
    assert capsys.readouterr().err == ""
    assert build.count == 1
    assert (folder / "a.u8").read_text() == "whole" * 100
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {"a.u8", "b.npz"}
    assert {p.name for p in folder.parent.iterdir()} == {
        folder.name,
        folder.name + ".lock",
    }


def test_each_setting_has_a_folder_of_its_own(tmp_path):
    build = Builder()
    folders = {cached(tmp_path, build, size=size) for size in (1, 2, 1)}
    assert len(folders) == build.count == 2


def test_changed_originals_are_decoded_again(tmp_path, capsys):
    cached(tmp_path, Builder())
    build = Builder("other")
    folder = cached(tmp_path, build, fingerprint="g")
    assert "the original images have changed" in capsys.readouterr().err
    assert (folder / "a.u8").read_text() == "other" * 100
    assert len(list(folder.parent.iterdir())) == 2


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def flip_bit_in_secret(path):
    """Size and time of change stay."""
    stat = path.stat()
    flip_bit(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    "harm", [flip_bit, flip_bit_in_secret, truncate, remove]
)
@pytest.mark.parametrize("name", ["a.u8", "b.npz", "manifest.json"])
def test_damaged_cache_is_built_again(tmp_path, harm, name, capsys):
    build = Builder()
    folder = cached(tmp_path, build)
    harm(folder / name)
    if name == "manifest.json" and harm in (flip_bit, flip_bit_in_secret):
        # The last byte closes the bracket.
        assert (folder / name).read_text()[-1] != "}"
    capsys.readouterr()
    assert cached(tmp_path, build) == folder
    said = capsys.readouterr().err
    assert "building it again" in said and name in said
    assert build.count == 2
    assert (folder / "a.u8").read_text() == "whole" * 100
    cached(tmp_path, build)
    assert build.count == 2


@pytest.mark.parametrize("text", ["[]", "{}", '{"fingerprint": "f"}', "\xff"])
def test_odd_manifest(tmp_path, text):
    build = Builder()
    folder = cached(tmp_path, build)
    (folder / "manifest.json").write_bytes(text.encode("latin1"))
    cached(tmp_path, build)
    assert build.count == 2


def test_copied_cache_is_checked_and_used(tmp_path, monkeypatch):
    build = Builder()
    folder = cached(tmp_path, build)
    os.utime(folder / "a.u8")
    sums = []
    real = files.sha256
    monkeypatch.setattr(
        files, "sha256", lambda path, *_: sums.append(path.name) or real(path)
    )
    for _ in range(3):
        cached(tmp_path, build)
    assert build.count == 1 and sorted(sums) == ["a.u8", "b.npz"]


def test_finished_cache_needs_no_lock(tmp_path, monkeypatch):
    folder = cached(tmp_path, Builder())
    monkeypatch.setattr(files, "locked", None)
    assert cached(tmp_path, Builder()) == folder


def test_build_that_fails_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "a.u8").write_text("half")
        raise KeyError("no such image")

    with pytest.raises(KeyError, match="no such image"):
        cached(tmp_path, build)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_rests_of_a_killed_build_are_removed(tmp_path):
    folder = cached(tmp_path, Builder())
    rest = folder.with_name(folder.name + ".0123abcd.tmp")
    rest.mkdir()
    (rest / "a.u8").write_text("half")
    (folder / "a.u8").unlink()
    cached(tmp_path, Builder())
    assert not rest.exists()


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(ValueError, match=r"cannot be kept in .*--cache_dir"):
        cached(tmp_path, Builder())


def test_full_disk(tmp_path):
    def build(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(
        ValueError, match="No space left on device.*--cache_dir"
    ):
        cached(tmp_path, build)


def test_without_locks_a_file_keeps_others_away(tmp_path, monkeypatch, capsys):
    def no_locks(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(filelock, "lock_descriptor", no_locks)
    # It would wait for the process that builds, which here is its own.
    monkeypatch.setattr(store, "_LOCK_TIMEOUT", 0.05)
    inner = Builder("inner")

    def outer(folder):
        cached(tmp_path, inner)
        (folder / "a.u8").write_text("outer")

    folder = cached(tmp_path, outer)
    assert "If that process has ended, remove" in capsys.readouterr().err
    assert (folder / "a.u8").read_text() == "inner" * 100
    assert {p.name for p in folder.parent.iterdir()} == {
        folder.name,
        folder.name + ".lock",
    }


def test_threads_that_start_together_build_once(tmp_path):
    build = Builder()
    threads = [
        threading.Thread(target=cached, args=(tmp_path, build))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.count == 1


BUILD_SLOWLY = """
import pathlib, sys, time, types
# The cache does without TensorFlow, whose import is slow.
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
from tf_metassl import files
from tf_metassl.data import store

place = pathlib.Path(sys.argv[1])

def build(folder):
    (place / f"built by {sys.argv[2]}").touch()
    time.sleep(1)
    (folder / "a.u8").write_bytes(bytes(range(256)))

(place / f"ready {sys.argv[2]}").touch()
while len(list(place.glob("ready *"))) < 2:
    time.sleep(0.01)
folder = store.cached(
    place / "cache", "x", settings={}, fingerprint="f", build=build
)
assert (folder / "a.u8").read_bytes() == bytes(range(256))
"""


def test_two_processes_that_start_together_build_once(tmp_path):
    command = [sys.executable, "-c", BUILD_SLOWLY, str(tmp_path)]
    runs = [
        subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert len(list(tmp_path.glob("built by *"))) == 1
    assert sum("Waiting for another process" in text for text in said) == 1


class Interrupted(BaseException):
    """As `KeyboardInterrupt`, which pytest would take for its own."""


def interrupted(make, after):
    """Batches that end with an interruption after so many."""

    def batches(done):
        for number, batch in enumerate(make(done), start=done):
            if number == after:
                raise Interrupted
            yield batch

    return batches


@pytest.mark.parametrize("torn", ("not", "pixels", "line"))
def test_writing_goes_on_where_it_was(tmp_path, capsys, torn):
    images = pixels()
    store.write(tmp_path, "whole", batches(images), total=10)
    with pytest.raises(Interrupted):
        store.write(tmp_path, "x", interrupted(batches(images), 1), total=10)
    asked = []
    if torn == "pixels":
        # Written, but not noted; or noted, and lost when the power failed.
        with open(tmp_path / "x.u8", "ab") as file:
            file.write(b"rest")
    elif torn == "line":
        with open(tmp_path / "x.journal", "a") as file:
            file.write('{"bytes": 5, "ids')

    def make(done):
        asked.append(done)
        return batches(images)(done)

    notes = store.write(tmp_path, "x", make, total=10)
    assert asked == [1] and notes == [0, 3]
    assert "3 x images have been decoded before" in capsys.readouterr().err
    assert not (tmp_path / "x.journal").exists()
    for suffix in (".u8", ".npz"):
        paths = [tmp_path / f"{name}{suffix}" for name in ("x", "whole")]
        assert paths[0].read_bytes() == paths[1].read_bytes(), suffix


def test_pixels_that_were_lost_are_written_again(tmp_path):
    images = pixels()
    with pytest.raises(Interrupted):
        store.write(tmp_path, "x", interrupted(batches(images), 1), total=10)
    with open(tmp_path / "x.u8", "ab") as file:
        file.truncate(5)
    store.write(tmp_path, "x", batches(images), total=10)
    (held,) = store.read(tmp_path, ["x"], 1)
    np.testing.assert_array_equal(held.images, images)


def test_batches_of_another_size_are_refused(tmp_path):
    def make(done):
        return iter([(pixels(2), [0, 0], [b"a", b"b"], None)] + wide)

    wide = [(np.zeros((1, 9, 9, 3), np.uint8), [0], [b"c"], None)]
    with pytest.raises(ValueError, match="--image_size must be set"):
        store.write(tmp_path, "x", make, total=3)


def test_an_interrupted_cache_is_continued_and_a_failed_one_is_not(tmp_path):
    seen = []

    def build(end):
        def builder(folder):
            seen.append(sorted(p.name for p in folder.iterdir()))
            (folder / "a.u8").write_text("half")
            if end:
                raise end

        return builder

    for end in (Interrupted(), Interrupted(), ValueError("bad"), None):
        if end is None:
            folder = cached(tmp_path, build(None))
        else:
            with pytest.raises(type(end)):
                cached(tmp_path, build(end))
    # Other images: what was left of these ones goes.
    assert seen == [[], ["a.u8"], ["a.u8"], []]
    assert {p.name for p in folder.parent.iterdir()} == {
        folder.name,
        folder.name + ".lock",
    }
