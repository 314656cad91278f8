"""Reads the CSV manifest of the user's own images."""

import collections
import csv
import os
import pathlib
from typing import NamedTuple

from tf_metassl.data import identity, spelling
from tf_metassl.data.image_files import SPLITS, ImageFile, in_order

_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class _Row(NamedTuple):
    """A line of the manifest; the label is empty if there is none."""

    path: str
    label: str
    split: str
    line: int
    group: str = ""


def in_manifest(path, missing_labels="refuse", group_by=""):
    """Lists the files that a CSV manifest names.

    Args:
        path: of the manifest, a `pathlib.Path`.
        missing_labels: what labels such as `nan` mean, see `--missing_labels`.
        group_by: the column that names groups, see `--group_by`; empty: none.

    Returns:
        `(class_names, files, notes)`: files are a list of `ImageFile`, labeled
        images first, and notes sentences for the user.

    Raises:
        ValueError: if the manifest cannot be read or contradicts itself; the
            message names the line.
    """
    rows = [
        row
        for row in _rows(path, group_by)
        if not _is_litter(pathlib.PurePath(row.path))
    ]
    rows = _without_missing_labels(rows, missing_labels, f"--manifest={path}")
    if not any(row.label for row in rows):
        raise ValueError(f"--manifest={path} has no image with a label.")
    classes = in_order({row.label for row in rows if row.label})
    index = {name: i for i, name in enumerate(classes)}
    files = [
        ImageFile(
            path=_existing(path.parent / row.path),
            name=row.path,
            label=index[spelling.text(row.label)] if row.label else -1,
            split="train" if row.split == "unlabeled" else row.split,
            line=row.line,
            group=row.group,
        )
        for row in rows
    ]
    # Labeled images first, so that the order is that of the other sources.
    files.sort(key=lambda file: file.label < 0)
    files, notes = identity.merged(files, tuple(classes))
    return list(classes), files, notes


def _rows(path, group_by):
    """Every line of the manifest as a `_Row`."""
    flag = f"--manifest={path}"
    if not path.is_file():
        raise ValueError(
            f"{flag}: no such file. If the images of a run have moved, resume "
            "it with --manifest=NEW_FILE and --allow_changed=manifest."
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = _columns(reader.fieldnames or (), flag)
            column = _group_column(reader.fieldnames, group_by, flag)
            return [_row(row, flag, reader.line_num, column) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{flag} is not a CSV file in UTF-8: {error}"
        ) from error


def _columns(names, flag):
    """The names of the columns without blanks and in lower case.

    Raises:
        ValueError: if one is missing or there twice, or they are not separated
            by commas.
    """
    columns = [name.strip().casefold() for name in names]
    wanted = "its first line must be path,label,split"
    for delimiter, plural in _DELIMITERS.items():
        if len(columns) == 1 and "path" in columns[0].split(delimiter):
            raise ValueError(
                f"{flag} is separated by {plural}: {wanted}, with commas, not "
                f"{names[0]!r}. Save it with commas."
            )
    lacking = sorted({"path", "label"} - set(columns))
    if lacking:
        given = ",".join(names)
        raise ValueError(
            f"{flag} has no column {' or '.join(lacking)}: {wanted}; it is "
            + (f"{given[:200]!r}." if given else "empty.")
        )
    for name in ("path", "label", "split"):
        if columns.count(name) > 1:
            raise ValueError(f"{flag} has several columns {name}: keep one.")
    return columns


def _group_column(columns, group_by, flag):
    """The function of a row that tells its group.

    Args:
        columns: names of the columns, in lower case.
        group_by: see `--group_by`.
        flag: the manifest, for messages.

    Raises:
        ValueError: if there is no such column, or several.
    """
    name = group_by.strip().casefold()
    if columns.count(name) > 1:
        raise ValueError(f"{flag} has several columns {name}: keep one.")
    if name in columns:
        return lambda row: row[name]
    if name == "parent":
        return lambda row: pathlib.PurePath(row["path"]).parent.as_posix()
    if name:
        raise ValueError(
            f"--group_by={group_by}: {flag} has no such column; it has "
            f"{', '.join(columns)}. parent stands for the folder of the path."
        )
    return lambda row: ""


def _row(row, flag, line, group):
    where = f"{flag}, line {line}"
    if None in row:
        raise ValueError(f"{where}: more columns than the first line has.")
    row = {name: (text or "").strip() for name, text in row.items()}
    split = spelling.split(row.get("split") or "train")
    if not row["path"]:
        raise ValueError(f"{where}: the path is empty.")
    if "\0" in row["path"]:
        raise ValueError(f"{where}: the path has a NUL character in it.")
    if split not in SPLITS:
        raise ValueError(
            f"{where}: the split {row['split']!r} is none of "
            f"{', '.join(SPLITS)}."
        )
    label = "" if split == "unlabeled" else row["label"]
    if split in ("validation", "test") and not label:
        raise ValueError(f"{where}: a {split} image needs a label.")
    return _Row(row["path"], label, split, line, group(row))


def _is_litter(path):
    """Whether a file manager made the file, not the user."""
    hidden = path.name.startswith("._") or path.name == ".DS_Store"
    return hidden or any(
        spelling.is_litter(part) and not part.startswith(".")
        for part in path.parts
    )


def _without_missing_labels(rows, missing_labels, flag):
    """Replaces labels such as `nan`, if `--missing_labels` says so.

    Raises:
        ValueError: if it does not say what they mean, or if an image for
            validation or testing has none.
    """
    counts = collections.Counter(
        row.label for row in rows if spelling.is_no_label(row.label)
    )
    if not counts or missing_labels == "class":
        return rows
    listed = ", ".join(f"{n} {name!r}" for name, n in counts.most_common(5))
    if missing_labels == "refuse":
        raise ValueError(
            f"{flag} has {counts.total()} row(s) whose label usually means "
            f"that there is none: {listed}. Set --missing_labels=unlabeled if "
            "these images have no label, or --missing_labels=class if that is "
            "the name of a class."
        )
    result = []
    for row in rows:
        if spelling.is_no_label(row.label):
            if row.split in ("validation", "test"):
                raise ValueError(
                    f"{flag}, line {row.line}: a {row.split} image needs a "
                    f"label, not {row.label!r}."
                )
            row = row._replace(label="")
        result.append(row)
    return result


def _existing(path):
    """The path, in the Unicode form that the file system has it in."""
    if os.path.lexists(path):
        return path
    current = pathlib.Path(path.anchor)
    for part in path.parts[len(current.parts) :]:
        candidates = [current / form for form in spelling.forms(part)]
        current = next(filter(os.path.lexists, candidates), candidates[0])
    return current
