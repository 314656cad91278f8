"""Flagfiles that come with the package, found by name from any folder.

A preset is a flagfile below `flags/`; its name is its path there without the
suffix, such as `meta_semi/cifar10_4000_cnn13`. `tf-metassl presets` prints all
names. Imports no TensorFlow.
"""

import difflib
import os
import pathlib
from collections.abc import Sequence

from tf_metassl.errors import ConfigError

_SUFFIX = ".flags"


def folder() -> pathlib.Path:
    """The folder of the presets.

    An installed wheel has it inside the package; in a source tree, and so in
    an editable installation, it is beside the package.
    """
    package = pathlib.Path(__file__).resolve().parents[1]
    installed = package / "flags"
    return installed if installed.is_dir() else package.parent / "flags/"


def names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(
        path.relative_to(folder()).as_posix().removesuffix(_SUFFIX)
        for path in folder().rglob(f"*{_SUFFIX}")
    )


def find(name: str) -> pathlib.Path:
    """The path of the flagfile that `--flagfile=name` means.

    Args:
        name: path of a file, or the name of a preset with or without
            `.flags`. A file comes first.

    Raises:
        ConfigError: if there is neither.
    """
    path = pathlib.Path(os.path.expanduser(name))
    if path.is_file():
        return path
    preset = name.removesuffix(_SUFFIX)
    known = names()
    if preset in known:
        return folder() / f"{preset}{_SUFFIX}"
    close = difflib.get_close_matches(preset, known, n=5)
    raise ConfigError(
        f"--flagfile={name} is neither a file nor the name of a preset. "
        + (f"Similar presets: {', '.join(close)}. " if close else "")
        + "tf-metassl presets lists all presets."
    )


def resolve_flagfiles(argv: Sequence[str]) -> list[str]:
    """Replaces each `--flagfile` by the flags in its file.

    As absl does: in place, so that a flag given after the flagfile wins; lines
    that are empty or begin with `#` or `//` are left out; a flagfile may name
    others. Unlike absl's, a name of a preset is allowed wherever a path is.

    Args:
        argv: the program and its arguments.

    Returns:
        A list of strings without `--flagfile`.

    Raises:
        ConfigError: if a flagfile is not found, cannot be read or includes
            itself.
    """
    return [argv[0], *_expanded(argv[1:], ())]


def _expanded(
    arguments: Sequence[str], including: tuple[pathlib.Path, ...]
) -> list[str]:
    """The arguments without `--flagfile`.

    Args:
        arguments: strings.
        including: paths of the flagfiles that the arguments are in.
    """
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if argument == "--":
            return [*result, argument, *rest]
        if flag not in ("--flagfile", "-flagfile"):
            result.append(argument)
            continue
        if not equals:
            if not rest:
                raise ConfigError("--flagfile needs a path or a name.")
            value = rest.pop(0)
        if value:
            result += _flags_of(value, including)
    return result


def _flags_of(name: str, including: tuple[pathlib.Path, ...]) -> list[str]:
    """The flags in the flagfile `name`, those of included files too."""
    path = find(name)
    if path.resolve() in including:
        raise ConfigError(f"--flagfile={name} includes itself.")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"--flagfile={name} cannot be read: {error}"
        raise ConfigError(message) from error
    lines = [line.strip() for line in text.splitlines()]
    comments = ("#", "//")
    flags = [line for line in lines if line and not line.startswith(comments)]
    return _expanded(flags, (*including, path.resolve()))
