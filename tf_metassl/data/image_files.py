"""Lists the user's image files in folders.

Nothing here opens an image; `tf_metassl.data.folder` decodes the files, and
`tf_metassl.data.manifest` lists those of a CSV file.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib

import numpy as np

from tf_metassl.data import groups, identity, spelling

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
        group: of images that belong together; empty: it stands alone.
        record: its number in a file of many; -1: the file is the image.
    """

    path: pathlib.Path
    name: str
    label: int
    split: str
    problem: str = ""
    line: int = 0
    group: str = ""
    record: int = -1

    @property
    def where(self) -> str:
        """Its path, and its number in a file of many."""
        number = f":{self.record}" if self.record >= 0 else ""
        return f"{self.path}{number}"

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
    if options.group_by not in ("", "parent"):
        raise ValueError(
            f"--group_by={options.group_by}: folders have the groups parent; "
            "other names are columns of --manifest."
        )
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


def recognized(options):
    """Finds the splits in a `--labeled_dir` that contains all of them.

    Args:
        options: a `DataOptions`, or anything with its fields.

    Returns:
        `(options, notes)`: with a flag for each split, and a sentence about
        them. Both are unchanged and empty if the sub-folders may be classes.

    Raises:
        ValueError: if it is not clear what is meant.
    """
    folder = pathlib.Path(options.labeled_dir).expanduser()
    if not options.labeled_dir or not folder.is_dir():
        return options, []
    names = _sub_folders(folder)
    found = _names_of_splits(folder, names)
    if not found:
        return options, []
    known = [name for own in found.values() for name in own]
    why = [
        f"{' and '.join(own)} mean the same split"
        for own in found.values()
        if len(own) > 1
    ]
    if others := sorted(set(names) - set(known)):
        why.append(f"{shortened(others)} are none")
    if "train" not in found:
        why.append("none of them is for training")
    why += [
        f"--{_FLAGS[split]} is given, too"
        for split in found
        if split != "train" and getattr(options, _FLAGS[split])
    ]
    if why:
        raise ValueError(
            f"--labeled_dir={folder} has sub-folders that are splits, not "
            f"classes, but {'; '.join(why)}. Say what is meant: "
            f"{' '.join(_flags_of_splits(folder, found))}"
        )
    places = {
        _FLAGS[split]: str(folder / own[0]) for split, own in found.items()
    }
    roles = {"train": "labeled"}
    text = ", ".join(
        f"{own[0]} ({roles.get(split, split)} images)"
        for split, own in found.items()
    )
    note = f"{folder} has a sub-folder for each split: {text}."
    return dataclasses.replace(options, **places), [note]


def unlabeled_folders(options):
    """The folders of `--unlabeled_dir`.

    Args:
        options: a `DataOptions`, or anything with its fields.

    Returns:
        `(base, folders)`: the names of images are relative to `base`.

    Raises:
        ValueError: if one does not exist.
    """
    given = options.unlabeled_dir
    parts = [given]
    # A comma may be part of a name.
    if not pathlib.Path(given).expanduser().is_dir():
        parts = list(filter(None, map(str.strip, given.split(","))))
    folders = [pathlib.Path(part).expanduser() for part in parts]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                _no_such_folder("unlabeled_dir", folder)
                + " Several folders are separated by commas."
            )
    if len(folders) < 2:
        return folders[0], folders
    # As two of them may have a file of the same name.
    base = pathlib.Path(os.path.commonpath([f.absolute() for f in folders]))
    return base, [folder.absolute() for folder in folders]


