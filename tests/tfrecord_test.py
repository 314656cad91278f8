"""Images in TFRecord files."""

import numpy as np
import pytest
import tensorflow as tf

from tests.image_folders import bad_images, encoded, fails, load, picture
from tf_metassl import config
from tf_metassl.data import tfrecord


def example(image=None, label=None, text=None):
    """The bytes of a `tf.train.Example`."""
    values = {}
    for name, value in (("encoded", image), ("class/text", text)):
        if value is not None:
            value = value.encode() if isinstance(value, str) else value
            values[f"image/{name}"] = tf.train.Feature(
                bytes_list=tf.train.BytesList(value=[value])
            )
    if label is not None:
        values["image/class/label"] = tf.train.Feature(
            int64_list=tf.train.Int64List(value=np.atleast_1d(label))
        )
    features = tf.train.Features(feature=values)
    return tf.train.Example(features=features).SerializeToString()


def write(path, examples, compression=""):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for data in examples:
            writer.write(data)


def examples(labels, first=0, **shape):
    """Pictures with the numbers from `first` on, as PNG files."""
    for i, given in enumerate(labels, first):
        yield example(encoded(picture(i, **shape)), **given)


def both(*names):
    numbers = {"cat": 7, "dog": 3}
    return [{"text": n, "label": numbers[n]} if n else {} for n in names]


def test_records_of_every_split(tmp_path):
    names = ["cat", "dog", "", "dog", "cat", ""]
    write(
        tmp_path / "train-00000-of-00002", examples(both(*names[:3]), width=12)
    )
    write(tmp_path / "train-00001-of-00002", examples(both(*names[3:]), 3))
    write(tmp_path / "val-00000-of-00001", examples(both("dog", "cat"), 10))
    write(tmp_path / "pets-test.tfrecord", examples(both("cat", "dog"), 20))
    write(tmp_path / "unlabeled.tfrecord", examples(both("cat"), 30))
    source = load(
        tmp_path, "tfrecord", tfrecord=str(tmp_path / "*-*"), image_size=8
    )
    # In the order of the integers.
    assert source.info.class_names == ("dog", "cat")
    assert source.train.labels.tolist() == [1, 0, 0, 1, 0, 1, -1, -1]
    assert source.validation_rows.tolist() == [4, 5]
    assert source.test.labels.tolist() == [1, 0]
    assert source.train.ids[2] == b"train-00001-of-00002:0"
    # Every record has its own pixels.
    for row, number in zip(
        range(8), (None, None, 3, 4, 10, 11, None, 5), strict=True
    ):
        if number is not None:
            np.testing.assert_array_equal(
                source.train.read([row])[0], picture(number)
            )
    np.testing.assert_array_equal(source.test.read([1])[0], picture(21))
    assert "4 TFRecord file(s): 6 train, 2 validation, 2 test record(s)" in (
        source.description
    )
    more = load(
        tmp_path, "tfrecord", tfrecord=str(tmp_path / "*[0-9d]"), image_size=8
    )
    assert np.count_nonzero(more.train.labels < 0) == 3


@pytest.mark.parametrize("key", ["label", "text"])
def test_integers_or_names_alone(tmp_path, key):
    values = [10, 2, 10, 2, -1 if key == "label" else ""] * 4
    labels = [{key: v if key == "label" else str(v)} for v in values]
    write(tmp_path / "a.tfrecord.gz", examples(labels), "GZIP")
    source = load(
        tmp_path, "tfrecord", tfrecord=str(tmp_path / "a.tfrecord.gz")
    )
    assert source.info.class_names == ("2", "10")
    assert sorted(source.test.labels) == [0, 0, 1, 1]
    assert len(source.train) == 16
    assert np.count_nonzero(source.train.labels < 0) == 4


