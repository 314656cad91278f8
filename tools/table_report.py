"""Writes a table as Markdown and CSV, and draws its figure, from records.

The figures are those of the papers that have a figure for their table.
"""

import csv
import pathlib
import statistics
import sys

import matplotlib.figure
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tools import table_runs

_PSEUDO_LABEL_TEXT = (
    " Selected is the share of the unlabeled images whose pseudo-labels are "
    "learned, in percent, over the second half of the run; right, the share of "
    "those that are right; foreign selected, the share of the images of "
    "classes that are not to be learned."
)
# Columns that are left out if no row has them.
_OPTIONAL = ("paper", "top-5", "selected", "right", "foreign selected")
# Column -> alignment in Markdown.
_COLUMNS = {
    "row": "---",
    "data": "---",
    "paper": "---",
    "here": "--:",
    "top-5": "--:",
    "validation": "--:",
    "selected": "--:",
    "right": "--:",
    "foreign selected": "--:",
    "n": "--:",
    "per seed": "---",
    "s/run": "--:",
}


def write(out, table, records, protocol="last"):
    """Writes the files of a table into the folder `out`.

    Args:
        out: a `pathlib.Path`.
        table: a `Table`.
        records: all records.
        protocol: a key of `table_runs.PROTOCOLS`.

    Returns:
        The table in Markdown.
    """
    stem = table.stem if protocol == "last" else f"{table.stem}_{protocol}"
    text = markdown(table, records, protocol)
    (out / f"{stem}.md").write_text(text, "utf-8")
    write_csv(out / f"{stem}.csv", table, records, protocol)
    pairs = with_records(table, records, protocol)
    if table.name in FIGURES and pairs:
        figure = FIGURES[table.name](pairs, table.unit)
        figure.suptitle(table.heading)
        figure.savefig(out / f"{stem}.png", dpi=130)
    return text


def with_records(table, records, protocol="last"):
    """The cells that have been run: `(Cell, records of the cell)`."""
    pairs = [
        (cell, table_runs.of_cell(cell, records, protocol))
        for cell in table.cells
    ]
    return [(cell, found) for cell, found in pairs if found]


def percent(records, unit, measure="test"):
    """Accuracy or error of the exported network in percent, for each record.

    Args:
        records: of a cell.
        unit: `accuracy` or `error`.
        measure: `test`, `validation` or `test_top_5`.

    Returns:
        A list of floats; empty if the measure was not taken. Top-5 accuracy is
        taken from 100 classes on.
    """
    rows = [table_runs.deployed(record["results"]) for record in records]
    name = f"{measure}_accuracy"
    values = [100 * row[name] for row in rows if name in row]
    return [100 - v for v in values] if unit == "error" else values


def mean_and_deviation(values):
    """`12.3 ± 0.4`, the sample standard deviation; `12.3` for one value."""
    if not values:
        return ""
    text = f"{statistics.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.1f}"
    return text


def markdown(table, records, protocol="last"):
    """The table in Markdown.

    Args:
        table: a `Table`.
        records: all records.
        protocol: a key of `table_runs.PROTOCOLS`.
    """
    unit = "Test error" if table.unit == "error" else "Test accuracy"
    reported = table_runs.PROTOCOLS[protocol]
    pairs = with_records(table, records, protocol)
    rows = [_row(cell, found, table.unit) for cell, found in pairs]
    columns = {
        name: alignment
        for name, alignment in _COLUMNS.items()
        if rows and (name not in _OPTIONAL or any(row[name] for row in rows))
    }
    lines = [f"# {table.heading}", ""]
    if table.text:
        lines += [table.text, ""]
    lines += [
        f"{unit} of the exported network in percent, {reported}: mean ± "
        "standard deviation over n seeds. A seed sets weights, batches and "
        "splits. The last column is the time of training and evaluation in "
        "seconds per run." + _PSEUDO_LABEL_TEXT * ("selected" in columns),
        "",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join(columns.values())} |",
        *(f"| {' | '.join(row[name] for name in columns)} |" for row in rows),
        "",
        *_contrasts(table, records, protocol),
        "Flags of `python -m tf_metassl.train`, in addition to `--seed=S "
        "--split_seed=S`:",
        "",
        *(f"- {cell.name}: `{cell.command}`" for cell, _ in pairs),
    ]
    return "\n".join(lines) + "\n"


