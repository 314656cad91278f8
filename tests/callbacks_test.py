"""What the recorder writes and in which order; when a run is stopped."""

import json
import types

import keras
import pytest
import tensorflow as tf

from tests.helpers import run, tiny_algorithm, tiny_batch
from tf_metassl import config
from tf_metassl.algorithms.algorithm import Stage
from tf_metassl.errors import CollapseError, TrainingDivergedError
from tf_metassl.run import callbacks, checkpoints, collapse
from tf_metassl.run.metrics_file import MetricsFile
from tf_metassl.run.resume import ResumeState
from tf_metassl.run.stage import StageRun
from tf_metassl.run.termination import Terminated


def recorder_of(
    folder,
    accuracies=(),
    state=None,
    first_step=0,
    has_validation=True,
    **settings,
):
    """A `Recorder` whose evaluations give these accuracies, one by one.

    Returns:
        `(recorder, run)`, the `StageRun` of a tiny algorithm.
    """
    settings = config.resolve({"algo": "supervised", **settings})
    strategy = tf.distribute.get_strategy()
    stage_run = StageRun(
        types.SimpleNamespace(
            config=settings, strategy=strategy, has_validation=has_validation
        ),
        tiny_algorithm("supervised"),
        Stage("train", 6, None),
        folder,
        folder,
        first_step,
    )
    left = iter(accuracies)

    def evaluate(split, watchers):
        del split, watchers
        return {"student_accuracy": 0.0, "ema_accuracy": next(left)}

    recorder = callbacks.Recorder(stage_run, state or ResumeState(), evaluate)
    recorder.set_model(stage_run.algorithm)
    stage_run.algorithm.watch_loss()
    return recorder, stage_run


def state_of(path):
    return json.loads((path / "state.json").read_text())


def test_metrics_come_before_checkpoints_and_the_best_before_the_last(
    tmp_path, monkeypatch
):
    events = []
    write, save = MetricsFile.write, checkpoints.save

    def noted_write(self, step, split, values):
        events.append((self._path.name, split))
        write(self, step, split, values)

    def noted_save(*arguments, name, **options):
        events.append(("checkpoint", name))
        return save(*arguments, name=name, **options)

    monkeypatch.setattr(MetricsFile, "write", noted_write)
    monkeypatch.setattr(checkpoints, "save", noted_save)
    recorder, _ = recorder_of(tmp_path, [0.5])
    recorder.finish_epoch({"loss": 1.0})
    assert events == [
        ("timing.jsonl", "train"),
        ("metrics.jsonl", "train"),
        ("metrics.jsonl", "validation"),
        ("checkpoint", "best"),
        ("checkpoint", None),
    ]


def test_without_validation_images_there_is_only_the_last_checkpoint(tmp_path):
    recorder, stage_run = recorder_of(tmp_path, has_validation=False)
    assert recorder.finish_epoch({"loss": 1.0}) == {}
    names = {path.name for path in stage_run.checkpoints.iterdir()}
    assert names == {"step-00000000"}
    (row,) = stage_run.metrics_file.rows()
    assert row["split"] == "train"


def test_the_best_checkpoint_is_that_of_the_highest_accuracy(tmp_path):
    recorder, stage_run = recorder_of(tmp_path, [0.5, 0.4, 0.6], first_step=100)
    found = []
    for _ in range(3):
        run(stage_run.algorithm, tiny_batch())
        recorder.finish_epoch({"loss": 1.0})
        folder = stage_run.output_checkpoints
        state = state_of(folder / "best")
        found.append((state["step"], state["best_validation"]))
    assert found == [(1, 0.5), (1, 0.5), (3, 0.6)]
    last = state_of(checkpoints.last(folder, 1)[0])
    assert (last["step"], last["last_evaluation"]) == (3, 3)
    assert last["train_metrics"] is None
    # The steps of the stages before count in the metrics.
    rows = stage_run.metrics_file.rows()
    assert [row["step"] for row in rows] == [101, 101, 102, 102, 103, 103]
    assert rows[0]["learning_rate"] == pytest.approx(0.1)


def test_a_resumed_run_knows_its_best(tmp_path):
    state = ResumeState(best_validation=0.5, step=2, last_evaluation=2)
    recorder, stage_run = recorder_of(tmp_path, [0.4], state)
    recorder.finish_epoch({"loss": 1.0})
    assert not (stage_run.output_checkpoints / "best").exists()


def test_patience_counts_evaluations_without_gain(tmp_path):
    accuracies = [0.5, 0.4, 0.6, 0.6, 0.5]
    recorder, stage_run = recorder_of(tmp_path, accuracies, patience=2)
    found = []
    for _ in accuracies:
        run(stage_run.algorithm, tiny_batch())
        recorder.finish_epoch({"loss": 1.0})
        saved = state_of(checkpoints.last(stage_run.checkpoints, 1)[0])
        found.append((saved.get("evaluations_without_gain", 0)))
        assert recorder.has_ended == (len(found) == 5)
    assert found == [0, 1, 0, 1, 2]
    assert stage_run.algorithm.stop_training and recorder.state.step == 5
    # A run without patience does not count.
    state = ResumeState.from_json(saved)
    assert state.has_ended(2) and not state.has_ended(3)
    assert not state.has_ended(0)