def test_many_records_of_several_files(tmp_path):
    """More than are decoded at a time, with labels that alternate."""
    for name, first in (("a", 0), ("b", 400)):
        labels = [{"label": i % 3 - 1} for i in range(400)]
        data = [
            example(
                encoded(np.full((8, 8, 3), (first + i) % 251, np.uint8)), **g
            )
            for i, g in enumerate(labels)
        ]
        write(tmp_path / f"{name}.tfrecord", data)
    source = load(tmp_path, "tfrecord", tfrecord=str(tmp_path / "*.tfrecord"))
    for images in (source.train, source.test):
        for row in range(len(images)):
            name, number = images.ids[row].decode().split(":")
            position = int(number) + (400 if name[0] == "b" else 0)
            assert images.read([row])[0, 0, 0, 0] == position % 251
            assert images.labels[row] == max(int(number) % 3 - 1, -1)


def test_records_that_cannot_be_decoded(tmp_path):
    data = [*examples([{"label": i % 2} for i in range(10)])]
    data[3] = example(b"no image", 1)
    data[4] = example(None, 0)
    write(tmp_path / "a.tfrecord", data)
    source = load(
        tmp_path,
        "tfrecord",
        run_dir=tmp_path / "run",
        tfrecord=str(tmp_path / "a.tfrecord"),
        max_bad_fraction=0.5,
    )
    assert len(source.train) + len(source.test) == 8
    assert bad_images(tmp_path / "run") == {
        f"{tmp_path}/a.tfrecord:3": "not an image",
        f"{tmp_path}/a.tfrecord:4": "no feature image/encoded",
    }


def two(*labels):
    return [*examples([{"text": "a", "label": 0}, *labels])]


@pytest.mark.parametrize(
    "name, data, message",
    (
        ("a", two({"text": "b", "label": 0}), "a and b have the same integer"),
        ("a", two({"text": "a", "label": 1}), "has the integer 0 in record 0"),
        ("a", two({"label": [1, 2]}), "record 1 .* has several labels"),
        ("a", two({"text": "nan"}), "record 1 .* 'nan'.*--missing_labels"),
        ("a-test", two({}), "record 1 .* is a test image and has no label"),
        ("test-val", two(), "has the splits test and validation"),
        ("a", two(), "only the class 'a'"),
        ("a", [*examples([{}])], "no record with a label.*image/encoded"),
        ("a", [b"no example"], "no records of tf.train.Example"),
    ),
)
def test_what_is_refused(tmp_path, name, data, message):
    write(tmp_path / name, data)
    fails(tmp_path, message, dataset="tfrecord", tfrecord=str(tmp_path / name))


def test_files_that_are_none(tmp_path):
    for given, message in (
        ("", "needs --tfrecord"),
        (str(tmp_path / "none*"), "no such file"),
    ):
        fails(tmp_path, message, dataset="tfrecord", tfrecord=given)
    write(tmp_path / "a", two({"text": "b", "label": 1}))
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[: len(data) - 5])
    fails(
        tmp_path,
        "is damaged or no TFRecord file, after",
        dataset="tfrecord",
        tfrecord=str(tmp_path / "a"),
    )


def test_labels_that_mean_none(tmp_path):
    labels = [{"text": n} for n in ("a", "b", "nan") * 4]
    write(tmp_path / "a", examples(labels))
    given = {"tfrecord": str(tmp_path / "a")}
    source = load(tmp_path, "tfrecord", missing_labels="unlabeled", **given)
    assert source.info.class_names == ("a", "b")
    source = load(tmp_path, "tfrecord", missing_labels="class", **given)
    assert source.info.class_names == ("a", "b", "nan")


def test_the_flag_names_the_dataset():
    assert config.resolve({"tfrecord": "/x/*"}).dataset == "tfrecord"
    assert config.resolve({"tfds_name": "beans"}).dataset == "tfds"
    with pytest.raises(config.ConfigError, match="exclude each other"):
        config.resolve({"tfrecord": "/x/*", "manifest": "/y"})


@pytest.mark.parametrize(
    "name, split",
    (
        ("train-00000-of-00002", "train"),
        ("cifar10-test.tfrecord-00000-of-00001", "test"),
        ("val.tfrecord.gz", "validation"),
        ("images_unlabelled.tfrecord", "unlabeled"),
        ("pets.tfrecord", "train"),
    ),
)
def test_the_split_of_a_file(tmp_path, name, split):
    assert tfrecord.split_of(tmp_path / name) == split
