"""The command runs what is missing and writes the table."""

import json
import pathlib
import subprocess
import sys
import types

import pytest
from absl import app

from tools import reproduce_table, table_runs, tables

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[1]


def values(**given):
    """Parsed flags of the command."""
    plain = {"table": "digits", "scale": "small", "only": "", "extra": []}
    return types.SimpleNamespace(**plain | given)


def test_the_table_gets_the_flags_of_extra():
    extra = ["--num_steps=5"]
    table = reproduce_table.table_from_flags(values(extra=extra))
    assert table.name == "digits"
    assert all(cell.settings["num_steps"] == 5 for cell in table.cells)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"table": "mpl_3"}, "images are too large. .*digits"),
        ({"only": "none has this"}, "Its cells are:\n  supervised, 30 labels"),
    ],
)
def test_a_table_or_cell_that_does_not_exist_is_refused(given, message):
    with pytest.raises(app.UsageError, match=message):
        reproduce_table.table_from_flags(values(**given))


def test_a_run_that_fails_leaves_the_others_alone(capsys):
    cells = tables.tables("small")["digits"].cells[:2]
    row = {"deployed": True, "validation_accuracy": 0.5, "test_accuracy": 0.25}
    finished = []

    def train(cell, seed):
        if cell == cells[0]:
            raise RuntimeError("out of memory")
        return {"results": [row], "seconds": 3.0}, f"run {seed}"

    failed = reproduce_table.run_all(
        [(cell, 1) for cell in cells],
        train,
        1,
        lambda record, run_dir: finished.append(run_dir),
    )
    assert failed == ["supervised, 30 labels, seed 1"]
    assert finished == ["run 1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("seed 1 failed: out of memory")
    assert lines[1].endswith("seed 1: validation 0.5000, test 0.2500, 3 s")


def test_the_command_runs_what_is_missing_and_only_that(tmp_path):
    """One real run; the record of the other cell is made from it."""

    def run(*further):
        command = [
            sys.executable,
            "tools/reproduce_table.py",
            "--table=mpl_figure_4",
            "--scale=smoke",
            "--seeds=1",
            f"--out={tmp_path}",
            *further,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = run("--only=Supervised, ")
    assert "Supervised, " in first and first.count("validation 0.") == 1
    log = tmp_path / "runs.jsonl"
    (record,) = table_runs.read(log)
    assert not any((tmp_path / "runs").iterdir())
    steps = [row["step"] for row in record["curve"]]
    # Validation and labeled images, twice in 20 steps.
    assert steps == [10, 10, 20, 20]
    cells = tables.tables("smoke")["mpl_figure_4"].cells
    (other,) = (cell for cell in cells if cell.row != "Supervised")
    with log.open("a") as file:
        file.write(json.dumps({**record, "settings": other.settings}) + "\n")
    # Nothing is missing; cells that `--only` leaves out are in the table.
    again = run("--only=Supervised, ")
    assert "validation 0." not in again
    assert len(log.read_text().splitlines()) == 2
    stem = tmp_path / "mpl_figure_4_smoke"
    for suffix in (".md", ".csv", ".png"):
        assert stem.with_suffix(suffix).stat().st_size > 0
    text = stem.with_suffix(".md").read_text()
    assert text.count("| Supervised") == text.count("| Meta Pseudo") == 1
