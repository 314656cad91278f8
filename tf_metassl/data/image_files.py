"""Lists the user's image files: in folders, or named by a CSV manifest.

Nothing here opens an image; `tf_metassl.data.folder` decodes the files.
"""

import collections
import csv
import dataclasses
import hashlib
import os
import pathlib
import unicodedata

SPLITS = ("train", "validation", "test", "unlabeled")
# What file managers and archivers leave behind.
_JUNK = (
    "desktop.ini",
    "thumbs.db",
    "ehthumbs.db",
    "icon\r",
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
)
# Folders that hold a split rather than a class -> the flag for each.
_SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training", "labeled"), "labeled_dir"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation_dir"),
    **dict.fromkeys(("test", "testing"), "test_dir"),
    **dict.fromkeys(("unlabeled", "unlabelled", "extra"), "unlabeled_dir"),
}
# How people write that an image has no label.
_NO_LABEL = (
    *("nan", "none", "null", "nil", "n/a", "na", "-", "-1", "?"),
    *("unlabeled", "unlabelled", "unknown", "no label", "no_label", "nolabel"),
)


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
    files = _class_files(
        "labeled_dir", "train", class_names, class_names, options
    )
    for flag, split in (("validation_dir", "validation"), ("test_dir", "test")):
        if not getattr(options, flag):
            continue
        names = _class_names(flag, options)
        if unknown := sorted(set(names) - set(class_names)):
            raise ValueError(
                f"--{flag}={getattr(options, flag)} has sub-folders that "
                f"--labeled_dir={options.labeled_dir} does not have: "
                f"{shortened(unknown)}. Both must have the same classes."
            )
        files += _class_files(flag, split, names, class_names, options)
    if options.unlabeled_dir:
        files += _unlabeled_files(options)
    files = _once_each(files)
    unlabeled = [file for file in files if file.label < 0 and not file.problem]
    if options.unlabeled_dir and not unlabeled:
        raise ValueError(
            f"--unlabeled_dir={options.unlabeled_dir} holds no images besides "
            "those of the other folders."
        )
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
            path=_existing(path.parent / name),
            name=name,
            label=index.get(label, -1),
            split="train" if split == "unlabeled" else split,
        )
        for name, label, split in rows
    ]
    # Labeled images first, so that the order is that of the other sources.
    files.sort(key=lambda file: file.label < 0)
    return class_names, _once_each(files, f"--manifest={path}: ")


def _once_each(files, where=""):
    """The files without those that are listed a second time.

    The same file may be listed under several names, by links or by folders
    inside each other. Listed twice in the same way, or once with and once
    without its label, it is one image.

    Args:
        files: list of `ImageFile`.
        where: what messages begin with.

    Returns:
        A list in the same order.

    Raises:
        ValueError: if a file has two labels, or is in two splits.
    """
    first: dict[object, ImageFile] = {}
    # Labeled ones first: an image that is also listed without its label stays
    # labeled.
    for file in sorted(files, key=lambda file: file.label < 0):
        try:
            stat = file.path.stat()
        except OSError:
            continue  # Reported when it is read.
        same = first.setdefault((stat.st_dev, stat.st_ino), file)
        if same is file or file.label < 0 or file.problem:
            continue
        if same.label != file.label and same.label >= 0:
            what = "has two labels"
        elif same.split != file.split:
            what = f"is a {same.split} and a {file.split} image"
        else:
            continue
        raise ValueError(
            f"{where}The same image file {what}: {same.path} and {file.path}. "
            "Remove one of them, or the link to it."
        )
    kept = {id(file) for file in first.values()}
    return [file for file in files if id(file) in kept or not _exists(file)]


def _exists(file):
    try:
        file.path.stat()
    except OSError:
        return False
    return True


def _existing(path):
    """The path in the form of Unicode in which the file system has it."""
    if not os.path.lexists(path):
        for form in ("NFC", "NFD"):
            other = pathlib.Path(unicodedata.normalize(form, str(path)))
            if os.path.lexists(other):
                return other
    return path


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
            # The last one changes with every write; nobody can set it back.
            state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
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


