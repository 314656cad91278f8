"""What happens when ...: the table of the README, row by row."""

import collections
import errno
import json
import math
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.helpers import mostly_exhaustive
from tf_metassl import config, files
from tf_metassl.data import sources
from tf_metassl.errors import (
    CheckpointError,
    CollapseError,
    ConfigError,
    TrainingDivergedError,
    WriteError,
)
from tf_metassl.run import (
    callbacks,
    collapse,
    evaluation,
    experiment,
    serving,
)
from tf_metassl.run.metrics_file import MetricsFile
from tf_metassl.run.termination import Terminated, Termination
from tools import kill_test

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_export(monkeypatch):
    """Exports take seconds, and no fault here concerns them."""
    monkeypatch.setattr(serving, "export_saved_model", lambda *_, **__: None)


def train(run_dir, **given):
    """Two intervals of three steps, as `python -m tf_metassl.train` would."""
    settings = {
        "algo": "supervised",
        "num_steps": 6,
        "evaluate_every": 3,
        "batch_size": 8,
        "num_validation": 50,
        "verbose": 0,
        "run_dir": str(run_dir),
    }
    with Termination() as termination:
        experiment.train(config.resolve(settings | given), termination)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run to which nothing has happened."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "export_saved_model", lambda *_, **__: None)
        train(run_dir)
    return run_dir


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it, to be harmed."""
    return pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))


def steps_of(run_dir):
    folder = run_dir / "checkpoints" / "train"
    return sorted(path.name for path in folder.iterdir())


def changes(one, other):
    """What two runs have computed differently."""
    return kill_test.differences(
        kill_test.computed(one), kill_test.computed(other)
    )


def at_step(monkeypatch, step, harm, times=1):
    """Calls `harm(model)` when the loop has finished `step`."""
    original = callbacks.Recorder.on_train_batch_end
    left = [times]

    def on_train_batch_end(self, batch, logs=None):
        if self.model.finished_steps == step and left[0]:
            left[0] -= 1
            harm(self.model)
        original(self, batch, logs)

    monkeypatch.setattr(
        callbacks.Recorder, "on_train_batch_end", on_train_batch_end
    )


def terminate(*_):
    os.kill(os.getpid(), signal.SIGTERM)


# SIGTERM.


@pytest.mark.parametrize(
    "step, left",
    [
        (2, ["step-00000002"]),
        # Before the evaluation that step 3 calls for.
        pytest.param(3, ["step-00000003"], marks=pytest.mark.exhaustive),
        (5, ["best", "step-00000003", "step-00000005"]),
    ],
)
def test_sigterm_ends_at_a_checkpoint(whole, tmp_path, monkeypatch, step, left):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, step, terminate)
        with pytest.raises(Terminated, match="143") as stopped:
            train(run_dir)
    assert left[-1] in stopped.value.message
    assert steps_of(run_dir) == left
    train(run_dir)
    assert not changes(whole, run_dir)


def test_sigterm_during_an_evaluation(whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    original = evaluation.evaluate

    def evaluate(*arguments, **options):
        terminate()
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "evaluate", evaluate)
        with pytest.raises(Terminated, match="143"):
            train(run_dir)
    assert steps_of(run_dir) == ["step-00000003"]
    assert (run_dir / "metrics.jsonl").read_text() == ""
    train(run_dir)
    assert not changes(whole, run_dir)


@pytest.fixture
def python_handles_sigint():
    """A job that a script started in the background inherits ignoring it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_sigint")
