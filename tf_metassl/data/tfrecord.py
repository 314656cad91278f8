"""Images in TFRecord files of `tf.train.Example`.

A record has the features that TensorFlow's own scripts write: `image/encoded`,
the bytes of an image file, and `image/class/label`, an integer, or
`image/class/text`, the name of the class, or both.
"""

import contextlib
import glob
import itertools
import os
import pathlib
import re
from typing import NamedTuple

import tensorflow as tf

from tf_metassl.data import folder, patience, spelling
from tf_metassl.data.image_files import SPLITS, ImageFile, in_order

_IMAGE = "image/encoded"
_LABEL = "image/class/label"
_TEXT = "image/class/text"
_BATCH = 256
_PATIENCE = 30.0


class _Record(NamedTuple):
    """What a record says; the number is that in its file, from 0 on."""

    path: pathlib.Path
    number: int
    split: str
    label: int | None
    text: str
    has_image: bool

    @property
    def place(self):
        """The record for messages."""
        return f"record {self.number} of {self.path}"


def load(name, dataset, options, run_dir=None):
    """Loads `--tfrecord`.

    Args:
        name: of the dataset.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
        options: a `DataOptions`.
        run_dir: folder in which `bad_images.csv` is written; None: nowhere.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the records are missing or cannot be used; the message
            names the flag to change, or the record.
    """
    if not options.tfrecord:
        raise ValueError(
            "--dataset=tfrecord needs --tfrecord, a file or a pattern such as "
            "DIR/*.tfrecord."
        )
    given = f"--tfrecord={options.tfrecord}"
    pattern = os.path.expanduser(options.tfrecord)
    paths = [pathlib.Path(path) for path in sorted(glob.glob(pattern))]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise ValueError(
            f"{given}: no such file. If the images of a run have moved, resume "
            "it with --tfrecord=NEW_FILES and --allow_changed=tfrecord."
        )
    with (
        patience.Watch(_PATIENCE) as watch,
        watch.doing(f"reading the labels of {options.tfrecord}"),
    ):
        records = [record for path in paths for record in _scan(path)]
    records = _without_missing_labels(records, options.missing_labels, given)
    class_names, index = _classes(records, given)
    files = [
        ImageFile(
            path=record.path,
            name=f"{record.path.name}:{record.number}",
            label=index[_key(record)] if _has_label(record) else -1,
            split="train" if record.split == "unlabeled" else record.split,
            problem="" if record.has_image else f"no feature {_IMAGE}",
            record=record.number,
        )
        for record in records
    ]
    # As in all other sources.
    files.sort(key=lambda file: file.label < 0)
    count = {s: sum(r.split == s for r in records) for s in SPLITS}
    held = ", ".join(f"{n} {split}" for split, n in count.items() if n)
    notes = [f"{len(paths)} TFRecord file(s): {held} record(s)."]
    return folder.source(
        name,
        dataset,
        (class_names, files, notes),
        given,
        options,
        run_dir,
        reading=_reading,
    )


def split_of(path):
    """The split that the name of a file tells, such as `val-00000-of-00004`.

    Args:
        path: of the file.

    Returns:
        One of `SPLITS`; `train` if the name tells none.

    Raises:
        ValueError: if it tells several.
    """
    words = re.split(r"[-._]", path.name)
    found = {split for word in words if (split := spelling.split(word))}
    if len(found) > 1:
        raise ValueError(
            f"--tfrecord: the name of {path} has the splits "
            f"{' and '.join(sorted(found))}: rename it, so that it has one."
        )
    return found.pop() if found else "train"


def _dataset(path):
    compression = "GZIP" if path.suffix == ".gz" else ""
    return tf.data.TFRecordDataset(str(path), compression_type=compression)


