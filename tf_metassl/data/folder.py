"""The user's own images: folders with a sub-folder per class, or a CSV file.

Every file is decoded before training starts. Files that cannot be used are left
out and listed in `bad_images.csv` with the reason.
"""

import concurrent.futures
import contextlib
import csv
import functools
import io
import json
import os
import pathlib
import warnings

import numpy as np

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import (
    image_files,
    manifest,
    patience,
    spelling,
    store,
)
from tf_metassl.data import options as options_lib
from tf_metassl.data.decode import (
    BadImageError,
    Budget,
    decode,
    limits_of_our_own,
    optional_formats,
)
from tf_metassl.files import write_bytes

BAD_IMAGES = "bad_images.csv"
# Seconds after which a file that is being read is named.
_PATIENCE = 30.0

_PLACES = (
    "labeled_dir",
    "unlabeled_dir",
    "validation_dir",
    "test_dir",
    "manifest",
    "tfrecord",
)


def load_folder(name, dataset, options, run_dir=None):
    """Loads `--labeled_dir`, `--unlabeled_dir` and so on.

    Args:
        name: of the dataset.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
        options: a `DataOptions`.
        run_dir: folder in which `bad_images.csv` is written; None: nowhere.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the images are missing or cannot be used; the message
            names the flag to change.
    """
    if not options.labeled_dir:
        raise ValueError(
            "--dataset=folder needs --labeled_dir, a folder with a sub-folder "
            "of images for each class."
        )
    with (
        patience.Watch(_PATIENCE) as watch,
        watch.doing(f"listing the files of {options.labeled_dir}"),
    ):
        options, recognized = image_files.recognized(options)
        class_names, files, notes = image_files.in_folders(options)
    found = class_names, files, [*recognized, *notes]
    given = f"--labeled_dir={options.labeled_dir}"
    return source(name, dataset, found, given, options, run_dir)


def load_csv(name, dataset, options, run_dir=None):
    """Loads the images that `--manifest` names.

    Args:
        name: of the dataset.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
        options: a `DataOptions`.
        run_dir: folder in which `bad_images.csv` is written; None: nowhere.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the images are missing or cannot be used; the message
            names the flag to change, or the line of the manifest.
    """
    if not options.manifest:
        raise ValueError(
            "--dataset=csv needs --manifest, a file with the columns path, "
            "label and split."
        )
    path = pathlib.Path(options.manifest).expanduser()
    with (
        patience.Watch(_PATIENCE) as watch,
        watch.doing(f"looking for the files of {path}"),
    ):
        found = manifest.in_manifest(
            path, options.missing_labels, options.group_by
        )
    given = f"--manifest={options.manifest}"
    return source(name, dataset, found, given, options, run_dir)


@contextlib.contextmanager
def _reading(options):
    """Decodes files; see `source`."""
    with reader(options) as (read, pool):
        yield functools.partial(pool.map, read)


def source(name, dataset, found, given, options, run_dir, *, reading=_reading):
    """Decodes the files and checks the result.

    Args:
        name: of the dataset.
        dataset: its row of the registry.
        found: names of the labels, list of `ImageFile`, and notes.
        given: the flag and its value, for messages on labeled images.
        options: a `DataOptions`.
        run_dir: folder for the list of unusable files, or None.
        reading: context manager of `options`; yields a function of a list of
            `ImageFile` that gives the pixels of each, or why there are none.

    Returns:
        A `Source`.
    """
    class_names, files, notes = found
    # Before all else: it checks `--stored_size`.
    options_lib.stored_size(options, options.image_size)
    if len(class_names) < 2:
        raise ValueError(
            f"{given} has only the class {class_names[0]!r}: at least two are "
            "needed."
        )
    files, divided = image_files.undivided(files)
    notes = [*notes, *divided]
    held_out = ""
    if any(file.split == "test" for file in files):
        if options.test_fraction != options_lib.DataOptions.test_fraction:
            held_out = "--test_fraction is not used: there are test images."
    else:
        files = image_files.hold_out(files, options.test_fraction)
        _check_held_out(files, given, options)
        files, divided = image_files.undivided(files)
        notes += divided
        held_out = (
            f"The test images are {options.test_fraction:.0%} of each class's "
            "labeled images, held out because no others are given."
        )
    cache = _decoded(name, files, options, reading)
    decoded = json.loads((cache / "files.json").read_text())
    left_out = _check_bad(decoded["bad"], len(files), options, run_dir)
    train, test = store.read(cache, ("train", "test"), options.cache_gib)
    validation_rows = np.flatnonzero(np.array(decoded["validation"], bool))
    balance = _check_classes(train, test, validation_rows, class_names, given)
    size = (options.image_size,) * 2 if options.image_size else train.shape[:2]
    weak = "random_crop" if options.stored_size else dataset.weak_policy
    return store.Source(
        info=DatasetInfo(
            name=name,
            class_names=tuple(class_names),
            image_shape=(*size, train.shape[2]),
        ),
        train=train,
        test=test,
        weak_policy=weak,
        strong_policy=dataset.strong_policy,
        description=" ".join(
            filter(None, (balance, held_out, *notes, left_out))
        ),
        validation_rows=validation_rows if len(validation_rows) else None,
        groups=_groups(decoded) if options.group_by else None,
    )