def test_ctrl_c_loses_nothing_that_was_saved(whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(run_dir)
    assert steps_of(run_dir) == ["best", "step-00000003"]
    train(run_dir)
    assert not changes(whole, run_dir)


def test_ctrl_c_has_its_exit_code():
    script = (
        "from tf_metassl.run import command_line\n"
        "def main(_): raise KeyboardInterrupt\n"
        "command_line.run(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130
    assert "to resume from the last checkpoint" in done.stderr


def test_sigterm_during_data_preparation(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "load", terminate)
    with pytest.raises(Terminated, match="143"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_sigterm_in_the_second_stage(tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    flags = {
        "algo": "meta_pseudo_labels",
        "num_steps": 1,
        "evaluate_every": 1,
        "finetune_steps": 3,
        "feedback": "off",
    }
    with monkeypatch.context() as patch:
        at_step(patch, 2, terminate)
        with pytest.raises(Terminated) as stopped:
            train(run_dir, **flags)
    assert "finetune/step-00000002" in stopped.value.message
    train(run_dir, **flags)
    assert "Resuming finetune at step 2" in capsys.readouterr().out
    rows = MetricsFile(run_dir / "metrics.jsonl").rows()
    assert [row["step"] for row in rows[::2]] == [1, 2, 3, 4]


# Checkpoints between evaluations.


@pytest.mark.exhaustive
def test_a_run_that_ends_by_patience_is_resumed_exactly(tmp_path, monkeypatch):
    given = {"num_steps": 60, "patience": 1}
    train(tmp_path / "whole", **given)
    *_, last = MetricsFile(tmp_path / "whole" / "metrics.jsonl").rows()
    assert last["step"] < 60
    text = (tmp_path / "whole" / "report.md").read_text()
    assert f"train ended at step {last['step']} of 60: in 1 evaluations" in text
    at_step(monkeypatch, last["step"] - 1, terminate)
    with pytest.raises(Terminated):
        train(tmp_path / "cut", **given)
    for _ in range(2):
        train(tmp_path / "cut", **given)
        assert changes(tmp_path / "whole", tmp_path / "cut") == []
    assert (tmp_path / "cut" / "report.md").read_text() == text


@pytest.mark.exhaustive
def test_a_killed_extension_is_resumed_exactly(copy, tmp_path, monkeypatch):
    shutil.copytree(copy, tmp_path / "cut")
    train(copy, extend_to=12)
    rows = MetricsFile(copy / "metrics.jsonl").rows()
    rates = {
        r["step"]: r["learning_rate"] for r in rows if r["split"] == "train"
    }
    # 0 at the end of six steps; then that of 12 steps.
    assert rates[6] == pytest.approx(0.0, abs=1e-8)
    assert rates[9] == pytest.approx(0.05 * (1 + math.cos(math.pi * 9 / 12)))
    assert rates[12] == pytest.approx(0.0, abs=1e-8)
    text = (copy / "report.md").read_text()
    assert "finished at step 6 and then extended to 12 steps" in text
    assert "evaluated 2 times" in text
    assert "finished at step 6 and" in (copy / "report.html").read_text()
    at_step(monkeypatch, 8, terminate)
    with pytest.raises(Terminated):
        train(tmp_path / "cut", extend_to=12)
    with pytest.raises(ConfigError, match="Add --extend_to=12 to resume"):
        train(tmp_path / "cut")
    train(tmp_path / "cut", extend_to=12)
    assert changes(copy, tmp_path / "cut") == []
    assert (tmp_path / "cut" / "report.md").read_text() == text


def test_patience_needs_validation_images(tmp_path):
    with pytest.raises(ConfigError, match="--patience=1 needs validation"):
        train(tmp_path, num_steps=60, patience=1, num_validation=0)


@pytest.mark.exhaustive
def test_a_checkpoint_after_every_step_changes_nothing(whole, tmp_path):
    train(tmp_path / "run", checkpoint_minutes=1e-9, keep_checkpoints=4)
    assert steps_of(tmp_path / "run") == [
        "best",
        *(f"step-0000000{step}" for step in (3, 4, 5, 6)),
    ]
    assert not changes(whole, tmp_path / "run")


# Damaged checkpoints.


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


HARMS = (flip, truncate, pathlib.Path.unlink)


def newest(run_dir):
    last = run_dir / "checkpoints" / "train" / "step-00000006"
    return next(last.glob("variables.data-*"))


@pytest.mark.parametrize("harm", mostly_exhaustive(HARMS, [flip]))
def test_a_damaged_checkpoint_is_skipped(whole, copy, harm, caplog, capsys):
    harm(newest(copy))
    train(copy)
    assert "Skipping the checkpoint" in caplog.text
    assert "Resuming train at step 3" in capsys.readouterr().out
    assert not changes(whole, copy)


@pytest.mark.parametrize(
    "selection", mostly_exhaustive(("last", "best_validation"), ["last"])
)
def test_a_resumed_run_hashes_every_file_of_a_checkpoint_once(
    selection, whole, tmp_path, monkeypatch
):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 5, terminate)
        with pytest.raises(Terminated):
            train(run_dir, selection=selection)
    count = collections.Counter()
    real = files.sha256
    monkeypatch.setattr(
        files, "sha256", lambda path: count.update([path]) or real(path)
    )
    train(run_dir, selection=selection)
    resumed_from = run_dir / "checkpoints" / "train" / "step-00000005"
    read = [path for path in count if not path.parent.name.startswith(".")]
    assert {path for path in read if path.parent == resumed_from} == {
        path for path in resumed_from.iterdir() if path.name != "checksums.json"
    }
    assert max(count[path] for path in read) == 1


def test_with_all_checkpoints_damaged_the_run_stops(copy):
    before = (copy / "metrics.jsonl").read_bytes()
    for path in copy.glob("checkpoints/train/step-*/variables.data-*"):
        flip(path)
    with pytest.raises(CheckpointError, match="None of the 2"):
        train(copy)
    assert (copy / "metrics.jsonl").read_bytes() == before


# A full disk.


def test_a_full_disk_during_a_checkpoint(whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"

    def limit(_):
        # The kernel refuses larger files from here on, to TensorFlow as well.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        at_step(patch, 6, limit)
        try:
            with pytest.raises(
                CheckpointError, match="; File too large. Earlier"
            ):
                train(run_dir)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert steps_of(run_dir) == ["best", "step-00000003"]
    train(run_dir)
    assert not changes(whole, run_dir)


@pytest.mark.exhaustive
def test_no_space_left_during_a_checkpoint(whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"

    def fill(_):
        def full(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        patch.setattr(files, "sync", full)

    with monkeypatch.context() as patch:
        at_step(patch, 6, fill)
        with pytest.raises(CheckpointError, match="No space left"):
            train(run_dir)
    assert steps_of(run_dir) == ["best", "step-00000003"]
    train(run_dir)
    assert not changes(whole, run_dir)


@pytest.mark.exhaustive
@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="this system has no /dev/full"
)
def test_a_full_disk_while_metrics_are_written(whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    file, kept = run_dir / "metrics.jsonl", run_dir / "kept"

    def fill(_):
        file.rename(kept)
        file.symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        at_step(patch, 6, fill)
        with pytest.raises(WriteError, match="No space left") as full:
            train(run_dir)
    assert "metrics.jsonl cannot be written" in str(full.value)
    assert steps_of(run_dir) == ["best", "step-00000003"]
    # A row that is cut off is what a disk that fills up leaves.
    kept.write_text(kept.read_text() + '{"step": 6, "spl')
    kept.rename(file)
    train(run_dir)
    assert not changes(whole, run_dir)


# Losses.


def poison(model):
    variable = model.student.trainable_variables[0]
    variable.assign(variable.value * np.nan)


def test_a_parameter_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    at_step(monkeypatch, 3, poison)
    with pytest.raises(TrainingDivergedError, match="parameter .* at step 3"):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    with pytest.raises(TrainingDivergedError, match="loss became .* at step 1"):
        train(tmp_path / "run", max_loss=0.01)


def test_recovery_goes_back_with_other_batches(whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 4, poison)
        train(run_dir, recover_from_nan=1)
    line = (
        "- The loss became nan at step 5 of train: the run went back to step 3 "
        "and continued with other batches.\n"
    )
    assert line in (run_dir / "report.md").read_text()
    rows = (run_dir / "metrics.jsonl").read_text().splitlines()
    undisturbed = (whole / "metrics.jsonl").read_text().splitlines()
    assert rows[:2] == undisturbed[:2]
    assert len(rows) == 4 and rows[2] != undisturbed[2]
    # A process that starts again knows of it.
    (run_dir / "report.md").unlink()
    train(run_dir, recover_from_nan=1)
    assert line in (run_dir / "report.md").read_text()


@pytest.mark.exhaustive
def test_recovery_is_resumed_exactly(tmp_path, monkeypatch):
    for name in ("whole", "stopped"):
        with monkeypatch.context() as patch:
            at_step(patch, 2, poison)
            if name == "stopped":
                at_step(patch, 4, terminate)
                with pytest.raises(Terminated):
                    train(tmp_path / name, recover_from_nan=1)
            else:
                train(tmp_path / name, recover_from_nan=1)
    train(tmp_path / "stopped", recover_from_nan=1)
    assert not changes(tmp_path / "whole", tmp_path / "stopped")
    folder = tmp_path / "stopped" / "checkpoints" / "train" / "step-00000006"
    state = json.loads((folder / "state.json").read_text())
    assert [entry["back_to"] for entry in state["recoveries"]] == [0]


def test_recoveries_come_to_an_end(tmp_path, monkeypatch, capsys):
    at_step(monkeypatch, 4, poison, times=9)
    with pytest.raises(TrainingDivergedError, match="nan at step 5"):
        train(tmp_path / "run", recover_from_nan=2)
    assert capsys.readouterr().out.count("went back to step 3") == 2
    assert steps_of(tmp_path / "run")[-1] == "step-00000003"


def test_collapse_warns_or_stops(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(collapse, "collapsed", lambda row: "It is so.")
    run_dir = tmp_path / "run"
    with pytest.raises(CollapseError, match="It is so"):
        train(run_dir, collapse="stop")
    assert caplog.text.count("It is so") == 2
    assert steps_of(run_dir)[-1] == "step-00000006"
    train(run_dir, collapse="warn")
    assert (run_dir / "report.md").exists()


# Data and settings.


def folder_flags(place):
    return {
        "dataset": "folder",
        "labeled_dir": str(place / "images"),
        "cache_dir": str(place / "cache"),
        "model": "digits_cnn",
        "num_validation": 4,
        "max_bad_fraction": 0.1,
    }


@pytest.fixture(scope="module")
def on_files(tmp_path_factory):
    """A finished run on 24 image files of two classes."""
    place = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (place / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            path = place / "images" / name / f"{i}.png"
            Image.fromarray(pixels).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "export_saved_model", lambda *_, **__: None)
        train(place / "run", **folder_flags(place))
    return place


def test_an_image_that_cannot_be_read_any_more(on_files, tmp_path):
    place = pathlib.Path(shutil.copytree(on_files, tmp_path / "place"))
    flags = folder_flags(place) | {
        "allow_changed": "labeled_dir",
        "cache_dir": str(tmp_path / "cache"),
    }
    train(place / "run", **flags)
    truncate(place / "images" / "cat" / "3.png")
    with pytest.raises(ConfigError) as refused:
        train(place / "run", **flags)
    assert "_images: " in str(refused.value)
    # Left out and told about, if that is what is wanted.
    flags["allow_changed"] += ",train_images,test_images,splits"
    train(place / "run", **flags)
    assert "3.png" in (place / "run" / "bad_images.csv").read_text()
    # Too many of them stop the run before it starts.
    for i in range(8):
        truncate(place / "images" / "dog" / f"{i}.png")
    with pytest.raises(ConfigError, match="image files cannot be used"):
        train(place / "run", **flags)


def test_a_damaged_cache_is_decoded_again(on_files, capfd):
    run_dir = on_files / "run"
    before = kill_test.computed(run_dir)
    (file,) = on_files.glob("cache/*/train.u8")
    flip(file)
    train(run_dir, **folder_flags(on_files))
    assert "building it again" in capfd.readouterr().err
    assert kill_test.computed(run_dir) == before


def test_wrong_flags_are_refused_and_allowed_ones_go_on(copy):
    with pytest.raises(ConfigError, match="learning_rate: 0.1 -> 0.2"):
        train(copy, learning_rate=0.2)
    settings = json.loads((copy / "config.json").read_text())
    assert settings["learning_rate"] == 0.1
    train(copy, num_steps=8, allow_changed="num_steps")
    assert steps_of(copy)[-1] == "step-00000008"
