"""Which files are the same picture: the same path twice, or links to a file."""

import os

from tf_metassl.data import patience

_EXAMPLES = 3


def merged(files, class_names):
    """Counts every picture once.

    Two files are the same picture if they are one file on disk: the same path
    given twice, hard links, or symbolic links to the file or to a folder above
    it. A picture that is listed without a label and somewhere else, too, counts
    as what it is there.

    Args:
        files: a list of `ImageFile`.
        class_names: names of the labels.

    Returns:
        `(files, notes)`: the list without repetitions, in the same order, and
        sentences about what was left out.

    Raises:
        ValueError: if a picture has two labels, or a label and two splits. The
            message names both places.
    """
    first, dropped, conflicts = {}, {}, {"labels": [], "splits": []}
    progress = patience.Counter("Looking up files", len(files))
    # Those with a label first, so that they are kept.
    for row in sorted(range(len(files)), key=lambda i: files[i].label < 0):
        file = files[row]
        kept = first.setdefault(_identity(file.path), file)
        progress.advance(1)
        if kept is file:
            continue
        if file.label >= 0 and file.label != kept.label:
            conflicts["labels"].append((kept, file))
        elif file.label >= 0 and file.split != kept.split:
            conflicts["splits"].append((kept, file))
        else:
            dropped[row] = kept
    _refuse(conflicts, class_names)
    left = [file for i, file in enumerate(files) if i not in dropped]
    return left, _notes(files, dropped)


def _identity(path):
    """Equal for paths that lead to the same file."""
    try:
        stat = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    # Some network file systems do not number their files.
    return (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(path)


def _refuse(conflicts, class_names):
    """Raises ValueError if there are conflicts."""

    def label(file):
        return f"{file.place} (class {class_names[file.label]}, {file.split})"

    texts = [
        f"{len(pairs)} picture(s) have two {what}: the same file, or a link to "
        "it, is listed as\n"
        + "\n".join(
            f"  {label(one)} and {label(other)}"
            for one, other in pairs[:_EXAMPLES]
        )
        + "\n  ..." * (len(pairs) > _EXAMPLES)
        for what, pairs in conflicts.items()
        if pairs
    ]
    if texts:
        raise ValueError(
            "\n".join(texts) + "\nKeep one of the places of each picture."
        )


def _notes(files, dropped):
    """Sentences about the files that are not counted again."""
    pairs = [(files[row], kept) for row, kept in dropped.items()]
    again = [p for p in pairs if (p[0].label < 0) == (p[1].label < 0)]
    unlabeled = [p for p in pairs if (p[0].label < 0) != (p[1].label < 0)]
    notes = []
    for listed, text in (
        (again, "listed twice and counted once"),
        (
            unlabeled,
            "listed without a label and also as labeled, validation or test "
            "images; they count as the latter",
        ),
    ):
        if listed:
            file, kept = listed[0]
            notes.append(
                f"{len(listed)} picture(s) are {text}, such as {file.place} = "
                f"{kept.place}."
            )
    return notes
