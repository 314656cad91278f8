"""report.html: what a run did and how well, as one page that needs no other.

All numbers and sentences follow from what is recorded. The same run writes the
same bytes.
"""

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_metassl.data import spelling
from tf_metassl.run.calibration import Calibration
from tf_metassl.run.measurement import Measurement, wilson_interval
from tf_metassl.run.page_parts import SIDE, data_uri
from tf_metassl.run.panels import Confidence, Panels

# Okabe and Ito's colors, which people with color blindness can tell apart.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT = 380, 190
# Side of the reliability diagram, and images below which a bin has few.
_SQUARE, _FEW = 240, 10
# Classes up to which the confusion matrix is a table of numbers, and up to
# which it is drawn.
_MATRIX, _DRAWN = 30, 200
# Pairs of classes in the list of mistakes.
_MISTAKES = 15

# What a chart shows: title -> split, how metric names end, least upper bound.
_CHARTS = {
    "Training loss": ("train", "loss", None),
    "Accuracy on validation images": ("validation", "accuracy", 1.0),
    "Pseudo-labels: selected, right": (
        "train",
        ("selected_share", "label_accuracy"),
        1.0,
    ),
}


class Line(NamedTuple):
    """A metric in a chart.

    Attributes:
        name: of the metric.
        color: as CSS.
        points: for the attribute of an SVG polyline.
        end: x and y of the last point.
        last: its last value.
    """

    name: str
    color: str
    points: str
    end: tuple[str, str]
    last: float


class Chart(NamedTuple):
    """Metrics against the step.

    Attributes:
        title: what is shown.
        lines: a `Line` for each metric.
        low: value at the bottom.
        high: value at the top.
        last_step: step at the right.
    """

    title: str
    lines: list[Line]
    low: float
    high: float
    last_step: int


def charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of the metrics that a run has.

    Args:
        rows: of metrics.jsonl.
    """
    found = []
    for title, (split, ends, bound) in _CHARTS.items():
        of_split = [row for row in rows if row["split"] == split]
        names = dict.fromkeys(k for row in of_split for k in row)
        # "labeled_accuracy" is of the labels that are trained on.
        names = [
            k for k in names if k.endswith(ends) and k != "labeled_accuracy"
        ]
        series = {
            name: [(r["step"], r[name]) for r in of_split if name in r]
            for name in names[: len(_COLORS)]
        }
        series = {
            name: [(s, v) for s, v in points if math.isfinite(v)]
            for name, points in series.items()
        }
        series = {name: points for name, points in series.items() if points}
        if series:
            found.append(_chart(title, series, bound))
    return found


def _chart(
    title: str,
    series: Mapping[str, Sequence[tuple[int, float]]],
    bound: float | None,
) -> Chart:
    values = [v for points in series.values() for _, v in points]
    low, high = min(0.0, *values), bound or max(values)
    high = max(high, low + 1e-9)
    last_step = max(step for points in series.values() for step, _ in points)

    def place(step: int, value: float) -> tuple[str, str]:
        x = _WIDTH * step / max(last_step, 1)
        y = _HEIGHT * (1 - (value - low) / (high - low))
        return f"{x:.1f}", f"{y:.1f}"

    lines = [
        Line(
            name,
            color,
            " ".join(",".join(place(*p)) for p in points),
            place(*points[-1]),
            points[-1][1],
        )
        for (name, points), color in zip(series.items(), _COLORS, strict=False)
    ]
    return Chart(title, lines, low, high, last_step)


def mistakes(
    confusion: np.ndarray, class_names: Sequence[str]
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: true class, predicted one, count, share.

    Args:
        confusion: `[C, C]` counts; rows are true classes.
        class_names: one per class.

    Returns:
        At most 15, the share being of the images of the true class.
    """
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    pairs = [divmod(int(k), len(confusion)) for k in order]
    return [
        (
            class_names[i],
            class_names[j],
            int(wrong[i, j]),
            float(wrong[i, j] / confusion[i].sum()),
        )
        for i, j in pairs
        if wrong[i, j]
    ]


class Curve(NamedTuple):
    """A curve of the reliability diagram.

    Attributes:
        name: what is shown.
        color: as CSS.
        points: for the attribute of an SVG polyline, of bins with enough
            images.
        bins: x, y, whether it has enough images, and a text, of each bin that
            has images.
    """

    name: str
    color: str
    points: str
    bins: list[tuple[str, str, bool, str]]