@pytest.mark.parametrize(
    "first, last, resumed_at, per_call, expected",
    (
        (3, 4, 0, 1, [("start", 2), ("stop", 4)]),
        (1, 1, 0, 1, [("start", 0), ("stop", 1)]),
        # Whole calls of three steps.
        (5, 5, 0, 3, [("start", 3), ("stop", 6)]),
        # A resumed run: in between, and too late.
        (3, 5, 3, 1, [("start", 3), ("stop", 5)]),
        (3, 4, 4, 1, []),
        (0, -1, 0, 1, []),
        # The run ends before.
        (5, 9, 0, 1, [("start", 4), ("stop", 6)]),
    ),
)
def test_steps_that_are_profiled(
    monkeypatch, first, last, resumed_at, per_call, expected
):
    model = types.SimpleNamespace(steps_per_execution=per_call)
    model.finished_steps = resumed_at
    events = []
    monkeypatch.setattr(
        tf.profiler,
        "experimental",
        types.SimpleNamespace(
            start=lambda folder: events.append(("start", model.finished_steps)),
            stop=lambda: events.append(("stop", model.finished_steps)),
        ),
    )
    profiler = callbacks.Profiler("folder", first, last)
    profiler.set_model(model)
    while model.finished_steps < 6:
        profiler.on_train_batch_begin(0)
        model.finished_steps += per_call
        profiler.on_train_batch_end(0)
    profiler.stop()
    assert events == expected


def test_an_interrupted_run_goes_on_counting(tmp_path):
    state = ResumeState(best_validation=0.5, evaluations_without_gain=1)
    recorder, _ = recorder_of(tmp_path, [0.4], state, patience=2)
    recorder.finish_epoch({"loss": 1.0})
    assert recorder.has_ended


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = types.SimpleNamespace(seconds=1000.0)
    fake = types.SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(callbacks, "time", fake)
    return now


def test_a_time_budget_counts_from_the_first_step(tmp_path, clock):
    state = ResumeState(elapsed_share=0.25, wall_clock_seconds=7.0)
    recorder, stage_run = recorder_of(
        tmp_path, [0.5], state, time_budget_minutes=1.0
    )
    model = stage_run.algorithm
    model.elapsed = tf.Variable(0.0)
    recorder.on_train_begin()
    assert model.elapsed.numpy() == 0.25
    # Compiling takes 20 seconds, and 30 seconds lie between the first steps.
    for seconds, share in ((20, 0.25), (30, 0.75), (15, 1.0)):
        clock.seconds += seconds
        recorder.on_train_batch_end(0)
        assert model.elapsed.numpy() == share
        assert not recorder.out_of_time
    clock.seconds += 3
    recorder.finish_epoch({"loss": 1.0})
    assert recorder.out_of_time and model.stop_training
    saved = state_of(checkpoints.last(stage_run.output_checkpoints, 1)[0])
    assert saved["out_of_time"] and saved["elapsed_share"] == 1.05
    assert saved["wall_clock_seconds"] == 7.0 + 20 + 30 + 15 + 3


def test_checkpoints_between_evaluations(tmp_path, clock):
    recorder, stage_run = recorder_of(tmp_path, checkpoint_minutes=0.5)
    folder = stage_run.output_checkpoints
    for seconds, exists in ((29, False), (2, True)):
        clock.seconds += seconds
        run(stage_run.algorithm, tiny_batch())
        recorder.on_train_batch_end(0)
        assert folder.exists() == exists
    state = state_of(folder / "step-00000002")
    assert state["last_evaluation"] == 0
    # The mean of the unfinished epoch: a sum and a number of steps.
    assert len(state["train_metrics"]["loss"]) == 2


def test_sigterm_ends_at_the_next_step(tmp_path):
    recorder, stage_run = recorder_of(tmp_path)
    recorder.on_train_batch_end(0)
    assert stage_run.termination.deferred
    stage_run.termination.requested = True
    with pytest.raises(Terminated) as stopped:
        recorder.on_train_batch_end(0)
    path = stage_run.output_checkpoints / "step-00000000"
    assert f"The checkpoint {path} is written" in stopped.value.message
    assert path.exists()


def test_a_second_collapsed_interval_stops_the_run(tmp_path):
    recorder, stage_run = recorder_of(
        tmp_path, [0.5, 0.5, 0.5], collapse="stop"
    )
    recorder.finish_epoch({"loss": 1.0, "selected_share": 0.0})
    recorder.finish_epoch({"loss": 1.0, "selected_share": 0.5})
    stage_run.metrics_file.write(0, "train", {"selected_share": 0.0})
    with pytest.raises(CollapseError, match="--collapse=warn to continue"):
        recorder.finish_epoch({"loss": 1.0, "selected_share": 0.0})