def _class_folders(folder):
    """Class name -> the sub-folders of that name, which are sorted.

    Two folders are of one class if their names differ in the form of Unicode
    only.
    """
    found = collections.defaultdict(list)
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not _is_junk(entry.name):
            found[_text(entry.name)].append(entry)
    return found


def _text(name):
    r"""A name as text that can be compared and written.

    Names of files are bytes: those that are no UTF-8 are shown as `\xff`.
    """
    name = os.fsencode(name).decode("utf-8", errors="backslashreplace")
    return unicodedata.normalize("NFC", name)


def _class_names(flag, options):
    """Names of the sub-folders of a folder with classes."""
    folder = _folder(flag, options)
    names = list(_class_folders(folder))
    splits = [name for name in names if name.lower() in _SPLIT_FOLDERS]
    if flag == "labeled_dir" and len(splits) >= 2 and splits == names:
        given = " ".join(
            f"--{_SPLIT_FOLDERS[name.lower()]}={folder / name}"
            for name in names
        )
        raise ValueError(
            f"--labeled_dir={folder} holds the folders {', '.join(names)}, "
            f"which are splits rather than classes. Give {given}"
        )
    if not names:
        raise ValueError(
            f"--{flag}={folder} has no sub-folders: one for each class is "
            "expected."
        )
    return _in_order(names)


def _class_files(flag, split, names, class_names, options):
    """Files of a folder with classes, of which it has those in `names`."""
    folder = _folder(flag, options)
    folders = _class_folders(folder)
    loose = [
        ImageFile(path, path.name, -1, split, "not in the folder of a class")
        for path in sorted(folder.iterdir())
        if not path.is_dir() and not _is_junk(path.name)
    ]
    files = [
        ImageFile(path, str(path.relative_to(folder)), label, split)
        for label, name in enumerate(class_names)
        if name in names
        for inside in folders[name]
        for path in _walk(inside)
    ]
    if not files:
        raise ValueError(f"--{flag}={folder} holds no images.")
    return files + loose


def _unlabeled_files(options):
    """Files of `--unlabeled_dir`."""
    folder = _folder("unlabeled_dir", options)
    return [
        ImageFile(path, str(path.relative_to(folder)), -1, "train")
        for path in _walk(folder)
    ]


def _folder(flag, options):
    folder = pathlib.Path(getattr(options, flag)).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"--{flag}={folder}: no such folder. If the images of a run have "
            f"moved, resume it with --{flag}=NEW_FOLDER and "
            f"--allow_changed={flag}."
        )
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
        raise ValueError(
            f"{flag}: no such file. If the images of a run have moved, resume "
            "it with --manifest=NEW_FILE and --allow_changed=manifest."
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval=_MISSING)
            _check_columns(flag, reader.fieldnames or ())
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
    doubtful = collections.Counter(
        label for _, label, _ in rows if label.lower() in _NO_LABEL
    )
    if doubtful:
        counts = ", ".join(f"{k!r} ({n} rows)" for k, n in doubtful.items())
        raise ValueError(
            f"{flag} has labels that usually mean that there is none: "
            f"{counts}. Leave the label of such images empty. If it is a "
            "class, give it another name."
        )
    return rows


# What a row has in the columns that it lacks.
_MISSING = "\0"


def _check_columns(flag, names):
    """Raises ValueError unless the first line names the columns."""
    lacking = sorted({"path", "label"} - set(names))
    if not lacking:
        return
    text = (
        f"{flag} has no column {' or '.join(lacking)}: its first line must be "
        "path,label,split."
    )
    if len(names) == 1:
        for delimiter in (";", "\t", "|"):
            if delimiter in names[0]:
                text += (
                    f" It is {names[0]!r}: separate the columns by commas, not "
                    f"by {delimiter!r}."
                )
    raise ValueError(text)


def _manifest_row(row, where):
    if None in row:
        raise ValueError(f"{where}: more columns than the first line has.")
    if lacking := [name for name, text in row.items() if text == _MISSING]:
        raise ValueError(f"{where}: nothing in the column {lacking[0]}.")
    row = {name: text.strip() for name, text in row.items()}
    row["label"] = unicodedata.normalize("NFC", row["label"])
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
