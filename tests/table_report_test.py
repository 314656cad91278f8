"""Tables and figures are written from records."""

import csv

import numpy as np
import pytest

from tests.table_records import record
from tools import table_report, tables

TABLES = tables.tables("small")


def test_a_table_has_mean_deviation_and_the_papers_number(tmp_path):
    table = TABLES["meta_semi_5"]
    table = table._replace(cells=table.cells[:3])
    first, second, _ = table.cells
    records = [
        record(first, 1, 0.80),
        record(first, 0, 0.70, validation=0.9),
        record(second, 0, 0.25),
        # Of another protocol.
        record(first, 2, 0.0) | {"protocol": "best_validation"},
    ]
    text = table_report.markdown(table, records)
    assert text.startswith("# Meta-Semi, Table 5 (small scale)\n")
    assert tables.SMALL.text in text
    assert (
        "| Without parameter EMA "
        "| 40 labels (paper: CIFAR-100 with 4,000 labels) "
        "| test error 47.68 ± 0.27 % | 25.0 ± 7.1 | 30.0 ± 28.3 | 2 "
        "| 30.0 20.0 | 10 |"
    ) in text
    assert "| 75.0 | 50.0 | 1 | 75.0 | 10 |" in text
    assert "top-5" not in text
    records[-2]["results"][-1]["test_top_5_accuracy"] = 0.625
    assert "| 75.0 | 37.5 | 50.0 | 1 | 75.0 | 10 |" in (
        table_report.markdown(table, records)
    )
    assert text.count("\n| One-hot") == 0
    path = tmp_path / "table.csv"
    table_report.write_csv(path, table, records)
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert len(rows) == 2
    assert float(rows[0]["test_mean"]) == pytest.approx(25.0)
    assert float(rows[0]["test_std"]) == pytest.approx(50**0.5)
    assert rows[1]["test_std"] == "" and rows[0]["unit"] == "error"
    assert rows[0]["scale"] == "small"


def test_differences_are_paired_by_seed():
    table = TABLES["gate"]
    first, second = table.cells[0], table.cells[1]
    assert (first.row, second.row) == table.contrasts[0]
    records = [
        record(cell, seed, test)
        for cell, tests in ((first, (0.5, 0.9, 0.1)), (second, (0.6, 0.98)))
        for seed, test in enumerate(tests)
    ]
    values = table_report.paired_differences(
        records[:3], records[3:], "accuracy"
    )
    assert values == pytest.approx([10.0, 8.0])
    text = table_report.markdown(table, records)
    assert (
        "| supervised, MixUp − supervised | digits, 30 labels | +9.0 | 1.0 | "
        "+8.0 … +10.0 | 2 |\n"
    ) in text
    assert table_report.paired_differences(records[:3], [], "error") == []


def test_the_bootstrap_interval_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(2.0, 3.0, 400)
    low, high = table_report.bootstrap_interval(list(values))
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def lines_of(axes):
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_training_accuracy_is_the_mean_over_seeds():
    table = TABLES["mpl_figure_4"]

    def curve(value):
        return [
            {
                "step": step,
                "split": split,
                "student_accuracy": value,
                "teacher_accuracy": 0.5,
            }
            for step in (100, 200)
            for split in ("labeled", "validation")
        ]

    pairs = [
        (cell, [record(cell, 0, 1, curve=curve(v)) for v in (0.25, 0.75)])
        for cell in table.cells
    ]
    figure = table_report.FIGURES[table.name](pairs, "accuracy")
    assert [axes.get_title() for axes in figure.axes] == [table.cells[0].data]
    assert lines_of(figure.axes[0]) == {
        "Supervised": [[100, 50], [200, 50]],
        "Meta Pseudo Labels, student": [[100, 50], [200, 50]],
        "Meta Pseudo Labels, teacher": [[100, 50], [200, 50]],
    }


@pytest.mark.parametrize(
    "name, panels, places",
    [
        ("mpl_figure_5", 1, [10, 20, 40, 80, 160]),
        ("meta_semi_figure_3", 2, [0.1, 0.2, 0.5, 1, 2, 5]),
    ],
)
def test_curves_are_drawn_where_their_cells_are(name, panels, places):
    table = TABLES[name]
    pairs = [(cell, [record(cell, 0, 0.9)]) for cell in table.cells]
    figure = table_report.FIGURES[table.name](pairs, table.unit)
    assert len(figure.axes) == panels
    data = figure.axes[0].get_lines()[0].get_xydata()
    assert data[:, 0].tolist() == places
    assert data[:, 1] == pytest.approx(10.0)


def test_bars_are_as_high_as_the_means():
    table = TABLES["mpl_figure_3"]
    cells = [cell for cell in table.cells if "CIFAR" in cell.data]
    pairs = [(cell, [record(cell, s, 0.8 + 0.1 * s) for s in (0, 1)])
             for cell in cells]  # fmt: skip
    (axes,) = table_report.FIGURES[table.name](pairs, "accuracy").axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([85] * 4)
    assert axes.get_ylim() == pytest.approx((78, 92))
