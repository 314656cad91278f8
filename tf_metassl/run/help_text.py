"""The settings as data, and as the text of `--help`. Imports no TensorFlow."""

import collections
import dataclasses
import fractions
import functools
import re
import textwrap
from typing import NamedTuple

from tf_metassl import config as config_lib
from tf_metassl import options
from tf_metassl.algorithms import ALGORITHMS
from tf_metassl.data.datasets import DATASETS

WIDTH = 80

_KINDS = {bool: "boolean", int: "integer", float: "number", str: "text"}
# Parts of a help text. The value that a hyperparameter was published with:
_PUBLISHED = re.compile(
    r" \(paper: ([^)]*)\)| Published(?: for [^:]*)?: (.*?)\.(?=\s|$)"
)
_REMARK = re.compile(r" \([a-z][^()]*\)")
_SENTENCE_END = re.compile(r"(?<=\.) ")
_SPECIAL_VALUE = re.compile(r"(-?\d+|Empty) = ")
# `--dataset=folder: ` or `folder and csv: ` before what a setting is.
_CONDITION = re.compile(r"(--\w+=\w+: |[\w, ]+ and \w+: )?(.*)", re.DOTALL)


class Row(NamedTuple):
    """A setting as `--help` and the documentation show it.

    Attributes:
        name: of the flag, without dashes.
        kind: `boolean`, `integer`, `number` or `text`.
        default: as text; where methods differ, the most common value and then
            the others: `10; vat, uda 1`.
        help: what it does, in sentences.
        choices: the allowed values as text; empty if they are not listed.
        methods: the methods that have it; empty if all have it.
    """

    name: str
    kind: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


@functools.cache
def sections(algo=None):
    """All settings, each in one section.

    Args:
        algo: leaves out the settings of other methods than this one, and gives
            the defaults and texts of this one; None for all methods.

    Returns:
        A list of `(title, [Row, ...])`.
    """
    result = [
        (
            title,
            [
                _row({"": field})
                for options_class in classes
                for field in dataclasses.fields(options_class)
            ],
        )
        for title, classes in options.SECTIONS.items()
    ]
    listed = {row.name for _, rows in result for row in rows}
    method = [
        _row({"": field})
        for field in config_lib.common_fields()
        if field.name not in listed
    ]
    users = config_lib.hyperparameters_by_name().values()
    if algo:
        rows = [_row({"": u[algo]}) for u in users if algo in u]
    else:
        rows = sorted(map(_row, users), key=_number_and_order_of_methods)
    return [*result, ("Method", method + rows)]


def _number_and_order_of_methods(row):
    order = list(ALGORITHMS)
    return -len(row.methods or order), [order.index(m) for m in row.methods]


def of_train(algo=None):
    """The text of `python -m tf_metassl.train --help`.

    Args:
        algo: see `sections`.
    """
    by_dataset = {name for row in DATASETS.values() for name in row.defaults}
    lines = ["usage: python -m tf_metassl.train [--name=value ...]", ""]
    lines += _wrapped(
        "Trains a classifier, evaluates it and exports it. The settings are "
        "listed with their defaults, and in parentheses those of single "
        "methods; * marks defaults that depend on --dataset. --flagfile=PATH "
        "reads settings from a file, one per line. --algo=NAME --help lists "
        "the settings of one method in full, --helpfull those of all methods."
    )
    for title, rows in sections(algo):
        lines += ["", title]
        heading = ()
        for row in rows:
            if row.methods and not algo and _heading(row) != heading:
                heading = _heading(row)
                lines.append(f"  {heading}:")
            mark = "*" if row.name in by_dataset else " "
            lines += _row_lines(row, mark, brief=algo is None)
    return "\n".join(lines)


def _heading(row):
    return (
        ", ".join(row.methods) if len(row.methods) <= 3 else "several methods"
    )


def of_command(summary, values, names):
    """The text of `--help` of a command with few flags.

    Args:
        summary: what the command does.
        values: the `flags.FlagValues` that its flags are defined in.
        names: of the flags.
    """
    lines = [*summary.strip().splitlines(), ""]
    for name in names:
        flag = values[name]
        default = "" if flag.default is None else str(flag.default)
        choices = tuple(getattr(flag.parser, "enum_values", ()))
        # absl puts the choices before the text.
        text = flag.help.removeprefix(f"<{'|'.join(choices)}>: ")
        row = Row(name, flag.flag_type(), default, text, choices)
        lines += _row_lines(row)
    return "\n".join(lines)


