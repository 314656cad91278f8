"""How names are spelled: one Unicode form, splits, missing labels, litter."""

import re
import unicodedata

# Casefolded spelling -> the split that it means.
_SPLITS = {
    "train": "train",
    "training": "train",
    "labeled": "train",
    "labelled": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "unlabeled": "unlabeled",
    "unlabelled": "unlabeled",
}

# Casefolded labels that usually say that there is none.
_NO_LABEL = {
    *("nan", "<na>", "na", "n/a", "n.a.", "#n/a", "nil", "nul", "null"),
    *("none", "no label", "no_label", "nolabel", "no-label", "missing"),
    *("unlabeled", "unlabelled", "unknown", "undefined", "unassigned"),
    *("?", "??", "-", "--", "-1", "-1.0", "_", "."),
}

# What file managers and network drives leave behind.
_LITTER = {
    *("desktop.ini", "thumbs.db", "ehthumbs.db", "__macosx", "@eadir"),
    *("$recycle.bin", "#recycle", "lost+found", "system volume information"),
    "icon\r",
}

_BYTES = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def text(name):
    r"""A name as it is compared and shown: always valid Unicode.

    Args:
        name: of a file or a class, as the operating system or a file has it.

    Returns:
        The name in the normal form C, so that an accented letter is one
        character, whatever system wrote it. Bytes that are not UTF-8 are shown
        as `\xff`.
    """
    name = _BYTES.sub(lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", name)
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return unicodedata.normalize("NFC", name)


def one_line(name):
    r"""A name with tabs, line ends and other control characters as `\n`."""
    return _CONTROL.sub(
        lambda m: m[0].encode("unicode_escape").decode("ascii"), text(name)
    )


def shortened(name, length=24):
    """A name in one line that is no longer than `length` characters.

    A long one is shortened in the middle: names often differ at their ends.
    """
    name = one_line(name)
    if len(name) <= length:
        return name
    return f"{name[: length // 2]}…{name[-((length - 1) // 2) :]}"


def forms(name):
    """A name in the Unicode normal forms that file systems use, itself first.

    Args:
        name: a string.

    Returns:
        A tuple of different strings.
    """
    normal = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return tuple(dict.fromkeys((name, *normal)))


def split(name):
    """The split that a name means, such as `validation` for `val`, or None."""
    return _SPLITS.get(name.strip().casefold())


def is_no_label(label):
    """Whether a label usually means that there is none, such as `nan`."""
    return label.strip().casefold() in _NO_LABEL


def is_litter(name):
    """Whether a file or a folder was made by a file manager, or is hidden."""
    return name.startswith(".") or name.casefold() in _LITTER


def for_spreadsheet(cell):
    """A cell of a CSV file that no spreadsheet takes for a formula.

    Args:
        cell: a string.

    Returns:
        The string, with an apostrophe before it if it begins as a formula
        does.
    """
    return f"'{cell}" if cell.lstrip(" ")[:1] in tuple("=+-@\t\r\n") else cell
