"""Records are found by settings, and runs get the flags of their protocol."""

import pytest

from tests.table_records import record
from tools import table_runs, tables


def test_a_record_is_found_by_its_settings():
    def cell(*flags):
        return tables.Cell("row", "data", "", flags)

    digits = cell("--algo=meta_semi")
    same = cell("--algo=meta_semi", "--num_steps=600", "--dataset=digits")
    other = cell("--algo=meta_semi", "--mixup_alpha=0.5")
    of_same = record(same, 0, 0.9)
    assert table_runs.of_cell(digits, [of_same]) == [of_same]
    assert table_runs.of_cell(other, [of_same]) == []
    # A setting that the record lacks had its default ...
    del of_same["settings"]["mixup_alpha"]
    assert table_runs.of_cell(digits, [of_same]) == [of_same]
    assert table_runs.of_cell(other, [of_same]) == []
    # ... and one that no longer exists may have changed the results.
    of_same["settings"]["removed_setting"] = 1
    assert table_runs.of_cell(digits, [of_same]) == []


def test_cells_with_equal_settings_share_a_run():
    cells = [
        tables.Cell("row", "data", "", flags)
        for flags in (
            ("--algo=supervised",),
            ("--algo=supervised", "--num_steps=600"),
            ("--algo=randaugment",),
        )
    ]
    table = tables.Table("name", "title", cells)
    wanted = table_runs.missing(table, 2, [record(cells[2], 1, 0.5)])
    assert wanted == [(cells[0], 0), (cells[2], 0), (cells[0], 1)]


def test_a_cell_starts_from_the_network_of_another_run(tmp_path, monkeypatch):
    simclr, meta_semi = ("--algo=simclr",), ("--algo=meta_semi",)
    cell = tables.Cell("row", "data", "", meta_semi, simclr)
    alone = tables.Cell("row", "data", "", meta_semi)
    # Neither has the records of the other.
    assert table_runs.of_cell(alone, [record(cell, 0, 0.9)]) == []
    assert table_runs.of_cell(cell, [record(alone, 0, 0.9)]) == []
    commands = []

    def command(module, run_dir, threads, *arguments):
        commands.append((run_dir, arguments))
        run_dir.mkdir(parents=True)
        (run_dir / "results.json").write_text("[]")
        (run_dir / "timing.jsonl").write_text('{"wall_clock_seconds": 2.5}')

    monkeypatch.setattr(table_runs, "_command", command)
    options = {"protocol": "last", "num_checkpoints": 20, "threads": 1}
    made, run_dir = table_runs.run(cell, 3, folder=tmp_path, **options)
    (first_dir, first), (second_dir, second) = commands
    assert first[0] == "--algo=simclr" and "--seed=3" in first
    assert second[0] == "--algo=meta_semi" and "--seed=3" in second
    assert f"--init_weights={first_dir}" in second
    assert run_dir == second_dir != first_dir
    assert table_runs.of_cell(cell, [made]) == [made]
    assert made["seconds"] == 5.0  # Of both.
    # It is the run of the cell with these flags.
    other = tables.Cell("other", "data", "", simclr)
    place = table_runs.run_directory(other, 3, tmp_path, "last")
    assert first_dir == place


@pytest.mark.parametrize(
    "flags, every",
    [
        (("--algo=supervised", "--num_steps=2000"), 20),
        # Finetuning has 200 steps.
        (("--algo=mpl", "--num_steps=2000", "--finetune_steps=200"), 10),
        (("--algo=mpl", "--num_steps=2000", "--finetune_steps=0"), 20),
        (
            (
                "--algo=supervised",
                "--num_steps=2000",
                "--steps_per_execution=8",
            ),
            16,
        ),
    ],
)
def test_the_median_takes_twenty_checkpoints_of_every_stage(flags, every):
    wanted = tables.settings_of(flags)
    given = table_runs.protocol_flags("median_20", wanted, 100)
    assert f"--evaluate_every={every}" in given
    assert "--keep_checkpoints=20" in given


def test_the_median_works_for_tables_with_one_scale_alone():
    table = tables.tables("small")["digits"]
    count = table_runs.num_checkpoints(table)
    for cell in table.cells:
        assert table_runs.protocol_flags("median_20", cell.settings, count)


def test_the_median_refuses_stages_that_are_too_short():
    wanted = tables.settings_of(("--algo=mpl", "--finetune_steps=19"))
    with pytest.raises(ValueError, match="20 checkpoints of every stage"):
        table_runs.protocol_flags("median_20", wanted, 20)


def test_the_seconds_of_all_stages_are_added():
    rows = [{"wall_clock_seconds": s} for s in (5.0, 9.0, 2.0, 3.0)]
    assert table_runs._seconds(rows) == 12.0