def description(row):
    """All there is to say about a setting, in one text.

    Args:
        row: a `Row`.
    """
    text = row.help + _choices(row, row.help)
    if row.methods:
        text += f" Only for {', '.join(row.methods)}."
    return f"{text} (default {row.default})" if row.default else text


def _row_lines(row, mark=" ", *, brief=False):
    """The lines of `--help` for one setting.

    Args:
        row: a `Row`.
        mark: one character before its name.
        brief: whether details are left out of a text of more than two lines.
    """
    name = f"[no]{row.name}" if row.kind == "boolean" else row.name
    default, _, others = row.default.partition("; ")
    start = f"{mark} --{name}{'=' * bool(default)}{default}: "
    end = f" ({others})" if others else ""
    texts = [row.help]
    if brief:
        texts = _shorter_and_shorter(row.help, row.choices)
    for text in texts:
        text = f"{start}{text}{_choices(row, text)}{end}"
        lines = _wrapped(text, 0, 4)
        if len(lines) <= 2:
            break
    return lines


def _shorter_and_shorter(text, choices):
    """Yields the text of a setting with less and less detail.

    First without published values and remarks in parentheses, then reduced to
    its first sentence and those about special values such as "0 = off.", then
    to the beginning of that sentence.
    """
    text = _PUBLISHED.sub("", text)
    yield text
    text = _REMARK.sub("", text)
    yield text
    first, *further = _SENTENCE_END.split(text)
    special = " ".join(["", *(s for s in further if _SPECIAL_VALUE.match(s))])
    yield first + special
    # What it is for says nothing without what it is.
    condition, rest = _CONDITION.match(first).groups("")
    beginning = condition + re.split("[;:] ", rest.removesuffix("."))[0]
    # A text that begins with a choice explains them one by one.
    if beginning not in choices:
        yield f"{beginning}.{special}"


def _choices(row, text):
    """A list of the choices that `text` does not mention."""
    if all(_mentions(text, choice) for choice in row.choices):
        return ""
    return f" One of: {', '.join(row.choices)}."


def _wrapped(text, first_indent=0, indent=0):
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * first_indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def _mentions(text, word):
    return re.search(rf"(?<![\w-]){re.escape(word)}(?!\w)", text)


def _row(users):
    """The `Row` of a setting.

    Args:
        users: method -> its dataclass field; one entry if all share it.
    """
    fields = list(users.values())
    choices = dict.fromkeys(
        c for f in fields for c in f.metadata["choices"] or ()
    )
    everybody = "" in users or len(users) == len(ALGORITHMS)
    return Row(
        name=fields[0].name,
        kind=_KINDS[type(fields[0].default)],
        default=_by_value({m: _default(f) for m, f in users.items()}),
        help=_merged_help({m: f.metadata["help"] for m, f in users.items()}),
        choices=tuple(map(str, choices)),
        methods=() if everybody else tuple(users),
    )


def _default(field):
    """The default of a field, as text."""
    if share := field.metadata["share"]:
        part = fractions.Fraction(share).limit_denominator(1000)
        return "num_steps" if part == 1 else f"num_steps * {part}"
    if spans := field.metadata["spans"]:
        return f"1 - {1 / spans:g} / num_steps, 0.9 to 0.999"
    return _text(field.default)


def _text(value):
    return f"{value:g}" if type(value) is float else str(value)


def _groups(values):
    """`{a: 1, b: 2, c: 1}` -> `[(1, [a, c]), (2, [b])]`; the largest first."""
    groups = collections.defaultdict(list)
    for method, value in values.items():
        groups[value].append(method)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _by_value(values):
    """Says equal values once: `10; vat, uda 1`."""
    (common, _), *others = _groups(values)
    parts = [f"{', '.join(methods)} {value}" for value, methods in others]
    return "; ".join([common, *parts])


def _merged_help(helps):
    """One text from those of all methods; says once what they share.

    Args:
        helps: method -> help text.
    """
    if len(set(helps.values())) == 1:
        return next(iter(helps.values()))
    plain = {m: _PUBLISHED.sub("", text) for m, text in helps.items()}
    (common, _), *others = _groups(plain)
    shared = _SENTENCE_END.split(common)
    text = common
    for other, methods in others:
        own = [s for s in _SENTENCE_END.split(other) if s not in shared]
        if own:
            text += f" {', '.join(methods)}: {' '.join(own)}"
    published = {}
    for method, help_text in helps.items():
        if found := _PUBLISHED.search(help_text):
            published[method] = found[1] or found[2]
    for value, methods in _groups(published):
        text += f" Published for {', '.join(methods)}: {value}."
    return text