def reliability_curves(found: Confidence) -> list[Curve]:
    """Accuracy against confidence, without and with the temperature.

    Args:
        found: a `Confidence`.
    """
    named = {"without temperature": found.before}
    if found.after is not None:
        named["with temperature"] = found.after
    curves = []
    for (name, of), color in zip(named.items(), _COLORS[1::-1], strict=False):
        bins = [
            (
                f"{_SQUARE * of.confidence[k]:.1f}",
                f"{_SQUARE * (1 - of.accuracy[k]):.1f}",
                bool(of.count[k] >= _FEW),
                f"{of.count[k]:,} of {found.num_images:,} images, confidence "
                f"{of.confidence[k]:.1%}, accuracy {of.accuracy[k]:.1%}",
            )
            for k in np.flatnonzero(of.count)
        ]
        points = " ".join(f"{x},{y}" for x, y, enough, _ in bins if enough)
        curves.append(Curve(name, color, points, bins))
    return curves


def _bars(histogram: np.ndarray) -> list[tuple[str, str, str, str, str]]:
    """x, y, width, height and a text, of the bars of a histogram."""
    step = _WIDTH / len(histogram)
    top = max(int(histogram.max()), 1)
    return [
        (
            f"{k * step:.1f}",
            f"{_HEIGHT * (1 - count / top):.1f}",
            f"{step - 1:.1f}",
            f"{_HEIGHT * count / top:.1f}",
            f"{k / len(histogram):.2f} to {(k + 1) / len(histogram):.2f}: "
            f"{count:,}",
        )
        for k, count in enumerate(histogram.tolist())
    ]


def _cells(confusion: np.ndarray) -> list[tuple[int, int, int, float]]:
    """Row, column, count and share of the row, of all counts that are not 0."""
    return [
        (i, j, int(confusion[i, j]), float(confusion[i, j] / row.sum()))
        for i, row in enumerate(confusion)
        for j in np.flatnonzero(row).tolist()
    ]


def render(
    *,
    plan: str,
    results: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    confusion: np.ndarray,
    class_names: Sequence[str],
    calibration: Calibration,
    provenance: Mapping[str, Any],
    panels: Panels | None = None,
) -> str:
    """The page as text.

    Args:
        plan: text of the plan.
        results: rows of the final table, the last one of the exported network.
        notes: sentences about what happened, such as recoveries.
        rows: of metrics.jsonl.
        confusion: `[C, C]` test counts of the exported network; rows are true
            classes.
        class_names: one per class.
        calibration: of the exported network.
        provenance: versions and fingerprints, name -> text.
        panels: what the exported network says of images; None leaves it out.
    """
    names = tuple(map(spelling.one_line, class_names))
    measured = Measurement(names, confusion, calibration.error_after)
    total = int(confusion.sum())
    right = int(np.trace(confusion))
    support = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    panels = panels or Panels()
    pool = panels.pool
    method = next(line for line in plan.splitlines() if "method" in line)
    return _template().render(
        method=method.split()[-1],
        plan=plan,
        results=results,
        columns=[k for k in results[-1] if k.endswith("accuracy")],
        notes=notes,
        charts=charts(rows),
        width=_WIDTH,
        height=_HEIGHT,
        total=total,
        accuracy=right / max(total, 1),
        interval=wilson_interval(right, total),
        classes=measured.by_class(),
        absent=[
            n for n, k in zip(names, confusion, strict=True) if not k.sum()
        ],
        matrix=len(names) <= _MATRIX,
        cells=_cells(confusion) if _MATRIX < len(names) <= _DRAWN else [],
        predicted=dict(zip(names, confusion.sum(axis=0).tolist(), strict=True)),
        names=names,
        short=[spelling.shortened(name) for name in names],
        counts=confusion.astype(int).tolist(),
        shares=(confusion / support).tolist(),
        mistakes=mistakes(confusion, names),
        calibration=calibration,
        confidence=panels.confidence,
        curves=reliability_curves(panels.confidence)
        if panels.confidence
        else [],
        square=_SQUARE,
        few=_FEW,
        pictures=[
            (data_uri(m.pixels), m, max(m.pixels.shape[:2]) < SIDE)
            for m in panels.mistakes
        ],
        shortened=spelling.shortened,
        pool=pool,
        bars=_bars(pool.histogram) if pool else [],
        most=int(pool.histogram.max()) if pool else 0,
        limits=panels.limits,
        provenance=provenance,
    )


@functools.cache
def _template():
    """The page; compiled where it is needed, long after a run's first step."""
    import jinja2

    path = pathlib.Path(__file__).with_name("report.html.jinja")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(path.read_text("utf-8"))