def test_collapse_is_told_from_the_metrics():
    assert collapse.collapsed({"step": 3, "loss": 1.0}) is None
    good = {"pseudo_label_entropy": 0.9, "selected_share": 0.4}
    assert collapse.collapsed({"step": 3, **good}) is None
    row = {"step": 3, **good, "pseudo_label_entropy": 0.01}
    assert "one class" in collapse.collapsed(row)
    row = {"step": 3, "prototype_entropy": 0.1}
    assert "nearly all images have one prototype" in collapse.collapsed(row)
    row = {"step": 3, **good, "selected_share": 0.0}
    assert "0.00% of the pseudo-labels" in collapse.collapsed(row)


@pytest.mark.parametrize(
    "losses, max_loss, message",
    [
        # The first step counts, whenever it is read.
        ([1.0, float("nan"), 1.0], 0.0, "became nan at step 2"),
        ([float("inf"), float("nan")], 0.0, "became inf at step 1"),
        # Means of 1, 2.5 and 2.
        ([1.0, 4.0, 1.0], 2.0, "became 2.5 at step 2"),
        ([2.0, 2.0], 2.0, None),
        ([1e30], 0.0, None),
    ],
)
def test_a_loss_that_is_too_large_or_no_number(
    tmp_path, clock, losses, max_loss, message
):
    recorder, stage_run = recorder_of(tmp_path, checkpoint_minutes=1.0)
    model, left = stage_run.algorithm, tf.Variable(losses)

    def training_step(batch):
        del batch
        model.track("loss", left[tf.cast(model.step, tf.int32)])
        model.optimizer.iterations.assign_add(1)

    model.training_step = training_step
    model.watch_loss(max_loss)
    step = model.make_train_function()
    dataset = tf.data.Dataset.from_tensors(tiny_batch()).repeat()
    iterator = iter(dataset)
    for _ in losses:
        step(iterator)
        recorder.on_train_batch_end(0)
    clock.seconds += 2
    if message is None:
        recorder.on_train_batch_end(0)
        return
    for seconds in (0, 60):
        # Where the metrics are read, and before a checkpoint.
        clock.seconds += seconds
        with pytest.raises(TrainingDivergedError, match=message):
            recorder.on_train_batch_end(0)
    with pytest.raises(TrainingDivergedError, match=message):
        recorder.on_epoch_end(0)
    assert not stage_run.output_checkpoints.exists()
    # A run that has gone back begins again.
    model.watch_loss(max_loss)
    recorder.on_train_batch_end(0)


def test_metrics_are_read_now_and_then_and_no_step_is_waited_for(
    tmp_path, clock, monkeypatch
):
    recorder, stage_run = recorder_of(tmp_path)
    model, read = stage_run.algorithm, []
    monkeypatch.setattr(
        type(model), "train_results", lambda _: read.append(1) or {"loss": 0.5}
    )
    monkeypatch.setattr(
        keras.metrics.Mean, "result", lambda _: pytest.fail("was read")
    )
    model.reads_every_step = False
    step = model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(tiny_batch()).repeat())
    shown = []
    for _ in range(6):
        logs = step(iterator)
        assert logs == {}
        clock.seconds += 0.4
        recorder.on_train_batch_end(0, logs)
        shown.append(logs)
    assert shown == [{}, {}, {"loss": 0.5}] * 2 and len(read) == 2


def test_what_was_not_measured_is_not_written(tmp_path):
    recorder, run = recorder_of(tmp_path, [0.5])
    run.algorithm.watch_loss()
    run.algorithm.track("loss", 2.0)
    shown = {}
    recorder.on_epoch_end(0, shown)
    assert shown["loss"] == 2.0 and "labeled_accuracy" not in shown
    row = next(r for r in run.metrics_file.rows() if r["split"] == "train")
    assert row["loss"] == 2.0 and "labeled_accuracy" not in row


def test_a_collapse_of_the_stage_before_does_not_count(tmp_path):
    """The first collapsed interval of a stage warns, the second one stops."""
    recorder, run = recorder_of(
        tmp_path, [0.5, 0.5], first_step=6, collapse="stop"
    )
    run.metrics_file.write(6, "train", {"selected_share": 0.0})
    run.algorithm.optimizer.iterations.assign(1)
    recorder.finish_epoch({"loss": 1.0, "selected_share": 0.0})
    run.algorithm.optimizer.iterations.assign(2)
    with pytest.raises(CollapseError):
        recorder.finish_epoch({"loss": 1.0, "selected_share": 0.0})


def test_views_are_written_once_after_the_first_step(monkeypatch):
    written = []
    monkeypatch.setattr(
        callbacks,
        "write_view_images",
        lambda folder, batch: written.append((folder, int(batch))),
    )
    views = callbacks.ViewImages("folder", tf.data.Dataset.range(7, 9))
    views.on_train_batch_begin(0)
    assert not written
    for step in range(3):
        views.on_train_batch_end(step)
    assert written == [("folder", 7)]
