"""The user's own images: folders with a sub-folder per class, or a CSV file.

Every file is decoded before training starts. What cannot be used is listed in
`bad_images.csv` with the reason, and left out.
"""

import collections
import concurrent.futures
import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import warnings

import numpy as np

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import options as options_lib
from tf_metassl.data import store
from tf_metassl.data.decode import BadImageError, decode

BAD_IMAGES = "bad_images.csv"

_PLACES = (
    "labeled_dir",
    "unlabeled_dir",
    "validation_dir",
    "test_dir",
    "manifest",
)
_SPLITS = ("train", "validation", "test", "unlabeled")
# What file managers leave behind.
_JUNK = ("desktop.ini", "thumbs.db")


@dataclasses.dataclass(frozen=True)
class _File:
    """A file that should be an image.

    Attributes:
        path: where it is.
        name: what it is called in lists of images: its path below the folder
            that was given, or in the manifest.
        label: index of its class, -1 if it has none.
        split: `train`, `validation` or `test`.
        problem: why it cannot be used; empty if that is not known yet.
    """

    path: pathlib.Path
    name: str
    label: int
    split: str
    problem: str = ""


def load_folder(options, run_dir=None):
    """Loads `--labeled_dir`, `--unlabeled_dir` and so on.

    Args:
        options: a `DataOptions`.
        run_dir: folder in which `bad_images.csv` is written; None: nowhere.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the images are not there or cannot be used; the message
            names the flag to change.
    """
    if not options.labeled_dir:
        raise ValueError(
            "--dataset=folder needs --labeled_dir, a folder with a sub-folder "
            "of images for each class."
        )
    class_names = _class_names("labeled_dir", options)
    files = _class_files("labeled_dir", "train", class_names, options)
    for flag, split in (("validation_dir", "validation"), ("test_dir", "test")):
        if not getattr(options, flag):
            continue
        names = _class_names(flag, options)
        if names != class_names:
            differing = sorted(set(names) ^ set(class_names))
            raise ValueError(
                f"--{flag}={getattr(options, flag)} and --labeled_dir="
                f"{options.labeled_dir} must have the same sub-folders, but "
                f"only one of them has: {_shortened(differing)}."
            )
        files += _class_files(flag, split, class_names, options)
    if options.unlabeled_dir:
        files += _unlabeled_files(files, options)
    return _source(
        "folder", files, class_names, "labeled_dir", options, run_dir
    )


def load_csv(options, run_dir=None):
    """Loads the images that `--manifest` names.

    Args:
        options: a `DataOptions`.
        run_dir: folder in which `bad_images.csv` is written; None: nowhere.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the images are not there or cannot be used; the message
            names the flag to change, or the line of the manifest.
    """
    if not options.manifest:
        raise ValueError(
            "--dataset=csv needs --manifest, a file with the columns path, "
            "label and split."
        )
    path = pathlib.Path(options.manifest).expanduser()
    rows = _manifest_rows(path)
    class_names = _in_order({label for _, label, _ in rows if label})
    index = {name: i for i, name in enumerate(class_names)}
    files = [
        _File(
            path=path.parent / name,
            name=name,
            label=index.get(label, -1),
            split="train" if split == "unlabeled" else split,
        )
        for name, label, split in rows
    ]
    # Labeled images first, so that the order is that of the other sources.
    files.sort(key=lambda file: file.label < 0)
    return _source("csv", files, class_names, "manifest", options, run_dir)


# Listing files.


def _class_names(flag, options):
    """Names of the sub-folders of a folder with classes."""
    folder = _folder(flag, options)
    names = [
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not _is_junk(entry.name)
    ]
    if not names:
        raise ValueError(
            f"--{flag}={folder} has no sub-folders: one for each class is "
            "expected."
        )
    return _in_order(names)


def _class_files(flag, split, class_names, options):
    """Files of a folder with classes."""
    folder = _folder(flag, options)
    loose = [
        _File(path, path.name, -1, split, "not in the folder of a class")
        for path in sorted(folder.iterdir())
        if not path.is_dir() and not _is_junk(path.name)
    ]
    files = [
        _File(path, str(path.relative_to(folder)), label, split)
        for label, name in enumerate(class_names)
        for path in _walk(folder / name)
    ]
    if not files:
        raise ValueError(f"--{flag}={folder} holds no images.")
    return files + loose


