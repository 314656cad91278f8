"""Lists the user's image files: in folders, or named by a CSV manifest.

Nothing here opens an image; `tf_metassl.data.folder` decodes the files.
"""

import collections
import csv
import dataclasses
import hashlib
import os
import pathlib

SPLITS = ("train", "validation", "test", "unlabeled")
# What file managers leave behind.
_JUNK = ("desktop.ini", "thumbs.db")


@dataclasses.dataclass(frozen=True)
class ImageFile:
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


def in_folders(options):
    """Lists the files of `--labeled_dir`, `--unlabeled_dir` and so on.

    Args:
        options: a `DataOptions`.

    Returns:
        `(class_names, files)`, files being a list of `ImageFile`.

    Raises:
        ValueError: if a folder is missing or empty, or the folders do not have
            the same classes; the message names the flag to change.
    """
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
                f"only one of them has: {shortened(differing)}."
            )
        files += _class_files(flag, split, class_names, options)
    if options.unlabeled_dir:
        files += _unlabeled_files(files, options)
    return class_names, files


def in_manifest(path):
    """Lists the files that a CSV manifest names.

    Args:
        path: of the manifest, a `pathlib.Path`.

    Returns:
        `(class_names, files)`, files being a list of `ImageFile`, labeled
        images first.

    Raises:
        ValueError: if the manifest cannot be read; the message names the line.
    """
    rows = _manifest_rows(path)
    class_names = _in_order({label for _, label, _ in rows if label})
    index = {name: i for i, name in enumerate(class_names)}
    files = [
        ImageFile(
            path=path.parent / name,
            name=name,
            label=index.get(label, -1),
            split="train" if split == "unlabeled" else split,
        )
        for name, label, split in rows
    ]
    # Labeled images first, so that the order is that of the other sources.
    files.sort(key=lambda file: file.label < 0)
    return class_names, files


def hold_out(files, fraction):
    """Makes some labeled files of each class the test files.

    The choice depends on the names of the files alone, so that it stays the
    same when files are added.

    Args:
        files: a list of `ImageFile`.
        fraction: share of each class; at least one file is chosen unless it is
            0, and at least one is left.

    Returns:
        The list with the new splits.
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


def fingerprint(files):
    """Returns a hash that changes when a file does, or what it is used for.

    Args:
        files: a list of `ImageFile`.
    """
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


def shortened(names):
    """The first five names as text, with an ellipsis if there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _name_hash(file):
    return hashlib.sha256(os.fsencode(file.name)).digest()


# Folders.


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
        ImageFile(path, path.name, -1, split, "not in the folder of a class")
        for path in sorted(folder.iterdir())
        if not path.is_dir() and not _is_junk(path.name)
    ]
    files = [
        ImageFile(path, str(path.relative_to(folder)), label, split)
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
        ImageFile(path, str(path.relative_to(folder)), -1, "train")
        for path in _walk(folder)
        if os.path.realpath(path) not in known
    ]
    if not files:
        raise ValueError(
            f"--unlabeled_dir={folder} holds no images besides those of the "
            "other folders."
        )
    return files


def _folder(flag, options):
    folder = pathlib.Path(getattr(options, flag)).expanduser()
    if not folder.is_dir():
        raise ValueError(f"--{flag}={folder}: no such folder.")
    return folder


def _walk(folder):
    """All files below `folder`, sorted; links are followed."""
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
    """Sorted class names; numbers are sorted by their value."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


# The manifest.


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
    if split not in SPLITS:
        raise ValueError(
            f"{where}: the split {split!r} is none of {', '.join(SPLITS)}."
        )
    if split in ("validation", "test") and not row["label"]:
        raise ValueError(f"{where}: a {split} image needs a label.")
    return row["path"], "" if split == "unlabeled" else row["label"], split
