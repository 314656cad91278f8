"""What happens at evaluations: metrics file, TensorBoard, checkpoints."""

import json
import math
import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from rich import progress

from tf_metassl import checkpoints


class TrainingDivergedError(RuntimeError):
    """The loss is not a number any more."""


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
        aside = self._path.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(r) + "\n" for r in rows))
        os.replace(aside, self._path)

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
        """Appends a row; `values` maps names to floats."""
        row = {"step": step, "split": split, **values}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class Recorder(keras.callbacks.Callback):
    """At the end of every epoch: evaluate, write down, save.

    An epoch is the interval between two evaluations, not a pass over a pool.

    Args:
        evaluate: function without arguments that returns the validation
            metrics, name -> float.
        run_dir: folder of the run.
        stage: name of the stage, for checkpoints and TensorBoard.
        metrics_file: a `MetricsFile`.
        best_metric: validation metric whose maximum makes the best
            checkpoint.
        state: what `checkpoints.restore` returned, or a fresh dict.
        first_step: added to the stage's own steps in all that is written.
    """

    def __init__(
        self,
        *,
        evaluate,
        run_dir,
        stage,
        metrics_file,
        best_metric,
        state,
        first_step=0,
    ):
        super().__init__()
        self._evaluate = evaluate
        self._folder = checkpoint_folder(run_dir, stage)
        self._metrics_file = metrics_file
        self._best_metric = best_metric
        self._first_step = first_step
        self._best = state.get("best_validation", -1.0)
        self._seconds = state.get("wall_clock_seconds", 0.0)
        self._started = time.monotonic()
        board = pathlib.Path(run_dir) / "tensorboard"
        self._writers = {
            split: tf.summary.create_file_writer(str(board / split))
            for split in ("train", "validation")
        }

    def on_epoch_end(self, epoch, logs=None):
        """See `keras.callbacks.Callback`."""
        del epoch
        step = self.model.finished_steps
        shown = self._first_step + step
        seconds = self._seconds + time.monotonic() - self._started
        train = {name: float(value) for name, value in (logs or {}).items()}
        rate = tf.convert_to_tensor(self.model.optimizer.learning_rate)
        train["learning_rate"] = float(rate)
        validation = self._evaluate()
        for split, values in (("train", train), ("validation", validation)):
            self._metrics_file.write(
                shown, split, {**values, "wall_clock_seconds": seconds}
            )
            with self._writers[split].as_default(shown):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
        with self._writers["train"].as_default(shown):
            for variable in self.model.student.trainable_variables:
                tf.summary.histogram(variable.path, variable.value)
        for writer in self._writers.values():
            writer.flush()

        better = validation[self._best_metric] > self._best
        self._best = max(self._best, validation[self._best_metric])
        state = {
            "best_validation": self._best,
            "wall_clock_seconds": seconds,
        }
        checkpoints.save(self._folder, self.model, step, state)
        if better:
            checkpoints.save(self._folder, self.model, step, state, name="best")
        # Keras hands these on to later callbacks, such as the progress line.
        if logs is not None:
            logs.update({f"val_{k}": v for k, v in validation.items()})


def checkpoint_folder(run_dir, stage):
    """Where the checkpoints of a stage are."""
    return pathlib.Path(run_dir) / "checkpoints" / stage


class DivergenceGuard(keras.callbacks.Callback):
    """Stops a run whose loss is not finite, before it is saved."""

    def on_train_batch_end(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        del batch
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            step = self.model.finished_steps
            raise TrainingDivergedError(
                f"The loss became {loss} at step {step}. The last checkpoint "
                "is intact. Lower --learning_rate, raise "
                "--warmup_steps or set --gradient_clip_norm."
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
        """See `keras.callbacks.Callback`."""
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
                if images.shape.rank == 4:
                    row = np.concatenate(list(images[:num_images]), axis=1)
                    tf.summary.image(f"{group}/{view}", row[np.newaxis])
    writer.close()