def _unlabeled_files(others, options):
    """Files of `--unlabeled_dir` that are not among the others."""
    folder = _folder("unlabeled_dir", options)
    known = {os.path.realpath(file.path) for file in others}
    files = [
        _File(path, str(path.relative_to(folder)), -1, "train")
        for path in _walk(folder)
        if os.path.realpath(path) not in known
    ]
    if not files:
        raise ValueError(
            f"--unlabeled_dir={folder} holds no images beside those of the "
            "other folders."
        )
    return files


def _manifest_rows(path):
    """`(path, label, split)` of every line, all strings; label may be empty."""
    flag = f"--manifest={path}"
    if not path.is_file():
        raise ValueError(f"{flag}: no such file.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lacking = {"path", "label"} - set(reader.fieldnames or ())
            if lacking:
                raise ValueError(
                    f"{flag} has no column {' or '.join(sorted(lacking))}: its "
                    "first line must be path,label,split."
                )
            rows = [
                _manifest_row(row, f"{flag}, line {reader.line_num}")
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{flag} is not a CSV file in UTF-8: {error}"
        ) from error
    if not any(label for _, label, _ in rows):
        raise ValueError(f"{flag} has no image with a label.")
    return rows


def _manifest_row(row, where):
    if None in row:
        raise ValueError(f"{where}: more columns than the first line has.")
    row = {name: (text or "").strip() for name, text in row.items()}
    split = row.get("split") or "train"
    if not row["path"]:
        raise ValueError(f"{where}: the path is empty.")
    if split not in _SPLITS:
        raise ValueError(
            f"{where}: the split {split!r} is none of {', '.join(_SPLITS)}."
        )
    if split in ("validation", "test") and not row["label"]:
        raise ValueError(f"{where}: a {split} image needs a label.")
    return row["path"], "" if split == "unlabeled" else row["label"], split


def _folder(flag, options):
    folder = pathlib.Path(getattr(options, flag)).expanduser()
    if not folder.is_dir():
        raise ValueError(f"--{flag}={folder}: no such folder.")
    return folder


def _walk(folder):
    """All files below `folder`, sorted, links followed."""
    seen = set()
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [
            name
            for name in folders
            if not _is_junk(name)
            and os.path.realpath(os.path.join(parent, name)) not in seen
        ]
        paths += [
            pathlib.Path(parent, name) for name in names if not _is_junk(name)
        ]
    return sorted(paths)


def _is_junk(name):
    return name.startswith(".") or name.lower() in _JUNK


def _in_order(names):
    """Sorted class names; numbers by their value."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _shortened(names):
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


# Reading files.


def _source(name, files, class_names, flag, options, run_dir):
    """Decodes the files and checks what came of it.

    Args:
        name: of the dataset.
        files: list of `_File`.
        class_names: names of the labels.
        flag: the flag to name when labeled images are missing.
        options: a `DataOptions`.
        run_dir: folder for the list of unusable files, or None.

    Returns:
        A `Source`.
    """
    given = f"--{flag}={getattr(options, flag)}"
    size = (options.image_size,) * 2 if options.image_size else None
    options_lib.stored_size(options, options.image_size)  # Before all else.
    if len(class_names) < 2:
        raise ValueError(
            f"{given} has only the class {class_names[0]!r}: at least two are "
            "needed."
        )
    held_out = ""
    if not any(file.split == "test" for file in files):
        files = _hold_out(files, options.test_fraction)
        held_out = (
            f"The test images are {options.test_fraction:.0%} of each class's "
            "labeled images, held out, as no others are given."
        )
    cache = _decoded(name, files, options)
    found = json.loads((cache / "files.json").read_text())
    left_out = _check_bad(found["bad"], len(files), options, run_dir)
    train, test = store.read(cache, ("train", "test"), options.cache_gib)
    validation_rows = np.flatnonzero(np.array(found["validation"], bool))
    num_unlabeled, *counts = np.bincount(
        np.delete(train.labels, validation_rows) + 1,
        minlength=len(class_names) + 1,
    )
    empty = [n for n, c in zip(class_names, counts, strict=True) if not c]
    if empty:
        raise ValueError(
            f"{given} has no usable labeled image of {_shortened(empty)}: add "
            "some, or remove the class."
        )
    if not len(test):
        raise ValueError(
            "No test image is left: give --test_dir (csv: rows with the split "
            "test) or raise --test_fraction."
        )
    notes = (
        _balance(class_names, np.array(counts), num_unlabeled),
        held_out,
        left_out,
    )
    return store.Source(
        info=DatasetInfo(
            name=name,
            class_names=tuple(class_names),
            image_shape=(*(size or train.shape[:2]), train.shape[2]),
        ),
        train=train,
        test=test,
        weak_policy="random_crop" if options.stored_size else "flip_crop",
        strong_policy="fixmatch",
        description=" ".join(filter(None, notes)),
        validation_rows=validation_rows if len(validation_rows) else None,
    )


def _hold_out(files, fraction):
    """Makes some labeled files of each class the test files.

    Which ones depends on their names alone, so that they stay the same when
    files are added.
    """
    by_class = collections.defaultdict(list)
    for file in files:
        if file.label >= 0 and file.split == "train":
            by_class[file.label].append(file)
    chosen = set()
    for members in by_class.values():
        members.sort(key=_name_hash)
        wanted = round(fraction * len(members))
        if fraction:
            wanted = max(wanted, 1)
        chosen.update(members[: min(wanted, len(members) - 1)])
    return [
        dataclasses.replace(file, split="test") if file in chosen else file
        for file in files
    ]


def _decoded(name, files, options):
    """The folder of the decoded files."""
    places = {
        flag: os.path.abspath(os.path.expanduser(getattr(options, flag)))
        for flag in _PLACES
        if getattr(options, flag)
    }
    return store.cached(
        options_lib.cache_folder(options),
        name,
        settings={
            **places,
            "image_size": options_lib.stored_size(options, options.image_size),
            "channels": options.channels,
            "test_fraction": options.test_fraction,
        },
        fingerprint=_fingerprint(files),
        build=lambda folder: _build(folder, files, options),
    )


def _name_hash(file):
    return hashlib.sha256(os.fsencode(file.name)).digest()


def _fingerprint(files):
    """Changes when a file does, or what it is used for."""
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = file.path.stat()
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = None
        text = repr((file.label, file.split, file.problem, state))
        digest.update(os.fsencode(file.name) + b"\0" + text.encode())
    return digest.hexdigest()


def _build(folder, files, options):
    """Writes the pixels, and `files.json` on what became of the files."""
    bad, used = [], []
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        warnings.catch_warnings(),
    ):
        # Pillow warns of odd but readable files.
        warnings.simplefilter("ignore")
        for name in ("train", "test"):
            part = [f for f in files if (f.split == "test") == (name == "test")]
            store.write(folder, name, _batches(part, options, pool, bad, used))
    found = {
        "bad": bad,
        "validation": [
            file.split == "validation"
            for file, _ in used
            if file.split != "test"
        ],
    }
    (folder / "files.json").write_text(json.dumps(found))


def _batches(files, options, pool, bad, used):
    """Yields `(images, labels, ids)` of the usable files, in order.

    Appends `(path, reason)` of the others to `bad`, and `(file, shape)` of the
    usable ones to `used`.
    """

    def read(file):
        return _read(file, options)

    for start in range(0, len(files), 256):
        chunk = files[start : start + 256]
        images, good = [], []
        for file, image in zip(chunk, pool.map(read, chunk), strict=True):
            if isinstance(image, str):
                bad.append((str(file.path), image))
                continue
            images.append(image)
            good.append(file)
            used.append((file, image.shape))
            first, shape = used[0]
            if image.shape != shape:
                raise ValueError(
                    "The images differ in size, so --image_size must be set: "
                    f"{first.path} is {shape[0]}x{shape[1]}, {file.path} is "
                    f"{image.shape[0]}x{image.shape[1]}."
                )
        if good:
            yield (
                np.stack(images),
                [file.label for file in good],
                [os.fsencode(file.name) for file in good],
            )


def _read(file, options):
    """The pixels of a file, or a string: why there are none."""
    if file.problem:
        return file.problem
    if not file.path.is_file():
        return "not a file" if file.path.exists() else "no such file"
    try:
        data = file.path.read_bytes()
        size = options_lib.stored_size(options, options.image_size)
        return decode(data, size, options.channels or 3)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except BadImageError as error:
        return str(error)


# Telling about files.


def _check_bad(bad, num_files, options, run_dir):
    """Lists the unusable files.

    Returns:
        What there is to say about them.

    Raises:
        ValueError: if there are too many.
    """
    where = ""
    if run_dir is not None:
        path = pathlib.Path(run_dir) / BAD_IMAGES
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files need not be UTF-8.
        with path.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file:
            csv.writer(file).writerows([("path", "reason"), *bad])
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
    """Says how many images each class has."""
    if len(class_names) <= 20:
        listing = ", ".join(
            f"{name} {count}"
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