def paired_differences(first, second, unit):
    """Second minus first in percentage points, a float per common seed.

    Args:
        first: records of a cell.
        second: records of another one.
        unit: `accuracy` or `error`.
    """
    by_seed = [{r["seed"]: r for r in records} for records in (first, second)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    values = [percent([of[s] for s in seeds], unit) for of in by_seed]
    return [b - a for a, b in zip(*values, strict=True)]


def bootstrap_interval(values, level=0.95, num_samples=10_000):
    """The percentile interval of the mean, from resampled seeds.

    Args:
        values: list of floats, one per seed.
        level: share of the resampled means inside.
        num_samples: resamples, drawn with a fixed seed.

    Returns:
        `(low, high)`.
    """
    draws = np.random.default_rng(0).choice(
        values, (num_samples, len(values)), replace=True
    )
    outside = 50 * (1 - level)
    low, high = np.percentile(draws.mean(1), [outside, 100 - outside])
    return float(low), float(high)


def _contrasts(table, records, protocol):
    """Markdown lines with the differences that a table declares."""
    found = {
        (cell.row, cell.data): of_cell
        for cell, of_cell in with_records(table, records, protocol)
    }
    lines = []
    for data in dict.fromkeys(cell.data for cell in table.cells):
        for first, second in table.contrasts:
            pair = found.get((first, data)), found.get((second, data))
            if not all(pair):
                continue
            values = paired_differences(*pair, table.unit)
            if len(values) < 2:
                continue
            mean = statistics.mean(values)
            error = statistics.stdev(values) / len(values) ** 0.5
            low, high = bootstrap_interval(values)
            lines.append(
                f"| {second} − {first} | {data} | {mean:+.1f} | {error:.1f} | "
                f"{low:+.1f} … {high:+.1f} | {len(values)} |"
            )
    if not lines:
        return []
    return [
        "Differences, paired by seed, in percentage points; the interval holds "
        "95 % of the means of 10,000 bootstrap samples of the seeds.",
        "",
        "| difference | data | mean | standard error | interval | n |",
        "| --- | --- | --: | --: | --: | --: |",
        *lines,
        "",
    ]


def _row(cell, records, unit):
    """The texts in the row of a cell, column -> text."""
    test = percent(records, unit)
    seconds = statistics.mean(record["seconds"] for record in records)
    return {
        "row": cell.row,
        "data": cell.data,
        "paper": cell.number,
        "here": mean_and_deviation(test),
        "top-5": mean_and_deviation(percent(records, unit, "test_top_5")),
        "validation": mean_and_deviation(percent(records, unit, "validation")),
        "selected": _pseudo_labels(records, "selected_share"),
        "right": _pseudo_labels(records, "selected_pseudo_label_accuracy"),
        "foreign selected": _pseudo_labels(records, "foreign_selected_share"),
        "n": str(len(records)),
        "per seed": " ".join(f"{v:.1f}" for v in test),
        "s/run": f"{seconds:.0f}",
    }


def _pseudo_labels(records, name):
    """The mean of a metric of pseudo-labels in percent; empty without one."""
    values = [record.get("pseudo_labels", {}).get(name) for record in records]
    values = [value for value in values if value is not None]
    return f"{100 * statistics.mean(values):.0f}" if values else ""


def write_csv(path, table, records, protocol="last"):
    """Writes the table as CSV, with numbers that are not rounded."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["scale", "row", "data", "paper", "unit", "n", "test_mean"]
            + ["test_std", "test_top_5_mean", "test_top_5_std"]
            + ["validation_mean", "validation_std", "seconds", "flags"]
        )
        for cell, found in with_records(table, records, protocol):
            numbers = []
            for measure in ("test", "test_top_5", "validation"):
                values = percent(found, table.unit, measure)
                numbers += [
                    statistics.mean(values) if values else "",
                    statistics.stdev(values) if len(values) > 1 else "",
                ]
            seconds = statistics.mean(record["seconds"] for record in found)
            writer.writerow(
                [table.scale, cell.row, cell.data, cell.number, table.unit]
                + [len(found), *numbers, seconds, cell.command]
            )


# Figures: functions of `(Cell, records)` pairs and the unit.


def _figure(num_panels):
    figure = matplotlib.figure.Figure(
        (1.5 + 4.5 * num_panels, 3.8), layout="constrained"
    )
    panels = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _by(field, pairs):
    """Groups `(Cell, records)` by a field of the cell, in order."""
    groups = {}
    for cell, records in pairs:
        groups.setdefault(getattr(cell, field), []).append((cell, records))
    return groups


def _label(unit):
    return f"test {unit} (%)"


def draw_bars(pairs, unit):
    """A bar per row, a panel per dataset."""
    groups = _by("data", pairs)
    figure, panels = _figure(len(groups))
    for axes, (data, group) in zip(panels, groups.items(), strict=True):
        values = [percent(records, unit) for _, records in group]
        axes.bar(
            [cell.row.replace(" ", "\n") for cell, _ in group],
            [statistics.mean(v) for v in values],
            yerr=[statistics.stdev(v) if len(v) > 1 else 0 for v in values],
            capsize=4,
            color="#7fa8d1",
        )
        axes.set(title=data)
    # An axis from zero would hide the differences.
    every = [v for _, records in pairs for v in percent(records, unit)]
    margin = (max(every) - min(every)) / 5 or 1
    panels[0].set_ylim(min(every) - margin, max(every) + margin)
    panels[0].set_ylabel(_label(unit))
    return figure


def _draw_lines(axes, pairs, setting, unit, name=None):
    """Means against a setting of the runs."""

    def place(pair):
        return pair[0].settings[setting]

    pairs = sorted(pairs, key=place)
    places = [place(pair) for pair in pairs]
    values = [percent(records, unit) for _, records in pairs]
    axes.errorbar(
        places,
        [statistics.mean(v) for v in values],
        yerr=[statistics.stdev(v) if len(v) > 1 else 0 for v in values],
        marker="o",
        capsize=3,
        label=name,
    )
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()


def draw_against_labels(pairs, unit):
    """Test error against the number of labels, a line per method."""
    del unit  # The axis of the paper's figure is the error.
    figure, (axes,) = _figure(1)
    for row, group in _by("row", pairs).items():
        _draw_lines(axes, group, "num_labeled", "error", row)
    axes.set(xlabel="labeled images", ylabel=_label("error"))
    axes.legend()
    return figure


def draw_against_beta(pairs, unit):
    """Meta-Semi against beta, and ICT against its weight."""
    curves = (
        ("meta_semi", "mixup_alpha", "Meta-Semi", "β of MixUp"),
        ("ict", "unlabeled_loss_weight", "ICT", "w of the consistency loss"),
    )
    figure, panels = _figure(len(curves))
    for axes, (algo, setting, title, label) in zip(panels, curves, strict=True):
        group = [pair for pair in pairs if pair[0].settings["algo"] == algo]
        _draw_lines(axes, group, setting, unit)
        axes.set(title=title, xlabel=label)
    panels[0].set_ylabel(_label(unit))
    return figure


def draw_training_accuracy(pairs, unit):
    """Accuracy on the labeled training images against the step."""
    del unit
    groups = _by("data", pairs)
    figure, panels = _figure(len(groups))
    for axes, (data, group) in zip(panels, groups.items(), strict=True):
        for cell, records in group:
            _draw_training_accuracy(axes, cell, records)
        axes.set(title=data, xlabel="step")
        axes.legend()
    panels[0].set_ylabel("accuracy on labeled images (%)")
    return figure


def _draw_training_accuracy(axes, cell, records):
    has_teacher = cell.settings["algo"] == "meta_pseudo_labels"
    networks = ["student", *["teacher"] * has_teacher]
    for network in networks:
        curves = {}
        for record in records:
            for row in record["curve"]:
                name = f"{network}_accuracy"
                if row["split"] == "labeled" and name in row:
                    curves.setdefault(row["step"], []).append(row[name])
        # Only steps at which every run was evaluated.
        steps = sorted(s for s, v in curves.items() if len(v) == len(records))
        axes.plot(
            steps,
            [100 * statistics.mean(curves[s]) for s in steps],
            label=f"{cell.row}, {network}" if has_teacher else cell.row,
        )


# Name of a table -> function that draws its figure.
FIGURES = {
    "mpl_figure_3": draw_bars,
    "mpl_figure_4": draw_training_accuracy,
    "mpl_figure_5": draw_against_labels,
    "meta_semi_figure_3": draw_against_beta,
}
