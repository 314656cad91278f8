"""Lists the user's image files in folders.

Nothing here opens an image; `tf_metassl.data.folder` decodes the files, and
`tf_metassl.data.manifest` lists those of a CSV file.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib

from tf_metassl.data import identity, spelling

SPLITS = ("train", "validation", "test", "unlabeled")

_FLAGS = {
    "train": "labeled_dir",
    "validation": "validation_dir",
    "test": "test_dir",
    "unlabeled": "unlabeled_dir",
}


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
        line: of the manifest; 0 if it was found in a folder.
    """

    path: pathlib.Path
    name: str
    label: int
    split: str
    problem: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """Where the user finds it: a path, or a line of the manifest."""
        return f"line {self.line}: {self.name}" if self.line else str(self.path)


def in_folders(options):
    """Lists the files of `--labeled_dir`, `--unlabeled_dir` and so on.

    Args:
        options: a `DataOptions`.

    Returns:
        `(class_names, files, notes)`: files are a list of `ImageFile`, and
        notes sentences for the user.

    Raises:
        ValueError: if a folder is missing or empty, has a class that
            `--labeled_dir` has not, or contradicts another one; the message
            names the flag to change.
    """
    classes = _classes("labeled_dir", options)
    without_label = _without_label(classes, options)
    class_names = tuple(classes)
    files = _class_files("labeled_dir", "train", class_names, classes, options)
    for split in ("validation", "test"):
        flag = _FLAGS[split]
        if not getattr(options, flag):
            continue
        found = _classes(flag, options)
        if unknown := [name for name in found if name not in classes]:
            raise ValueError(
                f"--{flag}={getattr(options, flag)} has sub-folders of classes "
                f"that --labeled_dir={options.labeled_dir} has not: "
                f"{shortened(unknown)}. Rename them, or remove them."
            )
        files += _class_files(flag, split, class_names, found, options)
    unlabeled = _unlabeled_files(without_label, options)
    files, notes = identity.merged(files + unlabeled, class_names)
    left = {id(file) for file in files}
    if options.unlabeled_dir and not any(id(f) in left for f in unlabeled):
        raise ValueError(
            f"--unlabeled_dir={options.unlabeled_dir} holds no images besides "
            "those of the other folders."
        )
    return list(class_names), files, notes


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
    shown = ", ".join(map(spelling.one_line, names[:5]))
    return shown + (", ..." if len(names) > 5 else "")


def _name_hash(file):
    return hashlib.sha256(os.fsencode(file.name)).digest()


# Folders.


def _classes(flag, options):
    """The sub-folders of a folder with classes: class -> name of its folder.

    Raises:
        ValueError: if there are none, if two have the same name in different
            Unicode forms, or if they are splits, not classes.
    """
    folder = _folder(flag, options)
    names = [
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not spelling.is_litter(entry.name)
    ]
    if not names:
        raise ValueError(
            f"--{flag}={folder} has no sub-folders: one for each class is "
            "expected."
        )
    if flags := _flags_of_splits(folder, names):
        raise ValueError(
            f"--{flag}={folder} has sub-folders that are splits, not classes: "
            f"{shortened(sorted(names))}. Give {' '.join(flags)}"
        )
    classes = in_order(names)
    if len(classes) < len(names):
        twice = sorted(set(names) - set(classes.values()))
        raise ValueError(
            f"--{flag}={folder} has several sub-folders of the same name, "
            f"which differ in their Unicode form: {shortened(twice)}. Put all "
            "images into one of them."
        )
    return classes


def _flags_of_splits(folder, names):
    """The flags for a folder whose sub-folders are splits.

    Args:
        folder: its path.
        names: of the sub-folders.

    Returns:
        A list such as `--labeled_dir=photos/train`; empty if the sub-folders
        may be classes. `train` alone is a vehicle, for example.
    """
    found = {}
    for name in sorted(names):
        if split := spelling.split(name):
            found.setdefault(split, folder / name)
    for split, path in found.items():
        if split != "unlabeled" and not any(p.is_dir() for p in path.iterdir()):
            return []
    if len(found) < min(2, len(names)):
        return []
    return [
        f"--{flag}={found[split]}"
        for split, flag in _FLAGS.items()
        if split in found
    ]


def _without_label(classes, options):
    """Removes folders such as `unlabeled` from the classes.

    Returns:
        The paths of these folders.

    Raises:
        ValueError: if `--missing_labels` does not say what they are.
    """
    names = [name for name in classes if spelling.split(name) == "unlabeled"]
    if not names or options.missing_labels == "class":
        return []
    folder = _folder("labeled_dir", options)
    if options.missing_labels == "refuse":
        raise ValueError(
            f"--labeled_dir={folder} has the sub-folder {names[0]}, whose name "
            "says that its images have no label. Give another folder with "
            "--unlabeled_dir, or set --missing_labels=unlabeled to use these "
            "images without labels; --missing_labels=class if it is a class."
        )
    return [folder / classes.pop(name) for name in names]


def _class_files(flag, split, class_names, folders, options):
    """Files of a folder with classes.

    Args:
        flag: that names the folder.
        split: of its images.
        class_names: names of the labels.
        folders: class -> name of its folder; a class may be missing.
        options: a `DataOptions`.
    """
    folder = _folder(flag, options)
    loose = [
        ImageFile(path, path.name, -1, split, "not in the folder of a class")
        for path in sorted(folder.iterdir())
        if not path.is_dir() and not spelling.is_litter(path.name)
    ]
    files = [
        ImageFile(path, str(path.relative_to(folder)), label, split)
        for label, name in enumerate(class_names)
        if name in folders
        for path in walk(folder / folders[name])
    ]
    if not files:
        raise ValueError(f"--{flag}={folder} holds no images.")
    return files + loose


def _unlabeled_files(more, options):
    """Files of `--unlabeled_dir` and of the folders `more`."""
    folders = [(folder.parent, folder) for folder in more]
    if options.unlabeled_dir:
        folder = _folder("unlabeled_dir", options)
        folders.append((folder, folder))
    return [
        ImageFile(path, str(path.relative_to(base)), -1, "train")
        for base, folder in folders
        for path in walk(folder)
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


def walk(folder):
    """All files below `folder`, sorted; links are followed."""
    seen = set()
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [
            name
            for name in folders
            if not spelling.is_litter(name)
            and os.path.realpath(os.path.join(parent, name)) not in seen
        ]
        paths += [
            pathlib.Path(parent, name)
            for name in names
            if not spelling.is_litter(name)
        ]
    return sorted(paths)


def in_order(names):
    """The classes in the order of their labels.

    Args:
        names: of the classes, as they were found.

    Returns:
        Dict from the name that is shown to a name that was found. Numbers are
        sorted by their value, other names as they were found.
    """
    numbers = all(name.isdecimal() for name in names)
    result = {}
    for name in sorted(names, key=lambda n: (int(n) if numbers else 0, n)):
        result.setdefault(spelling.text(name), name)
    return result
