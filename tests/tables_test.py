"""Tables, cells and scales of tools/tables.py."""

import pathlib

import pytest

from tf_metassl import config
from tools import settings, tables

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLES = {scale: tables.tables(scale) for scale in ("paper", "small")}


def test_every_table_and_figure_of_both_papers_is_there():
    mpl = ["mpl_2", "mpl_3", "mpl_4", "mpl_9"]
    mpl += [f"mpl_figure_{n}" for n in (3, 4, 5)]
    meta_semi = [f"meta_semi_{n}" for n in (1, 2, 3, 4, 5)]
    assert {*mpl, *meta_semi, "meta_semi_figure_3"} <= set(TABLES["paper"])
    assert {"digits", "feedback"} <= set(TABLES["small"])
    cells = TABLES["paper"]["meta_semi_5"].cells
    assert [cell.flags for cell in cells[:2]] == [
        ("--flagfile=flags/meta_semi/cifar100_4000_cnn13_without_ema.flags",),
        ("--flagfile=flags/meta_semi/cifar100_10000_cnn13_without_ema.flags",),
    ]
    assert cells[0].number == "test error 47.68 ± 0.27 %"
    for table in TABLES["paper"].values():
        for cell in table.cells:
            path = cell.flags[0].removeprefix("--flagfile=")
            assert path == cell.flags[0] or (ROOT / path).exists()


def test_cells_of_a_table_have_different_names():
    for found in TABLES.values():
        for name, table in found.items():
            names = [cell.name for cell in table.cells]
            assert len(set(names)) == len(names), name


def test_a_scale_shrinks_lengths_in_proportion_to_the_run():
    cell = next(
        cell
        for cell in settings.cells()
        if cell.path == "fast_swa/cifar10_4000_cnn13.flags"
    )
    given = {name: setting.value for name, setting in cell.settings.items()}
    small = tables.scaled(cell, tables.SMALL)
    for name in ("swa_start", "cycle_start", "cycle_steps"):
        assert small[name] / 600 == pytest.approx(
            given[name] / given["num_steps"], rel=0.05
        )
    # A hundredth of the paper's run would be too short: a tenth.
    assert small["unlabeled_ramp_steps"] == 60
    # A hundredth of 4,000 labels. The average with decay 0.97 is short enough.
    assert small["num_labeled"] == 40
    assert "ema_decay" not in small and "swa_batches" not in small


@pytest.mark.parametrize("scale", tables.SCALES)
def test_every_cell_resolves_at_every_scale(scale):
    for cell in settings.cells():
        if cell.task.image_size > 96:
            continue
        given = {name: setting.value for name, setting in cell.settings.items()}
        chosen = tables.SCALES[scale]
        changes = tables.scaled(cell, chosen)
        resolved = config.resolve({"algo": cell.method, **given, **changes})
        assert resolved.dataset == chosen.flags["dataset"]
        if not resolved.time_budget_minutes:
            assert resolved.num_steps == chosen.flags["num_steps"]


def test_runs_with_a_time_budget_have_more_steps_than_fit():
    cells = TABLES["small"]["meta_semi_4"].cells
    # An hour is 12 seconds.
    minutes = [cell.settings["time_budget_minutes"] for cell in cells[:4]]
    assert minutes == pytest.approx([1.0, 1.5, 2.0, 2.52])
    assert {cell.settings["num_steps"] for cell in cells} == {100_000}