def hold_out(files, fraction):
    """Makes some labeled files of each class the test files.

    The choice depends on the names of the files alone, so that it stays the
    same when files are added. If some belong to groups, whole groups are
    chosen, in about these numbers.

    Args:
        files: a list of `ImageFile`.
        fraction: share of each class; at least one file is chosen unless it is
            0, and at least one is left.

    Returns:
        The list with the new splits.

    Raises:
        ValueError: if whole groups come to far more or fewer files.
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
    if chosen and any(file.group for file in files):
        chosen = _whole_groups(files, chosen)
    return [
        dataclasses.replace(file, split="test") if file in chosen else file
        for file in files
    ]


def _whole_groups(files, wanted):
    """The labeled files for training of whole groups, about as many as wanted.

    Args:
        files: a list of `ImageFile`.
        wanted: set of those that would be chosen one by one.
    """
    able = [f for f in files if f.label >= 0 and f.split == "train"]
    numbers = numbered([file.group for file in able])
    labels = np.array([file.label for file in able])
    names = {}
    for number, file in zip(numbers, able, strict=True):
        names[int(number)] = file.group or file.name
    order = sorted(
        names,
        key=lambda n: hashlib.sha256(os.fsencode(names[n])).digest(),
    )
    inside = groups.choose(
        numbers,
        labels,
        np.bincount([f.label for f in wanted], minlength=labels.max() + 1),
        np.array(order),
    )
    groups.check_share(
        int(inside.sum()),
        len(wanted),
        "test",
        "Change --test_fraction, or give the test images: --test_dir, or csv: "
        "rows with the split test.",
    )
    return {file for file, i in zip(able, inside, strict=True) if i}


def numbered(names):
    """`[N]` integers, equal for equal names; the empty name is none.

    Args:
        names: of groups, a list.
    """
    numbers = {}
    found = [
        numbers.setdefault(name or row, len(numbers))
        for row, name in enumerate(names)
    ]
    return np.array(found, np.int64)


def undivided(files):
    """Checks that the splits that were given do not divide a group.

    Args:
        files: a list of `ImageFile`.

    Returns:
        `(files, notes)`: without the unlabeled images of groups that validation
        or test images belong to, and a sentence about them.

    Raises:
        ValueError: if labeled images of a group are in two splits.
    """
    first, left = {}, []
    for file in files:
        if not file.group or file.label < 0:
            continue
        kept = first.setdefault(file.group, file)
        if kept.split != file.split:
            raise ValueError(
                f"--group_by: the group {spelling.one_line(file.group)} is in "
                f"two splits: {kept.place} ({kept.split}) and {file.place} "
                f"({file.split}). Put all its images into one of them."
            )
    for file in files:
        kept = first.get(file.group)
        if file.label >= 0 or kept is None or kept.split == "train":
            left.append(file)
    number = len(files) - len(left)
    if not number:
        return left, []
    return left, [
        f"{number} unlabeled image(s) are left out, because validation or test "
        "images belong to the same groups."
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
        text += file.group and f"group {file.group}"
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
    names = _sub_folders(folder)
    if not names:
        raise ValueError(
            f"--{flag}={folder} has no sub-folders: one for each class is "
            "expected."
        )
    if found := _names_of_splits(folder, names):
        raise ValueError(
            f"--{flag}={folder} has sub-folders that are splits, not classes: "
            f"{shortened(sorted(names))}. Give "
            f"{' '.join(_flags_of_splits(folder, found))}"
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


def _sub_folders(folder):
    """The names of the folders in a folder."""
    return [
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not spelling.is_litter(entry.name)
    ]


def _names_of_splits(folder, names):
    """The sub-folders of a folder that are splits, not classes.

    Args:
        folder: its path.
        names: of the sub-folders.

    Returns:
        Split -> names; empty if the sub-folders may be classes. `train` alone
        is a vehicle, for example.
    """
    found = {}
    for name in sorted(names):
        if split := spelling.split(name):
            found.setdefault(split, []).append(name)
    for split, own in found.items():
        for name in own:
            inside = (folder / name).iterdir()
            if split != "unlabeled" and not any(p.is_dir() for p in inside):
                return {}
    return {} if len(found) < min(2, len(names)) else found


def _flags_of_splits(folder, found):
    """The flags for sub-folders that are splits, a list."""
    return [
        f"--{flag}={folder / found[split][0]}"
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
        ImageFile(
            path,
            str(path.relative_to(folder)),
            label,
            split,
            group=_parent(path, folder / folders[name], options),
        )
        for label, name in enumerate(class_names)
        if name in folders
        for path in walk(folder / folders[name])
    ]
    alone = [f for f in files if options.group_by and not f.group]
    if alone:
        raise ValueError(
            f"--group_by=parent: {alone[0].path} and {len(alone) - 1} other "
            f"image(s) of --{flag} lie directly in the folder of their class. "
            "Put the images of each group into a sub-folder of it, or leave "
            "--group_by out."
        )
    if not files:
        raise ValueError(f"--{flag}={folder} holds no images.")
    return files + loose


def _unlabeled_files(more, options):
    """Files of `--unlabeled_dir` and of the folders `more`."""
    folders = [(folder.parent, folder) for folder in more]
    if options.unlabeled_dir:
        base, given = unlabeled_folders(options)
        folders += [(base, folder) for folder in given]
        for folder in given:
            if not walk(folder):
                raise ValueError(f"--unlabeled_dir={folder} holds no images.")
    return [
        ImageFile(
            path,
            str(path.relative_to(base)),
            -1,
            "train",
            group=_parent(path, folder, options),
        )
        for base, folder in folders
        for path in walk(folder)
    ]


def _parent(path, folder, options):
    """The group of a file: the path of its parent below `folder`, or none."""
    if not options.group_by or path.parent == folder:
        return ""
    return path.parent.relative_to(folder).as_posix()


def _folder(flag, options):
    folder = pathlib.Path(getattr(options, flag)).expanduser()
    if not folder.is_dir():
        raise ValueError(_no_such_folder(flag, folder))
    return folder


def _no_such_folder(flag, folder):
    return (
        f"--{flag}={folder}: no such folder. If the images of a run have "
        f"moved, resume it with --{flag}=NEW_FOLDER and "
        f"--allow_changed={flag}."
    )


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