def _groups(decoded):
    """`[N]` integers, equal for training images of one group."""
    return image_files.numbered(decoded["group"])


def _check_held_out(files, given, options):
    """Raises ValueError if no image could be held out for testing."""
    if options.test_fraction and not any(f.split == "test" for f in files):
        raise ValueError(
            f"No class of {given} has more than one labeled image, so that "
            "none can be held out for testing: give --test_dir (csv: rows with "
            "the split test). Validation images are not needed."
        )


def _check_classes(train, test, validation_rows, class_names, given):
    """Checks that every class can be learned and something be tested.

    Returns:
        A description of how many images each class has.

    Raises:
        ValueError: if a class has no labeled image, or there is no test image.
    """
    num_unlabeled, *counts = np.bincount(
        np.delete(train.labels, validation_rows) + 1,
        minlength=len(class_names) + 1,
    )
    counts = np.array(counts)
    empty = [n for n, c in zip(class_names, counts, strict=True) if not c]
    if empty:
        raise ValueError(
            f"{given} has no usable labeled image of "
            f"{image_files.shortened(empty)}: add some, or remove the class."
        )
    if not len(test):
        raise ValueError(
            "No test image is left: give --test_dir (csv: rows with the split "
            "test) or raise --test_fraction."
        )
    return _balance(class_names, counts, num_unlabeled)


# Reading files.


def _decoded(name, files, options, reading):
    """Returns the folder of the decoded files."""
    places = {
        flag: os.path.abspath(os.path.expanduser(getattr(options, flag)))
        for flag in _PLACES
        if getattr(options, flag)
    }
    suffixes = {file.path.suffix.lower() for file in files}
    if suffixes & {".avif", ".heic", ".heif"}:
        # What has been left out can be used when a decoder is there.
        places["formats"] = optional_formats()
    if options.unlabeled_dir:
        _, folders = image_files.unlabeled_folders(options)
        places["unlabeled_dir"] = ",".join(map(os.path.abspath, folders))
    return store.cached(
        options_lib.cache_folder(options),
        name,
        settings={
            **places,
            "image_size": options_lib.stored_size(options, options.image_size),
            "channels": options.channels,
            "test_fraction": options.test_fraction,
            **options_lib.changed(options, "max_value", "group_by", "resize"),
        },
        fingerprint=image_files.fingerprint(files),
        build=lambda folder: _build(folder, files, options, reading),
    )


def _build(folder, files, options, reading):
    """Writes the pixels, and `files.json` on which files are used."""
    notes = {}
    with reading(options) as read:
        for name in ("train", "test"):
            part = [f for f in files if (f.split == "test") == (name == "test")]
            batches = functools.partial(_batches, part, read)
            notes[name] = store.write(folder, name, batches, total=len(part))
    found = {
        "bad": [
            row for name in notes for note in notes[name] for row in note["bad"]
        ],
        "validation": [
            is_validation
            for note in notes["train"]
            for is_validation in note["validation"]
        ],
        "group": [
            name for note in notes["train"] for name in note.get("group", ())
        ],
    }
    (folder / "files.json").write_text(json.dumps(found))


@contextlib.contextmanager
def reader(options):
    """Reads files in several threads, which share one budget of memory.

    Args:
        options: a `DataOptions`.

    Yields:
        `(read, pool)`: a function of an `ImageFile`, and perhaps of its bytes,
        that returns what `_read` does and names a file that takes long, and
        the threads to call it in.
    """
    # A second thread may decode beside one with the largest image.
    budget = Budget(2 * options.max_image_pixels)
    with (
        limits_of_our_own(),
        patience.Watch(_PATIENCE) as watch,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        warnings.catch_warnings(),
    ):
        # Pillow warns about unusual but readable files.
        warnings.simplefilter("ignore")

        def read(file, data=None):
            with watch.doing(f"reading {file.path}"):
                return _read(file, options, budget, data)

        yield read, pool


