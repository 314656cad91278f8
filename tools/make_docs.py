"""Writes the parts of README.md and docs/ that follow from the code.

    python tools/make_docs.py            writes them
    python tools/make_docs.py --check    fails if one of them is out of date
    python tools/make_docs.py --run      also runs the README's first training
                                         and pastes its output

Whole pages: the settings and the API pages. Pictures: the accuracies on digits,
from `results/instruments/digits.csv`. Blocks inside pages that are otherwise
written by hand: what stands between `<!-- generated: NAME -->` and
`<!-- end -->`. Imports no TensorFlow.
"""

import argparse
import csv
import html
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl.algorithms import ALGORITHMS  # noqa: E402
from tf_metassl.data.datasets import DATASETS  # noqa: E402
from tf_metassl.run import help_text  # noqa: E402
from tools import settings, table_report, table_runs, tables  # noqa: E402

HEADER = "<!-- Written by tools/make_docs.py; do not edit. -->"
_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.S)
# What a text that was merged from those of several methods ends with.
_PUBLISHED = re.compile(r" Published for [\w, ]+: .*?\.(?= |$)")

# The API pages: name, title, what it is about, and the modules, in the order in
# which they are shown. A `*` takes all that the room has and that are not named
# on their own.
API_PAGES = (
    (
        "ground",
        "Batches, settings and errors",
        "What all other modules agree on. None of these imports TensorFlow.",
        ("contract", "config", "errors"),
    ),
    (
        "ops",
        "Operations: `tf_metassl.ops`",
        "Functions of tensors that know nothing of networks or methods.",
        ("ops.losses", "ops.pseudo_labels", "ops.mixing", "ops.*"),
    ),
    (
        "meta",
        "Meta gradients: `tf_metassl.meta`",
        "Differentiating through a training step.",
        ("meta.*",),
    ),
    (
        "algorithms",
        "Methods: `tf_metassl.algorithms`",
        "What every method inherits, and what families of methods share.",
        ("algorithms", "algorithms.algorithm", "algorithms.consistency"),
    ),
    (
        "models",
        "Networks: `tf_metassl.models`",
        "The registry of the networks and how one of your own is loaded.",
        ("models", "models.custom", "models.costs"),
    ),
    (
        "run",
        "Runs: `tf_metassl.run`",
        "A run from its configuration to its report.",
        ("run.experiment", "run.*"),
    ),
)

# The methods in the picture, from the simplest on, and how they are drawn.
PICTURED = (
    ("supervised", "Supervised, 30 labels only", "#8a94a6"),
    ("supervised_mixup", "Supervised with MixUp", "#8a94a6"),
    ("meta_semi", "Meta-Semi", "#2f6db5"),
    ("fixmatch", "FixMatch", "#2f6db5"),
    ("meta_pseudo_labels", "Meta Pseudo Labels", "#d9722e"),
    ("remixmatch", "ReMixMatch", "#2f6db5"),
)


def module_names(pattern):
    """The modules that an entry of `API_PAGES` means, `tf_metassl.` first.

    Args:
        pattern: a module below `tf_metassl`, or `room.*`.
    """
    room, _, star = pattern.partition(".")
    if star != "*":
        return [f"tf_metassl.{pattern}"]
    files = sorted((ROOT / "tf_metassl" / room).glob("*.py"))
    return [
        f"tf_metassl.{room}.{file.stem}"
        for file in files
        if file.stem != "__init__"
    ]


def api_page(title, text, patterns):
    """A page whose contents mkdocstrings takes from docstrings."""
    named = {p for p in patterns if not p.endswith("*")}
    modules = []
    for pattern in patterns:
        for module in module_names(pattern):
            short = module.removeprefix("tf_metassl.")
            if pattern in named or short not in named:
                modules.append(module)
    blocks = "\n".join(f"::: {module}\n" for module in modules)
    return f"{HEADER}\n\n# {title}\n\n{text}\n\n{blocks}"


