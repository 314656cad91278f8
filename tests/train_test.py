"""The commands as a user runs them, for a few steps."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import tiny_algorithm
from tf_metassl import config
from tf_metassl.run import checkpoints, run_directory
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import build_experiment
from tf_metassl.run.metrics_file import MetricsFile

pytestmark = pytest.mark.slow

SHORT = ["--num_steps=12", "--evaluate_every=6", "--batch_size=16"]


def run(command, *arguments, check=True):
    done = subprocess.run(
        [sys.executable, "-m", f"tf_metassl.{command}", *arguments],
        capture_output=True,
        text=True,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short default run."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    done = run("train", *SHORT, f"--run_dir={run_dir}")
    return run_dir, done.stdout


def table_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def rows_of(run_dir):
    text = (run_dir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_plan_comes_first_and_the_table_last(finished):
    run_dir, output = finished
    plan = output[: output.index("step 6/12")]
    for word in (
        "meta_semi",
        "30 labeled (inside the unlabeled pool)",
        "200 validation, 397 test",
        "16 images a step",
        "passes",
        "digits_cnn: student 140,458 parameters",
        "auto: 1 x CPU, float32",
    ):
        assert word in plan
    table = table_of(output)
    assert [row.split("|")[1].strip() for row in table] == [
        "network",
        "---",
        "student",
        "ema (exported)",
    ]
    assert str(run_dir / "export" / "1") in output
    for word in ("images/s", "left", "selected_share", "pseudo_label_accuracy"):
        assert word in output


def test_the_run_directory_is_complete(finished):
    run_dir, output = finished
    for name in (
        "config.json",
        "run.flags",
        "provenance.json",
        "metrics.jsonl",
        "timing.jsonl",
        "results.json",
        "report.md",
        "report.html",
        "learning_curve.png",
        "confusion_matrix.png",
        "checkpoints/train/step-00000012/checksums.json",
        "checkpoints/train/best/state.json",
        "export/1/saved_model.pb",
    ):
        assert (run_dir / name).stat().st_size > 0, name
    for split in ("train", "validation"):
        assert list((run_dir / "tensorboard" / split).glob("events.*"))
    report = (run_dir / "report.md").read_text()
    for row in table_of(output):
        assert row in report


def test_metrics_have_a_row_per_step_and_split(finished):
    rows = rows_of(finished[0])
    assert [(row["step"], row["split"]) for row in rows] == [
        (6, "train"),
        (6, "validation"),
        (12, "train"),
        (12, "validation"),
    ]
    train = {
        "step",
        "split",
        "learning_rate",
        *tiny_algorithm("meta_semi").metric_names,
    }
    # No image is of a class that is not to be learned.
    train.remove("foreign_selected_share")
    assert set(rows[0]) == train
    assert set(rows[1]) == {
        "step",
        "split",
        "ema_accuracy",
        "ema_macro_f1",
    }


def test_evaluate_prints_the_same_numbers_again(finished):
    run_dir, output = finished
    again = run("evaluate", f"--run_dir={run_dir}").stdout
    assert table_of(again) == table_of(output)


def test_evaluate_takes_the_median_of_the_last_checkpoints(finished, tmp_path):
    run_dir, _ = finished
    out = tmp_path / "median.json"
    run("evaluate", f"--run_dir={run_dir}", "--median_of=2", f"--out={out}")
    rows = [r for r in rows_of(run_dir) if r["split"] == "validation"]
    student, exported = json.loads(out.read_text())
    assert student["network"] == "student" and exported["deployed"]
    both = [row["ema_accuracy"] for row in rows]
    assert exported["validation_accuracy"] == pytest.approx(np.mean(both))
    command = ("evaluate", f"--run_dir={run_dir}", "--median_of=3")
    refused = run(*command, check=False)
    assert refused.returncode == 1
    assert "the stage train has kept 2 checkpoints" in refused.stderr


SERVE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *arguments):
        if name.split(".")[0] in ("keras", "tf_metassl"):
            return None
        return self.finder.find_spec(name, *arguments)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
result = served(image=tf.constant(np.load(sys.argv[2])))
arrays = {k: np.array(v.numpy().tolist()) for k, v in result.items()}
np.savez(sys.argv[3], **arrays)
"""


def test_the_saved_model_serves_without_keras(finished, tmp_path):
    run_dir, _ = finished
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), np.uint8)
    np.save(tmp_path / "images.npy", images)
    script = tmp_path / "serve.py"
    script.write_text(SERVE)
    served = []
    run(
        "export",
        f"--run_dir={run_dir}",
        f"--output={tmp_path / 'again' / '2'}",
    )
    for folder in (run_dir / "export" / "1", tmp_path / "again" / "2"):
        out = tmp_path / "out.npz"
        subprocess.run(
            [sys.executable, script, folder, tmp_path / "images.npy", out],
            check=True,
            cwd=tmp_path,
        )
        served.append(dict(np.load(out)))
    experiment = build_experiment(run_directory.load_config(run_dir))
    ((_, algorithm),) = stage_lib.restored_stages(experiment, run_dir)
    logits = algorithm(images).numpy().astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for result in served:
        assert set(result) == {
            *("probabilities", "class_id", "class_name", "confidence")
        }
        np.testing.assert_allclose(result["probabilities"], expected, atol=1e-5)
        np.testing.assert_array_equal(result["class_id"], expected.argmax(1))
        assert [n.decode() for n in result["class_name"]] == [
            str(i) for i in expected.argmax(1)
        ]