def _batches(files, read, done):
    """Yields `(images, labels, ids, note)` of the files, in order.

    Args:
        files: list of `ImageFile`.
        read: function of a list of files, see `source`.
        done: batches of 256 files that are left out because they have been
            decoded before.
    """
    first = None
    for start in range(256 * done, len(files), 256):
        chunk = files[start : start + 256]
        images, good, bad = [], [], []
        for file, image in zip(chunk, read(chunk), strict=True):
            if isinstance(image, str):
                bad.append((file.where, image))
                continue
            images.append(image)
            good.append(file)
            first = first or (file, image.shape)
            if image.shape != first[1]:
                raise ValueError(
                    "The images differ in size, so --image_size must be set: "
                    f"{first[0].path} is {first[1][0]}x{first[1][1]}, "
                    f"{file.path} is {image.shape[0]}x{image.shape[1]}."
                )
        yield (
            np.stack(images) if images else None,
            [file.label for file in good],
            [os.fsencode(file.name) for file in good],
            {
                "bad": bad,
                "validation": [file.split == "validation" for file in good],
                "group": [file.group for file in good],
            },
        )


def _read(file, options, budget=None, data=None):
    """Decodes a file as training does.

    Args:
        file: an `ImageFile`.
        options: a `DataOptions`.
        budget: see `decode`.
        data: its bytes; None: they are read.

    Returns:
        `[H, W, C]` uint8 pixels; a string that says why there are none.
    """
    if file.problem:
        return file.problem
    if data is None and not file.path.is_file():
        return "not a file" if file.path.exists() else "no such file"
    try:
        num_bytes = file.path.stat().st_size if data is None else len(data)
        if num_bytes > options.max_image_bytes:
            return (
                f"too large: {num_bytes:,} bytes, more than "
                f"--max_image_bytes={options.max_image_bytes}"
            )
        return decode(
            file.path.read_bytes() if data is None else data,
            options_lib.stored_size(options, options.image_size),
            options.channels or 3,
            max_pixels=options.max_image_pixels,
            resize=options.resize,
            max_value=options.max_value,
            budget=budget,
        )
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except BadImageError as error:
        return str(error)


# Reporting.


def _check_bad(bad, num_files, options, run_dir):
    """Writes the list of unusable files.

    Returns:
        A description of what is left out; empty if nothing is.

    Raises:
        ValueError: if there are too many of them.
    """
    where = ""
    if run_dir is not None:
        path = pathlib.Path(run_dir) / BAD_IMAGES
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = io.StringIO(newline="")
        csv.writer(rows).writerows(
            [
                ("path", "reason"),
                *(map(spelling.for_spreadsheet, row) for row in bad),
            ]
        )
        # File names need not be UTF-8.
        text = rows.getvalue().encode("utf-8", errors="backslashreplace")
        write_bytes(path, text)
        where = f" and listed in {path}"
    if len(bad) <= options.max_bad_fraction * num_files:
        if not bad:
            return ""
        return f"{len(bad)} of {num_files} files are left out{where}."
    examples = "\n".join(f"  {path}: {reason}" for path, reason in bad[:5])
    text = (
        f"{len(bad)} of {num_files} image files cannot be used{where}, more "
        f"than --max_bad_fraction={options.max_bad_fraction:g} allows. The "
        f"first of them:\n{examples}"
    )
    small = sum(reason.startswith("smaller") for _, reason in bad)
    if small:
        flag = "stored_size" if options.stored_size else "image_size"
        text += (
            f"\n{small} of them are smaller than --{flag}="
            f"{getattr(options, flag)}: lower it."
        )
    raise ValueError(text)


def _balance(class_names, counts, num_unlabeled):
    """Describes how many images each class has."""
    if len(class_names) <= 20:
        listing = ", ".join(
            f"{spelling.one_line(name)} {count}"
            for name, count in zip(class_names, counts, strict=True)
        )
        text = f"Images with a label: {listing}."
    else:
        text = (
            f"Images with a label: {counts.min()} to {counts.max()} in a "
            f"class, {np.median(counts):g} in the median."
        )
    ratio = counts.max() / counts.min()
    if ratio >= 1.5:
        text += (
            f" Unbalanced: the largest class has {ratio:.1f} times the images "
            "of the smallest."
        )
    return f"{text} Without a label: {num_unlabeled}."