def settings_page():
    """All flags of the training command, by section."""
    lines = [
        HEADER,
        "",
        "# Settings",
        "",
        "Every setting is a flag of `tf-metassl train`, and a field of the",
        "run's `config.json`. `tf-metassl train --help` lists them, and",
        "`tf-metassl train --algo=NAME --help` those of one method. A wrong",
        "value, or a setting that the method does not have, is refused before",
        "anything starts.",
        "",
        "A default marked with \\* depends on `--dataset`:",
        "[see below](#defaults-by-dataset). Defaults that differ between",
        "methods stand in parentheses. The pages of the",
        "[methods](methods/index.md) have their own settings, with the",
        "published values.",
    ]
    by_dataset = {n for row in _dataset_defaults().values() for n in row}
    for title, rows in help_text.sections():
        lines += ["", f"## {title}", "", *_table(rows, by_dataset)]
    lines += ["", "## Defaults by dataset", "", *_dataset_table()]
    return "\n".join(lines) + "\n"


def _dataset_defaults():
    return {name: row.defaults for name, row in DATASETS.items()}


def _dataset_table():
    lines = ["| dataset | defaults |", "| --- | --- |"]
    for name, row in _dataset_defaults().items():
        values = ", ".join(f"`--{k}={v}`" for k, v in row.items())
        lines.append(f"| `{name}` | {values} |")
    return lines


def _table(rows, by_dataset=()):
    """Lines of a Markdown table of `help_text.Row`s."""
    lines = ["| setting | default | what it does |", "| --- | --- | --- |"]
    for row in rows:
        mark = " \\*" if row.name in by_dataset else ""
        default = _cell(row.default, code=True) + mark
        text = row.help
        if len(row.methods) > 1:
            # The pages of the methods have them, one by one.
            text = _PUBLISHED.sub("", text)
        text = _cell(text)
        missing = [c for c in row.choices if c not in row.help]
        if missing:
            choices = ", ".join(f"`{choice}`" for choice in row.choices)
            text += f" One of: {choices}."
        if row.methods:
            methods = ", ".join(f"`{method}`" for method in row.methods)
            text += f" *Only for {methods}.*"
        lines.append(f"| `--{row.name}` | {default} | {text} |")
    return lines


def _cell(text, code=False):
    """Text of a table's cell: Markdown must not read it as its own."""
    if code:
        # Where methods differ: `0.99; vat 1`.
        value, _, others = text.partition("; ")
        value = f"`{value}`" if value else "empty"
        return f"{value} ({others})" if others else value
    text = html.escape(text, quote=False)
    text = re.sub(r"(?<![\w`])(--\w+(=[\w./]+)?)", r"`\1`", text)
    return re.sub(r"([|*_\\])(?![^`]*`[^`]*$)", _escaped, text)


def _escaped(match):
    # Inside of `--some_flag` nothing is escaped.
    before = match.string[: match.start()].count("`")
    return match[0] if before % 2 else f"\\{match[0]}"


def method_settings(algo):
    """The settings that one method has and most others do not."""
    *_, (_, rows) = help_text.sections(algo)
    rows = [row for row in rows if row.name not in ("algo", "ema_decay")]
    if not rows:
        return "No settings of its own."
    return "\n".join(_table(rows))


def digits():
    """The table of all methods on digits: method -> its row, in per cent."""
    with open(
        ROOT / "results" / "instruments" / "digits.csv", encoding="utf-8"
    ) as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def _mean_and_deviation(row, split):
    mean, std = float(row[f"{split}_mean"]), row[f"{split}_std"]
    return f"{mean:.1f}" + (f" ± {float(std):.1f}" if std else "")


def digits_table(names=None):
    """Accuracies on digits as a Markdown table.

    Args:
        names: methods; all if None.
    """
    lines = [
        "| `--algo=` | test accuracy | validation accuracy | seeds | s/run |",
        "| --- | --: | --: | --: | --: |",
    ]
    rows = digits()
    for name in names or ALGORITHMS:
        row = rows[name]
        test, validation = (
            _mean_and_deviation(row, split) for split in ("test", "validation")
        )
        lines.append(
            f"| `{name}` | {test} | {validation} | {row['n']} | "
            f"{float(row['seconds']):.0f} |"
        )
    return "\n".join(lines)


