"""Files of arrays: .npz with the usual names, and idx files."""

import gzip
import struct
import types

import numpy as np
import pytest

from tf_metassl import config
from tf_metassl.data import array_file, sources
from tf_metassl.errors import ConfigError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 6), np.uint8)
LABELS = np.arange(20) % 3


def load(path):
    settings = config.resolve({"array_file": str(path)})
    assert settings.dataset == "array_file"
    return sources.load(settings.dataset, settings)


def idx(values, code=0x08, shape=None):
    shape = values.shape if shape is None else shape
    header = bytes([0, 0, code, len(shape)])
    return header + struct.pack(f">{len(shape)}I", *shape) + values.tobytes()


def test_names_of_keras_and_of_medmnist(tmp_path):
    rgb = np.repeat(IMAGES[..., None], 3, -1)
    np.savez(
        tmp_path / "a.npz",
        x_train=IMAGES,
        y_train=LABELS,
        x_test=IMAGES[:5],
        y_test=LABELS[:5],
        x_unlabeled=IMAGES[:7],
        class_names=["a", "b", "c"],
    )
    source = load(tmp_path / "a.npz")
    assert source.info.class_names == ("a", "b", "c")
    assert source.info.image_shape == (6, 6, 1)
    np.testing.assert_array_equal(source.train.images[:20, ..., 0], IMAGES)
    np.testing.assert_array_equal(source.train.labels, [*LABELS, *[-1] * 7])
    assert len(source.test) == 5
    np.savez(
        tmp_path / "b.npz",
        train_images=rgb,
        train_labels=LABELS[:, None].astype(np.uint8),
        val_images=rgb[:4],
        val_labels=LABELS[:4, None],
        test_images=rgb[:6],
        test_labels=LABELS[:6, None],
    )
    source = load(tmp_path / "b.npz")
    assert source.info.image_shape == (6, 6, 3)
    assert source.validation_rows.tolist() == [20, 21, 22, 23]
    assert len(source.test) == 6


def test_idx_files(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    labels = LABELS.astype(np.uint8)
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(idx(labels))
    source = load(tmp_path)
    # A fifth of the labels is for testing, as nothing else is given.
    assert len(source.train) + len(source.test) == 20
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx(IMAGES[:4]))
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(idx(labels[:4]))
    source = load(tmp_path)
    assert (len(source.train), len(source.test)) == (20, 4)
    np.testing.assert_array_equal(source.test.labels, LABELS[:4])
    # Big-endian integers of more bytes.
    path = tmp_path / "x"
    path.write_bytes(idx(np.array([1, -2, 300], ">i2"), 0x0B))
    assert array_file.read_idx(path).tolist() == [1, -2, 300]


def test_what_cannot_be_used_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    for values, message in [
        ({"x_train": IMAGES}, "expected x_train and y_train"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "z": LABELS},
            "got z as well",
        ),
        ({"x_train": IMAGES / 255.0, "y_train": LABELS}, "expected uint8"),
        ({"x_train": IMAGES, "y_train": LABELS[:3]}, "20 integer labels"),
        (
            {"x_train": np.array([{}]), "y_train": LABELS},
            "without pickled objects",
        ),
    ]:
        np.savez(path, **values)
        with pytest.raises(ConfigError, match=message) as error:
            load(path)
        assert f"--array_file={path}" in str(error.value)
    path.write_bytes(b"no")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read.*No such file"):
        load(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(ConfigError, match="several arrays"):
        load(tmp_path / "one.npy")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ConfigError, match="train-images-idx3-ubyte"):
        load(folder)
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(LABELS.astype(np.uint8)))
    for data, message in [
        (idx(IMAGES, shape=(20, 6, 7)), "its header says 20 x 6 x 7"),
        (b"\0\0\x0d\x01" + b"\0" * 20, "no idx file of integers"),
        (b"", "no idx file of integers"),
    ]:
        (folder / "train-images-idx3-ubyte").write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            load(folder)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"")
    with pytest.raises(ConfigError, match="expected one file of images"):
        load(folder)
    nothing = types.SimpleNamespace(array_file="", test_fraction=0.2)
    with pytest.raises(ConfigError, match="needs --array_file"):
        array_file.load("array_file", None, nothing)
    both = {"array_file": "a.npz", "labeled_dir": "b"}
    with pytest.raises(ConfigError, match="exclude each other"):
        config.resolve(both)