def _scan(path):
    """Yields the `_Record`s of a file."""
    split = split_of(path)
    spec = {
        _IMAGE: tf.io.RaggedFeature(tf.string),
        _LABEL: tf.io.RaggedFeature(tf.int64),
        _TEXT: tf.io.RaggedFeature(tf.string),
    }

    def parse(examples):
        found = tf.io.parse_example(examples, spec)
        has_image = found[_IMAGE].row_lengths() == 1
        return has_image, found[_LABEL], found[_TEXT]

    number = 0
    try:
        for has_image, labels, texts in _dataset(path).batch(_BATCH).map(parse):
            for row, has in enumerate(has_image.numpy()):
                label, text = labels[row].numpy(), texts[row].numpy()
                if max(len(label), len(text)) > 1:
                    raise ValueError(
                        f"--tfrecord: record {number} of {path} has several "
                        "labels. An image has one class."
                    )
                yield _Record(
                    path,
                    number,
                    split,
                    int(label[0]) if len(label) else None,
                    spelling.text(os.fsdecode(text[0])) if len(text) else "",
                    bool(has),
                )
                number += 1
    except tf.errors.DataLossError as error:
        raise ValueError(
            f"--tfrecord: {path} is damaged or no TFRecord file, after "
            f"{number} records: {error.message}. Get the file again; if it is "
            "compressed, its name must end in .gz."
        ) from error
    except tf.errors.OpError as error:
        raise ValueError(
            f"--tfrecord: {path} has no records of tf.train.Example with "
            f"{_IMAGE} (bytes), {_LABEL} (integer) and {_TEXT} (bytes): "
            f"{error.message}"
        ) from error


def _has_label(record):
    if record.split == "unlabeled":
        return False
    return bool(record.text) or (record.label is not None and record.label >= 0)


def _key(record):
    """What names the class of a record with a label."""
    return record.text or str(record.label)


def _without_missing_labels(records, missing_labels, given):
    """Replaces texts such as `nan`, if `--missing_labels` says so.

    Raises:
        ValueError: if it does not say what they mean, or if an image for
            validation or testing has no label.
    """
    result = []
    for record in records:
        if record.text and spelling.is_no_label(record.text):
            if missing_labels == "refuse":
                raise ValueError(
                    f"{given}: {record.place} has the label {record.text!r}, "
                    "which usually means that there is none. Set "
                    "--missing_labels=unlabeled, or --missing_labels=class if "
                    "it is the name of a class."
                )
            if missing_labels == "unlabeled":
                record = record._replace(label=None, text="")
        if record.split in ("validation", "test") and not _has_label(record):
            raise ValueError(
                f"{given}: {record.place} is a {record.split} image and has "
                "no label. Leave the file out of the pattern."
            )
        result.append(record)
    return result


def _classes(records, given):
    """The names of the classes, and the index of each key.

    They have the order of the integers if there are any.

    Raises:
        ValueError: if there is none, or names and integers contradict each
            other.
    """
    labeled = [record for record in records if _has_label(record)]
    if not labeled:
        first = f": {_features(records[0].path)}" if records else ""
        raise ValueError(
            f"{given} has no record with a label, {_LABEL} or {_TEXT}; the "
            f"features of the first record are{first or ' none'}."
        )
    first = {}
    for record in labeled:
        kept = first.setdefault(_key(record), record)
        if record.label != kept.label:
            raise ValueError(
                f"{given}: the class {_key(record)} has the integer "
                f"{kept.label} in {kept.place} and {record.label} in "
                f"{record.place}. Write one of them."
            )
    numbers = [record.label for record in first.values()]
    if None in numbers:
        names = list(in_order(first))
    else:
        names = sorted(first, key=lambda name: first[name].label)
    if None not in numbers and len(set(numbers)) < len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1)
        same = [name for name in names if first[name].label == twice]
        raise ValueError(
            f"{given}: the classes {' and '.join(same)} have the same integer "
            f"{twice}."
        )
    return names, {name: row for row, name in enumerate(names)}


def _features(path):
    """The names of the features of the first record, as text."""
    for data in _dataset(path).take(1):
        example = tf.train.Example.FromString(data.numpy())
        return ", ".join(sorted(example.features.feature))
    return "none"


@contextlib.contextmanager
def _reading(options):
    """Decodes records; see `folder.source`."""
    found = _Stream()
    with folder.reader(options) as (read, pool):
        yield lambda chunk: pool.map(read, chunk, map(found.data, chunk))


class _Stream:
    """The images of records, which are asked for in the order of the files."""

    def __init__(self):
        self._path = None
        self._records = iter(())
        self._number = 0

    def data(self, file):
        """The bytes of an `ImageFile` of `load`; empty if there are none."""
        if file.path != self._path or file.record < self._number:
            self._path, self._number = file.path, 0
            self._records = iter(_dataset(file.path).prefetch(8))
        skipped = file.record - self._number
        record = next(itertools.islice(self._records, skipped, None))
        self._number = file.record + 1
        parsed = tf.io.parse_single_example(
            record, {_IMAGE: tf.io.RaggedFeature(tf.string)}
        )
        images = parsed[_IMAGE].numpy()
        return bytes(images[0]) if len(images) else b""