def digits_picture():
    """A bar for each method of `PICTURED`, as SVG."""
    rows = digits()
    left, top, bar, gap, width = 232, 62, 24, 12, 430
    low, high = 70.0, 100.0
    height = top + len(PICTURED) * (bar + gap) + 34
    counts = sorted({int(rows[name]["n"]) for name, *_ in PICTURED})
    seeds = " to ".join(map(str, sorted({counts[0], counts[-1]})))

    def x(percent):
        return left + width * (percent - low) / (high - low)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 760 {height}" width="760" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>Test accuracy on handwritten digits with 30 labels</title>",
        f'<rect width="760" height="{height}" rx="8" fill="#ffffff"/>',
        '<text x="20" y="30" font-size="17" font-weight="bold" '
        'fill="#1c2430">Test accuracy with 30 labeled digits</text>',
        '<text x="20" y="49" font-size="12" fill="#5b6575">mean over '
        f"{seeds} seeds, whiskers: one standard deviation; the axis starts at "
        "70 %</text>",
    ]
    for tick in range(70, 101, 10):
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" '
            f'y2="{height - 34}" stroke="#dfe4ea"/>'
            f'<text x="{x(tick):.1f}" y="{height - 16}" font-size="12" '
            f'text-anchor="middle" fill="#5b6575">{tick} %</text>'
        )
    for number, (name, title, color) in enumerate(PICTURED):
        mean = float(rows[name]["test_mean"])
        # One run has none.
        std = float(rows[name]["test_std"] or 0)
        y = top + number * (bar + gap) + gap / 2
        middle = y + bar / 2
        parts.append(
            f'<text x="{left - 12}" y="{middle + 5:.1f}" font-size="14" '
            f'text-anchor="end" fill="#1c2430">{title}</text>'
            f'<rect x="{left}" y="{y:.1f}" width="{x(mean) - left:.1f}" '
            f'height="{bar}" fill="{color}"/>'
            f'<line x1="{x(mean - std):.1f}" x2="{x(mean + std):.1f}" '
            f'y1="{middle:.1f}" y2="{middle:.1f}" stroke="#1c2430" '
            'stroke-width="1.5"/>'
            f'<text x="{left + width + 14}" y="{middle + 5:.1f}" '
            f'font-size="15" font-weight="bold" fill="{color}">'
            f"{mean:.1f} %</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def methods_table(prefix):
    """The README's table of methods, with links from another folder.

    Args:
        prefix: of the pages in the README's links, to be left out.
    """
    text = (ROOT / "README.md").read_text("utf-8")
    table = re.search(r"^\| family .*?\n(?=\n)", text, re.M | re.S)[0]
    return table.replace(f"]({prefix}", "](").rstrip("\n")


def measured(path):
    """The tables of a file that `tools/reproduce_table.py` has written.

    Args:
        path: of the file below `results/`, without `.md`.
    """
    text = (ROOT / "results" / f"{path}.md").read_text("utf-8")
    start, end = text.index("\n| row |"), text.index("\nFlags of ")
    return text[start:end].strip()


def benchmark(name):
    """What a file of `tools/benchmark.py` says, without its title.

    Args:
        name: of the file in `results/`.
    """
    path = ROOT / "results" / name
    if not path.exists():
        return f"`results/{name}` has not been measured in this version."
    return path.read_text("utf-8").partition("\n")[2].strip()


def feedback():
    """The tables of results/feedback.md, with smaller headings."""
    text = (ROOT / "results" / "feedback.md").read_text("utf-8")
    return text[text.index("## ") :].replace("## ", "### ").strip()


# Row of the paper's Table 5 -> what is added to a reading's name in ours.
TABLE_5 = {
    "Without MixUp": ", no MixUp",
    "MixUp on labeled data only": ", MixUp of labeled images alone",
    "MixUp on unlabeled data only": ", MixUp of unlabeled images alone",
    "Reweighting with the constant 1": ", constant weights",
    "Reweighting with -1 and 1": ", weights -1 and 1",
    "One-hot pseudo labels": ", one-hot pseudo-labels",
    "Without parameter EMA": ", without EMA",
}


def readings():
    """Meta-Semi's Table 5 under the readings of Algorithm 1, as Markdown.

    Differences of each row to the full method, in points of test accuracy: the
    paper's with 4,000 labels, and ours, paired by seed, with their standard
    error.
    """
    printed = {
        cell.row: float(cell.number.split()[2])
        for cell in settings.cells()
        if cell.table == "Meta-Semi, Table 5"
        and cell.task.name == "cifar100_4000"
    }
    table = tables.tables("paper")["meta_semi_reconstruction"]
    cells = {cell.row: cell for cell in table.cells}
    log = ROOT / "results" / "instruments" / "runs.jsonl"
    records = table_runs.read(log)

    def difference(reading, row):
        """Our row minus the full method."""
        pair = (
            table_runs.of_cell(cells[name], records)
            for name in (reading, reading + row)
        )
        values = table_report.paired_differences(*pair, table.unit)
        error = statistics.stdev(values) / len(values) ** 0.5
        return f"{statistics.mean(values):+.1f} ± {error:.1f}"

    names = tables.READINGS
    lines = [
        "| row of Table 5 | paper | " + " | ".join(names) + " |",
        "| --- | --: |" + " --: |" * len(names),
    ]
    for row, suffix in TABLE_5.items():
        ours = (difference(name, suffix) for name in names)
        change = printed["Meta-Semi"] - printed[row]
        lines.append(f"| {row} | {change:+.1f} | {' | '.join(ours)} |")
    return "\n".join(lines)


def block(name):
    """The text of a generated block.

    Args:
        name: what to generate, and its arguments.
    """
    kind, *arguments = name.split()
    if kind == "settings":
        return method_settings(*arguments)
    if kind == "digits":
        return digits_table(arguments)
    if kind == "methods":
        return methods_table(*arguments)
    if kind == "measured":
        return measured(*arguments)
    if kind == "benchmark":
        return benchmark(*arguments)
    if kind == "feedback":
        return feedback()
    if kind == "readings":
        return readings()
    raise ValueError(f"Unknown block {name!r}.")


def with_blocks(text):
    """A page with its generated blocks filled in."""
    return _BLOCK.sub(
        lambda match: f"{match[1]}\n{block(match[2])}\n\n{match[3]}", text
    )


def documents():
    """All that is generated: path -> its text as it should be."""
    result = {
        "docs/settings.md": settings_page(),
        "docs/images/digits.svg": digits_picture(),
    }
    for name, *arguments in API_PAGES:
        result[f"docs/api/{name}.md"] = api_page(*arguments)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        path = page.relative_to(ROOT).as_posix()
        if path not in result:
            text = page.read_text("utf-8")
            if _BLOCK.search(text):
                result[path] = with_blocks(text)
    return result


def first_run(text):
    """A page's first training command and the block of its output.

    Args:
        text: of the README or another page.

    Returns:
        `(command, output)`, as they stand there.
    """
    command = re.search(r"^tf-metassl train .*$", text, re.M)[0]
    output = re.search(r"```text\n(.*?)```", text, re.S)[1]
    return command, output


def cut(line, width=96):
    """A line of at most `width` characters; dots stand for what is left out."""
    return line if len(line) <= width else f"{line[: width - 3].rstrip()}..."


def shortened(output):
    """The output of a run with long lines and most evaluations left out."""
    lines = [line.rstrip() for line in output.strip().splitlines()]
    steps = [i for i, line in enumerate(lines) if line.startswith("step ")]
    shown = {*steps[:2], *steps[-2:]}
    result = []
    for number, line in enumerate(lines):
        if number in shown or not line.startswith("step "):
            result.append(cut(line))
        elif result[-1] != "...":
            result.append("...")
    return "\n".join(result) + "\n"


def outline(output):
    """The output of a run as the README shows it, in about 15 lines."""
    kept = ("method:", "images:", "network:", "|", "report:", "model:")
    result = []
    for line in shortened(output).splitlines():
        if line.startswith(kept):
            result.append(line)
        elif result[-1] != "...":
            result.append("...")
    return "\n".join(result[:-1]) + "\n"


def run_first():
    """Runs the README's first training and pastes its output."""
    readme, guide = ROOT / "README.md", ROOT / "docs" / "getting_started.md"
    command, _ = first_run(readme.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tf_metassl.train"),
                *shlex.split(command)[2:],
            ],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    paste(readme, outline(done.stdout))
    paste(guide, shortened(done.stdout))


def paste(page, output):
    """Replaces the first output that a page shows."""
    text = page.read_text("utf-8")
    before, fence, rest = text.partition("```text\n")
    page.write_text(
        before + fence + output + rest[rest.index("```") :], "utf-8"
    )


def main(arguments=None):
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args(arguments)
    if options.run:
        run_first()
    wrong = []
    for path, text in documents().items():
        file = ROOT / path
        if file.exists() and file.read_text("utf-8") == text:
            continue
        if options.check:
            wrong.append(path)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
            print(f"wrote {path}")
    if wrong:
        sys.exit(
            f"Out of date: {', '.join(wrong)}. Run python tools/make_docs.py."
        )


if __name__ == "__main__":
    main()
