"""Tables and figures come from recorded runs."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest

from tf_metassl import config
from tools import reproduce_table, settings

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLES = {scale: reproduce_table.tables(scale) for scale in ("paper", "small")}


def record(cell, seed, test, validation=0.5, curve=()):
    results = [
        # Finetuning comes last; it is what is exported.
        {"stage": "train", "network": "ema", "deployed": True,
         "validation_accuracy": 0.0, "test_accuracy": 0.0},
        {"stage": "finetune", "network": "student", "deployed": True,
         "validation_accuracy": validation, "test_accuracy": test},
    ]  # fmt: skip
    return {
        "settings": cell.settings,
        "seed": seed,
        "protocol": "last",
        "seconds": 10.0 + seed,
        "results": results,
        "curve": list(curve),
    }


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


def test_no_two_cells_of_a_table_have_one_place():
    for tables in TABLES.values():
        for name, table in tables.items():
            places = [cell.name for cell in table.cells]
            assert len(set(places)) == len(places), name


def test_a_miniature_shrinks_lengths_like_the_run():
    cell = next(
        cell
        for cell in settings.cells()
        if cell.path == "fast_swa/cifar10_4000_cnn13.flags"
    )
    given = {name: setting.value for name, setting in cell.settings.items()}
    small = reproduce_table.miniature(cell, reproduce_table.SMALL)
    for name in ("swa_start", "cycle_start", "cycle_steps"):
        assert small[name] / 2000 == pytest.approx(
            given[name] / given["num_steps"], rel=0.05
        )
    # A hundredth of the paper's run; here, a tenth.
    assert small["unlabeled_ramp_steps"] == 200
    # A tenth of 4,000 labels; the average's decay of 0.97 is short already.
    assert small["num_labeled"] == 400
    assert "ema_decay" not in small and "swa_batches" not in small


def test_more_steps_are_all_that_the_longer_miniature_changes():
    differing = [
        {
            name
            for name, value in a.settings.items()
            if b.settings[name] != value
        }
        for table in ("mpl_figure_3", "meta_semi_5")
        for a, b in zip(
            reproduce_table.tables("small")[table].cells,
            reproduce_table.tables("long")[table].cells,
            strict=True,
        )
    ]
    lengths = {"num_steps", "evaluate_every", "ema_decay", "finetune_steps"}
    lengths |= {"warmup_steps", "student_wait_steps"}
    lengths |= {"uda_ramp_steps", "unlabeled_ramp_steps", "tsa_steps"}
    assert set().union(*differing) <= lengths
    assert all("num_steps" in names for names in differing)
    assert "10,000 steps of 32" in reproduce_table.LONG.what


@pytest.mark.parametrize("scale", reproduce_table.SCALES)
def test_all_miniatures_are_possible(scale):
    for cell in settings.cells():
        if cell.task.image_size > 96:
            continue
        given = {name: setting.value for name, setting in cell.settings.items()}
        chosen = reproduce_table.SCALES[scale]
        changes = reproduce_table.miniature(cell, chosen)
        resolved = config.resolve({"algo": cell.method, **given, **changes})
        assert resolved.dataset == chosen.flags["dataset"]
        if not resolved.time_budget_minutes:
            assert resolved.num_steps == chosen.flags["num_steps"]


def test_only_time_ends_the_miniatures_of_equal_time():
    cells = TABLES["small"]["meta_semi_4"].cells
    # An hour is 12 seconds.
    minutes = [cell.settings["time_budget_minutes"] for cell in cells[:4]]
    assert minutes == pytest.approx([1.0, 1.5, 2.0, 2.52])
    assert {cell.settings["num_steps"] for cell in cells} == {100_000}


def test_the_table_has_mean_deviation_and_the_papers_number(tmp_path):
    table = TABLES["small"]["meta_semi_5"]
    table = table._replace(cells=table.cells[:3])
    first, second, _ = table.cells
    records = [
        record(first, 1, 0.80),
        record(first, 0, 0.70, validation=0.9),
        record(second, 0, 0.25),
        # Of another protocol, so of another table.
        record(first, 2, 0.0) | {"protocol": "best_validation"},
    ]
    text = reproduce_table.markdown(table, records)
    assert text.startswith("# Meta-Semi, Table 5 in miniature\n")
    assert "A miniature, not the paper's experiment: Fashion-MNIST" in text
    assert (
        "| Without parameter EMA | 400 labels, for CIFAR-100 with 4,000 labels "
        "| test error 47.68 ± 0.27 % | 25.0 ± 7.1 | 30.0 ± 28.3 | 2 "
        "| 30.0 20.0 | 10 |"
    ) in text
    assert "| 75.0 | 50.0 | 1 | 75.0 | 10 |" in text
    assert "top-5" not in text
    records[-2]["results"][-1]["test_top_5_accuracy"] = 0.625
    assert "| 75.0 | 37.5 | 50.0 | 1 | 75.0 | 10 |" in (
        reproduce_table.markdown(table, records)
    )
    assert text.count("\n| One-hot") == 0
    path = tmp_path / "table.csv"
    reproduce_table.write_csv(path, table, records)
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert len(rows) == 2
    assert float(rows[0]["test_mean"]) == pytest.approx(25.0)
    assert float(rows[0]["test_std"]) == pytest.approx(50**0.5)
    assert rows[1]["test_std"] == "" and rows[0]["unit"] == "error"
    assert rows[0]["scale"] == "small"


def test_a_run_is_found_by_what_its_flags_mean():
    def cell(*flags):
        return reproduce_table.Cell("row", "data", "", flags)

    digits = cell("--algo=meta_semi")
    same = cell("--algo=meta_semi", "--num_steps=600", "--dataset=digits")
    other = cell("--algo=meta_semi", "--mixup_alpha=0.5")
    of_same = record(same, 0, 0.9)
    assert reproduce_table.of_cell(digits, [of_same]) == [of_same]
    assert reproduce_table.of_cell(other, [of_same]) == []
    # A flag that the record does not know has had its default ...
    del of_same["settings"]["mixup_alpha"]
    assert reproduce_table.of_cell(digits, [of_same]) == [of_same]
    assert reproduce_table.of_cell(other, [of_same]) == []
    # ... and one that is gone may have meant anything.
    of_same["settings"]["what_was_removed"] = 1
    assert reproduce_table.of_cell(digits, [of_same]) == []


def test_cells_that_mean_one_run_share_it():
    cells = [
        reproduce_table.Cell("row", "data", "", flags)
        for flags in (
            ("--algo=supervised",),
            ("--algo=supervised", "--num_steps=600"),
            ("--algo=randaugment",),
        )
    ]
    table = reproduce_table.Table("title", cells)
    wanted = reproduce_table.missing(table, 2, [record(cells[2], 1, 0.5)])
    assert wanted == [(cells[0], 0), (cells[2], 0), (cells[0], 1)]


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
def test_the_median_has_twenty_checkpoints_of_every_stage(flags, every):
    wanted = reproduce_table.settings_of(flags)
    given = reproduce_table.protocol_flags("median_20", wanted, 100)
    assert f"--evaluate_every={every}" in given
    assert "--keep_checkpoints=20" in given


def test_every_table_without_a_scale_of_its_own_has_a_median_too():
    table = TABLES["small"]["digits"]
    count = reproduce_table._num_checkpoints(table)
    for cell in table.cells:
        assert reproduce_table.protocol_flags("median_20", cell.settings, count)


def test_a_stage_too_short_for_a_median_is_refused():
    wanted = reproduce_table.settings_of(("--algo=mpl", "--finetune_steps=19"))
    with pytest.raises(ValueError, match="20 checkpoints of every stage"):
        reproduce_table.protocol_flags("median_20", wanted, 20)


def test_the_clock_of_every_stage_counts():
    rows = [{"wall_clock_seconds": s} for s in (5.0, 9.0, 2.0, 3.0)]
    assert reproduce_table._seconds(rows) == 12.0


def lines_of(axes):
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def test_training_accuracy_is_the_mean_over_seeds():
    table = TABLES["small"]["mpl_figure_4"]

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
    figure = table.figure(pairs, "accuracy")
    assert [axes.get_title() for axes in figure.axes] == [table.cells[0].data]
    assert lines_of(figure.axes[0]) == {
        "Supervised": [[100, 50], [200, 50]],
        "Meta Pseudo Labels, student": [[100, 50], [200, 50]],
        "Meta Pseudo Labels, teacher": [[100, 50], [200, 50]],
    }


@pytest.mark.parametrize(
    "name, panels, places",
    [
        ("mpl_figure_5", 1, [100, 200, 400, 800, 1600]),
        ("meta_semi_figure_3", 2, [0.1, 0.2, 0.5, 1, 2, 5]),
    ],
)
def test_curves_are_drawn_where_their_cells_are(name, panels, places):
    table = TABLES["small"][name]
    pairs = [(cell, [record(cell, 0, 0.9)]) for cell in table.cells]
    figure = table.figure(pairs, table.unit)
    assert len(figure.axes) == panels
    data = figure.axes[0].get_lines()[0].get_xydata()
    assert data[:, 0].tolist() == places
    assert data[:, 1] == pytest.approx(10.0)


def test_bars_are_as_high_as_the_means():
    table = TABLES["small"]["mpl_figure_3"]
    cells = [cell for cell in table.cells if "CIFAR" in cell.data]
    pairs = [(cell, [record(cell, s, 0.8 + 0.1 * s) for s in (0, 1)])
             for cell in cells]  # fmt: skip
    (axes,) = table.figure(pairs, "accuracy").axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([85] * 4)
    assert axes.get_ylim() == pytest.approx((78, 92))


def test_a_sweep_runs_what_is_missing_and_only_that(tmp_path):
    command = [
        sys.executable,
        "tools/reproduce_table.py",
        "--table=mpl_figure_4",
        "--scale=smoke",
        "--seeds=1",
        "--jobs=2",
        "--protocol=median_20",
        f"--out={tmp_path}",
    ]

    def run(*further):
        done = subprocess.run(
            [*command, *further], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = run()
    assert "Supervised, " in first and "validation 0." in first
    stem = tmp_path / "mpl_figure_4_smoke_median_20"
    for suffix in (".md", ".csv", ".png"):
        assert stem.with_suffix(suffix).stat().st_size > 0
    log = tmp_path / "runs.jsonl"
    lines = log.read_text().splitlines()
    assert len(lines) == 2 and not any((tmp_path / "runs").iterdir())
    of = {json.loads(line)["settings"]["algo"]: line for line in lines}
    curve = json.loads(of["supervised"])["curve"]
    steps = [row["step"] for row in curve]
    # Validation and labeled images, after each of the 20 steps.
    assert steps == sorted([*range(1, 21)] * 2)
    # Without one of the two, that one is run again.
    log.write_text(of["meta_pseudo_labels"] + "\n")
    again = run("--only=Supervised, ")
    assert again.count("validation 0.") == 1
    assert len(log.read_text().splitlines()) == 2
    # What was not run is in the table all the same.
    assert stem.with_suffix(".md").read_text().count("| Meta Pseudo") == 1
