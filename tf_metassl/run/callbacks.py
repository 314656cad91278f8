"""What happens at evaluations: metrics file, TensorBoard, checkpoints."""

import contextlib
import json
import math
import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from rich import progress

from tf_metassl import files
from tf_metassl.errors import (
    CollapseError,
    TrainingDivergedError,
    WriteError,
    error_text,
)
from tf_metassl.ops import metrics
from tf_metassl.run import checkpoints
from tf_metassl.run.termination import Terminated


class MetricsFile:
    """`metrics.jsonl`: one object per step and split, in the order of steps.

    Args:
        path: the file.
    """

    def __init__(self, path):
        self._path = pathlib.Path(path)

    def truncate(self, step):
        """Removes the rows of later steps, which a resumed run writes again."""
        rows = [r for r in self.rows() if r["step"] <= step]
        text = "".join(json.dumps(r) + "\n" for r in rows)
        with _writing(self._path):
            files.write_text(self._path, text)

    def rows(self):
        """All whole rows; a line cut off by a crash is left out."""
        if not self._path.exists():
            return []
        rows = []
        for line in self._path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def write(self, step, split, values):
        """Appends a row; `values` maps names to floats.

        It is on disk when the checkpoint that counts on it is written.
        """
        row = {"step": step, "split": split, **values}
        with (
            _writing(self._path),
            open(self._path, "a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


class Recorder(keras.callbacks.Callback):
    """Evaluates and writes down at the end of every epoch; saves.

    An epoch is the interval between two evaluations, not a pass over a pool.
    A checkpoint is written after every evaluation, every `checkpoint_minutes`
    and when the process is asked to end. It holds the running means of the
    epoch that it falls into; one at the end of an epoch whose evaluation was
    not finished is resumed with that evaluation.

    Args:
        evaluate: function of a split and a list of callbacks that returns the
            metrics of that split, name -> float.
        run_dir: folder of the run.
        stage: name of the stage, for checkpoints and TensorBoard.
        metrics_file: a `MetricsFile`.
        timing_file: a `MetricsFile` for the seconds of training, apart from
            what must be the same whenever the run is repeated.
        best_metric: validation metric whose maximum makes the best
            checkpoint.
        state: what `checkpoints.restore` returned, or a fresh dict.
        termination: a `Termination`.
        worker_means: function of numbers, means over all workers; see
            `distribution.worker_means`.
        first_step: added to the stage's own steps in all that is written.
        checkpoint_minutes: minutes between checkpoints; 0 for none between
            evaluations.
        keep: how many checkpoints to keep beside the best.
        collapse: `warn`, `stop` or `off`.
        on_labeled: whether to evaluate on the labeled training images, too.
        time_budget_minutes: after so many since the first step, those of
            evaluations included, the stage is evaluated and ends; 0 for no
            limit. That it has ended is part of the checkpoint, so that a slower
            or faster restart does not change it.
    """

    def __init__(
        self,
        *,
        evaluate,
        run_dir,
        stage,
        metrics_file,
        timing_file,
        best_metric,
        state,
        termination,
        worker_means=lambda *values: values,
        first_step=0,
        checkpoint_minutes=0.0,
        keep=2,
        collapse="warn",
        on_labeled=False,
        time_budget_minutes=0.0,
    ):
        super().__init__()
        self._evaluate = evaluate
        self._folder = checkpoint_folder(run_dir, stage)
        self._metrics_file = metrics_file
        self._timing_file = timing_file
        self._best_metric = best_metric
        self._termination = termination
        self._worker_means = worker_means
        self._first_step = first_step
        self._interval = 60 * checkpoint_minutes or math.inf
        self._keep = keep
        self._collapse = collapse
        self._splits = ("validation", *["labeled"] * on_labeled)
        self._budget = 60 * time_budget_minutes or math.inf
        self.out_of_time = state.get("out_of_time", False)
        self._best = state.get("best_validation", -1.0)
        self._last_evaluation = state.get("last_evaluation", state["step"])
        self._recoveries = state.get("recoveries", [])
        self._restored_metrics = state.get("train_metrics")
        self._read_metrics = None
        self._seconds = state.get("wall_clock_seconds", 0.0)
        self._started = self._saved = time.monotonic()
        self._elapsed_share = state.get("elapsed_share", 0.0)
        self._share_before, self._first_batch = self._elapsed_share, None
        board = pathlib.Path(run_dir) / "tensorboard"
        self._writers = {
            split: tf.summary.create_file_writer(str(board / split))
            for split in ("train", *self._splits)
        }

    def on_train_begin(self, logs=None):
        """A resumed run knows the time. See `keras.callbacks.Callback`."""
        del logs
        self._take_time(self._elapsed_share)

    def on_epoch_begin(self, epoch, logs=None):
        """Undoes the reset of `fit`. See `keras.callbacks.Callback`."""
        del epoch, logs
        self._restore_metrics()

    def on_train_batch_end(self, batch, logs=None):
        """Saves, if it is time. See `keras.callbacks.Callback`.

        Raises:
            Terminated: if the process has been asked to end.
        """
        del batch, logs
        # From now on there is something to save before the process ends.
        self._termination.deferred = True
        ending, due, share = self._worker_means(
            self._termination.requested,
            time.monotonic() - self._saved > self._interval,
            self._share_of_budget(),
        )
        self._take_time(share)
        if ending or due:
            path = self.save(self._train_metrics())
        if ending:
            raise _terminated(path)

    def on_epoch_end(self, epoch, logs=None):
        """See `keras.callbacks.Callback` and `finish_epoch`."""
        del epoch
        validation = self.finish_epoch(logs or {})
        # Keras hands these on to later callbacks, such as the progress line.
        if logs is not None:
            logs.update({f"val_{k}": v for k, v in validation.items()})

    def finish_epoch(self, logs=None):
        """Evaluates, writes down and saves.

        Args:
            logs: training metrics, name -> scalar; None in a run that was
                resumed here: those of its checkpoint.

        Returns:
            The validation metrics, name -> float.

        Raises:
            Terminated: if the process has been asked to end.
            CollapseError: if that is to stop the run.
            WriteError: if the metrics cannot be written.
        """
        if logs is None:
            self._restore_metrics()
            logs = {m.name: m.result() for m in self.model.train_metrics}
        # In an order of their own, whoever has collected them.
        train = {name: float(logs[name]) for name in sorted(logs)}
        rate = tf.convert_to_tensor(self.model.optimizer.learning_rate)
        train["learning_rate"] = float(rate)
        # Evaluating resets them.
        train_metrics = self._train_metrics()
        try:
            watchers = [_Interrupter(self._ending)]
            results = {s: self._evaluate(s, watchers) for s in self._splits}
        except Terminated:
            path = self.save(train_metrics)
            raise _terminated(path) from None
        validation = results["validation"]
        self._write(train, results)
        self._last_evaluation = self.model.finished_steps
        self._take_time(*self._worker_means(self._share_of_budget()))
        better = validation[self._best_metric] > self._best
        self._best = max(self._best, validation[self._best_metric])
        # The best one first: it is looked for again if the run has to be
        # resumed from before this step.
        if better:
            self.save(None, name="best")
        path = self.save(None)
        self._watch_collapse()
        if self._ending():
            raise _terminated(path)
        return validation

    def save(self, train_metrics, name=None):
        """Writes a checkpoint.

        Args:
            train_metrics: running means of the unfinished epoch; None between
                two epochs.
            name: see `checkpoints.save`.

        Returns:
            Its path.

        Raises:
            TrainingDivergedError: if there is nothing good to save.
        """
        step = self.model.finished_steps
        if not checkpoints.all_finite(self.model):
            raise TrainingDivergedError("A parameter is not finite", step)
        state = {
            "best_validation": self._best,
            "last_evaluation": self._last_evaluation,
            "out_of_time": self.out_of_time,
            "elapsed_share": self._elapsed_share,
            "recoveries": self._recoveries,
            "train_metrics": train_metrics,
            "wall_clock_seconds": self._elapsed(),
        }
        path = checkpoints.save(
            self._folder, self.model, step, state, keep=self._keep, name=name
        )
        self._saved = time.monotonic()
        return path

    def _ending(self):
        return self._worker_means(self._termination.requested)[0] > 0

    def _elapsed(self):
        return self._seconds + time.monotonic() - self._started

    def _share_of_budget(self):
        """The share of the budget that is used up, by this worker's clock."""
        # What compiling takes says nothing about a method.
        self._first_batch = self._first_batch or time.monotonic()
        seconds = time.monotonic() - self._first_batch
        return self._share_before + seconds / self._budget

    def _take_time(self, share):
        """Ends the stage if its time is over, else tells how much is left."""
        self._elapsed_share = float(share)
        if self.model.elapsed is not None:
            self.model.elapsed.assign(min(self._elapsed_share, 1.0))
        self.out_of_time = self._elapsed_share > 1.0
        if self.out_of_time:
            self.model.stop_training = True

    def _train_metrics(self):
        if self._read_metrics is None:
            self._read_metrics = metrics.reader(
                self.model.train_metrics, self.model.distribute_strategy
            )
        return self._read_metrics()

    def _restore_metrics(self):
        """What `fit` or an evaluation has reset comes back, once."""
        if self._restored_metrics:
            metrics.from_lists(
                self.model.train_metrics,
                self.model.distribute_strategy,
                self._restored_metrics,
            )
        self._restored_metrics = None

    def _write(self, train, results):
        """Metrics of this step into the files and to TensorBoard."""
        shown = self._first_step + self.model.finished_steps
        seconds = {"wall_clock_seconds": self._elapsed()}
        self._timing_file.write(shown, "train", seconds)
        self._metrics_file.write(shown, "train", train)
        for split, values in results.items():
            self._metrics_file.write(shown, split, values)
        with _writing("The log of TensorBoard"):
            for split, values in results.items():
                with self._writers[split].as_default(shown):
                    for name, value in values.items():
                        tf.summary.scalar(name, value)
            with self._writers["train"].as_default(shown):
                for name, value in (train | seconds).items():
                    tf.summary.scalar(name, value)
                for variable in self.model.student.trainable_variables:
                    tf.summary.histogram(variable.path, variable.value)
            for writer in self._writers.values():
                writer.flush()

    def _watch_collapse(self):
        if self._collapse == "off":
            return
        rows = [r for r in self._metrics_file.rows() if r["split"] == "train"]
        found = collapsed(rows[-1])
        if not found:
            return
        logging.warning("%s", found)
        before = len(rows) > 1 and collapsed(rows[-2])
        if self._collapse == "stop" and before:
            raise CollapseError(
                f"{found} So it was in the interval before. The last "
                "checkpoint is kept; --collapse=warn goes on from it."
            )


class _Interrupter(keras.callbacks.Callback):
    """Ends an evaluation whose process has been asked to end."""

    def __init__(self, ending):
        super().__init__()
        self._ending = ending

    def on_test_batch_end(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        del batch, logs
        if self._ending():
            raise Terminated("Stopped by SIGTERM.")


def _terminated(path):
    return Terminated(
        f"Stopped by SIGTERM. {path} is written; the same command with "
        "--run_dir set to this run's folder goes on from it."
    )


@contextlib.contextmanager
def _writing(what):
    """Turns what a full disk raises into one message."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise WriteError(
            f"{what} cannot be written: {error_text(error)}. The "
            "last checkpoint is intact. Make room; the same command goes on "
            "from it."
        ) from error


# Entropy of three equally frequent classes among ten: 0.48.
_MIN_ENTROPY = 0.2
_MIN_SHARE = 0.001


def collapsed(row):
    """How the pseudo-labels of an interval have collapsed, or None.

    Args:
        row: a row of training metrics; methods without pseudo-labels have
            none that could.

    Returns:
        A sentence or None.
    """
    entropy = row.get("pseudo_label_entropy", 1.0)
    share = row.get("selected_share", 1.0)
    if entropy < _MIN_ENTROPY:
        return (
            f"Step {row['step']}: nearly all pseudo-labels are of one class: "
            f"the entropy of their classes is {entropy:.3f} of its maximum."
        )
    if share < _MIN_SHARE:
        return (
            f"Step {row['step']}: {share:.2%} of the pseudo-labels are "
            "selected: nothing is learned from unlabeled images."
        )
    return None


def checkpoint_folder(run_dir, stage):
    """Where the checkpoints of a stage are."""
    return pathlib.Path(run_dir) / "checkpoints" / stage


class DivergenceGuard(keras.callbacks.Callback):
    """Stops a run whose loss is not finite or too large, before it is saved.

    Args:
        max_loss: bound on the mean loss since the last evaluation; 0 for none.
    """

    def __init__(self, max_loss=0.0):
        super().__init__()
        self._max_loss = max_loss or math.inf

    def on_train_batch_end(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        del batch
        loss = float(logs["loss"])
        if not math.isfinite(loss) or loss > self._max_loss:
            raise TrainingDivergedError(
                f"The loss became {loss:g}", self.model.finished_steps
            )


class Progress(keras.callbacks.Callback):
    """A bar on a terminal, and a line per evaluation everywhere.

    Args:
        num_steps: steps of the stage.
        images_per_step: images that a step consumes, for images/s.
        verbose: 2 for both, 1 for the lines alone, 0 for nothing.
    """

    def __init__(self, *, num_steps, images_per_step, verbose):
        super().__init__()
        self._num_steps = num_steps
        self._images = images_per_step
        self._verbose = verbose
        self._bar = None
        if verbose == 2 and sys.stdout.isatty():
            self._bar = progress.Progress(
                progress.TextColumn("step"),
                progress.MofNCompleteColumn(),
                progress.BarColumn(bar_width=20),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.description}"),
            )
            self._task = self._bar.add_task("", total=num_steps)

    def on_train_begin(self, logs=None):
        """See `keras.callbacks.Callback`."""
        del logs
        if self._bar:
            self._bar.start()

    def on_train_end(self, logs=None):
        """Also for a training that ends early; once more does no harm."""
        del logs
        if self._bar:
            self._bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        """See `keras.callbacks.Callback`."""
        del epoch, logs
        self._begin = time.monotonic()
        self._begin_step = self.model.finished_steps

    def on_train_batch_end(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        elapsed = max(time.monotonic() - self._begin, 1e-9)
        self._speed = (batch + 1) / elapsed
        if self._bar and batch % 5 == 0:
            self._bar.update(
                self._task,
                completed=self._begin_step + batch + 1,
                description=self._line(logs),
            )

    def on_epoch_end(self, epoch, logs=None):
        """See `keras.callbacks.Callback`."""
        del epoch
        if not self._verbose:
            return
        step = self.model.finished_steps
        left = int((self._num_steps - step) / self._speed)
        line = f"step {step}/{self._num_steps}  "
        line += f"{left // 60}:{left % 60:02d} left  {self._line(logs)}"
        if self._bar:
            self._bar.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _line(self, logs):
        shown = " ".join(
            f"{name} {float(value):.3f}"
            for name, value in logs.items()
            if not name.endswith("macro_f1")
        )
        return f"{self._speed * self._images:,.0f} images/s  {shown}"


def write_view_images(run_dir, batch, num_images=16):
    """Writes the first images of every view of a batch to TensorBoard.

    Args:
        run_dir: folder of the run.
        batch: a training batch of one replica.
        num_images: images per view, side by side.
    """
    folder = pathlib.Path(run_dir) / "tensorboard" / "train"
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(0):
        for group, values in batch.items():
            for view, images in values.items():
                # Points, such as those of two_moons, are no pictures.
                if images.shape.rank == 4 and images.shape[-1] in (1, 3):
                    row = np.concatenate(list(images[:num_images]), axis=1)
                    tf.summary.image(f"{group}/{view}", row[np.newaxis])
    writer.close()