def test_another_configuration_is_refused_field_by_field(finished):
    run_dir, _ = finished
    before = (run_dir / "config.json").read_bytes()
    done = run(
        "train",
        *SHORT,
        "--seed=4",
        "--mixup_alpha=0.5",
        f"--run_dir={run_dir}",
        check=False,
    )
    assert done.returncode == 1
    assert "seed: 0 -> 4" in done.stderr
    assert "mixup_alpha: 1.0 -> 0.5" in done.stderr
    assert (run_dir / "config.json").read_bytes() == before


def test_an_interrupted_run_goes_on_and_ends_like_the_other(finished, tmp_path):
    whole, output = finished
    settings = run_directory.load_config(whole)
    # The first half, as if the second had never happened.
    half = tmp_path / "half"
    experiment = build_experiment(settings)
    half.mkdir()
    run_directory.save_config(settings, half)
    stage = stage_lib.Stage("train", 6, lambda: experiment.algorithm)
    run_of_stage = stage_lib.StageRun(
        experiment, experiment.algorithm, stage, half, half
    )
    stage_lib.run_stage(run_of_stage)
    run_of_stage.metrics_file.write(9, "train", {"loss": 0.0})
    again = run("train", *SHORT, f"--run_dir={half}").stdout
    assert "Resuming train at step 6" in again
    assert table_of(again) == table_of(output)
    assert rows_of(whole) == rows_of(half)
    seconds = MetricsFile(half / "timing.jsonl").rows()
    assert [row["step"] for row in seconds] == [6, 12]
    assert 0 < seconds[0]["wall_clock_seconds"]
    assert seconds[0]["wall_clock_seconds"] < seconds[1]["wall_clock_seconds"]


def test_evaluating_an_unfinished_run_says_what_to_do(tmp_path):
    run_directory.save_config(config.resolve({"algo": "supervised"}), tmp_path)
    done = run("evaluate", f"--run_dir={tmp_path}", check=False)
    assert done.returncode == 1
    assert "finished 0 of 600 steps" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_time_budget_ends_every_stage_and_its_schedule(tmp_path):
    arguments = [
        "--algo=meta_pseudo_labels",
        "--num_steps=1000",
        "--finetune_steps=1000",
        "--evaluate_every=500",
        "--batch_size=16",
        "--time_budget_minutes=0.01",
        "--evaluate_on_labeled",
        "--evaluate_networks=all",
        f"--run_dir={tmp_path / 'run'}",
    ]
    done = run("train", *arguments)
    stages = tmp_path / "run" / "checkpoints"
    steps = []
    for stage in ("train", "finetune"):
        newest = checkpoints.newest_whole(stages / stage)
        state = json.loads((newest.path / "state.json").read_text())
        assert 1 < state["step"] < 500
        assert state["out_of_time"]
        steps.append(state["step"])
    written = rows_of(tmp_path / "run")
    found = [(row["step"], row["split"]) for row in written]
    splits = ("train", "validation", "labeled")
    # A later stage counts on from the planned end of the one before.
    ends = (steps[0], 1000 + steps[1])
    assert found == [(step, split) for step in ends for split in splits]
    assert "teacher_accuracy" in written[2]
    # By its few steps alone the rate would still be 0.09 or more.
    assert written[0]["learning_rate"] < 1e-6
    # Once more: nothing is trained or lost, and the table is the same.
    again = run("train", *arguments)
    assert rows_of(tmp_path / "run") == written
    assert table_of(again.stdout) == table_of(done.stdout)
    evaluated = run("evaluate", f"--run_dir={tmp_path / 'run'}")
    assert table_of(evaluated.stdout) == table_of(done.stdout)


def test_time_that_is_left_over_is_mentioned(tmp_path):
    arguments = ["--algo=supervised", *SHORT, "--time_budget_minutes=60"]
    done = run("train", *arguments, f"--run_dir={tmp_path / 'run'}")
    assert "took less than --time_budget_minutes=60" in done.stdout
    # The schedule is that of the steps.
    assert rows_of(tmp_path / "run")[-2]["learning_rate"] < 1e-6


@pytest.mark.exhaustive
def test_meta_pseudo_labels_runs_both_stages_on_two_replicas(tmp_path):
    run_dir = tmp_path / "run"
    flags = [
        "--algo=mpl",
        *SHORT,
        "--finetune_steps=6",
        "--strategy=mirrored",
        "--num_replicas=2",
        f"--run_dir={run_dir}",
    ]
    done = run("train", *flags)
    names = [row.split("|")[1].strip() for row in table_of(done.stdout)]
    assert names[2:] == [
        "student",
        "teacher",
        "ema",
        "student, after finetune (exported)",
    ]
    assert "mirrored: 2 x CPU" in done.stdout
    rows = rows_of(run_dir)
    assert rows[-1]["step"] == 18
    # A finished run that is started again neither trains nor loses anything.
    again = run("train", *flags).stdout
    assert "Resuming finetune at step 6" in again
    assert table_of(again) == table_of(done.stdout)
    assert rows_of(run_dir) == rows


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    done = run(
        "train",
        "--algo=supervised",
        *SHORT,
        "--learning_rate=1e30",
        f"--run_dir={tmp_path / 'run'}",
        check=False,
    )
    assert done.returncode == 1
    assert "The loss became" in done.stderr
    assert "--learning_rate" in done.stderr
