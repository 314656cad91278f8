"""Keras callbacks of a run: evaluation, metrics, checkpoints, divergence."""

import dataclasses
import math
import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_metassl.errors import CollapseError, TrainingDivergedError
from tf_metassl.ops import metrics
from tf_metassl.run import checkpoints, collapse
from tf_metassl.run.tensorboard_log import TensorBoardLog, write_view_images
from tf_metassl.run.termination import Terminated

# Seconds after which the training metrics and the watch are read again.
READ_EVERY = 1.0


class Recorder(keras.callbacks.Callback):
    """Evaluates and records metrics at the end of every epoch; saves.

    An epoch is the interval between two evaluations, not a pass over a pool; or
    a part of it, if the data are renewed more often.
    A checkpoint is written after every evaluation, every
    `--checkpoint_minutes`, and when the process is asked to end. It contains
    the running means of the epoch that it falls into. A checkpoint at the end
    of an epoch whose evaluation was interrupted is resumed with that
    evaluation.

    The training metrics are read every `READ_EVERY` seconds, and shown to the
    callbacks that follow; between that the host does not wait for a step. So is
    whether the loss has diverged, which is also read before a checkpoint.

    The order of writing matters: metrics before the checkpoint that relies on
    them, and the best checkpoint before the last.

    Args:
        run: the `tf_metassl.run.stage.StageRun`.
        state: the `ResumeState` that the algorithm is in.
        evaluate: function of a split and a list of Keras callbacks, which
            returns the metrics of that split, name -> float.

    Attributes:
        out_of_time: whether the time budget is used up. The time counts from
            the first step and includes evaluations. The stage is then
            evaluated and ends. Checkpoints record that it has ended, so that a
            restart on a faster or slower machine does not change it.
        is_between: whether the last call of `fit` ended between two
            evaluations, because the data were to be renewed.
        has_ended: whether the stage ends before its last step, because its
            time or its patience is used up.
    """

    def __init__(self, run, state, evaluate):
        super().__init__()
        config = run.config
        self._run = run
        self._state = self._restored = state
        self._evaluate = evaluate
        self._interval = 60 * config.checkpoint_minutes or math.inf
        self._budget = 60 * config.time_budget_minutes or math.inf
        self._splits = (
            *["validation"] * run.experiment.has_validation,
            *["labeled"] * config.evaluate_on_labeled,
        )
        self._board = TensorBoardLog(run.logs, ("train", *self._splits))
        self._metrics_to_restore = state.train_metrics
        self._read_metrics = None
        self._started = self._saved = self._read = time.monotonic()
        self._first_batch = None
        self.is_between = False

    @property
    def out_of_time(self):
        """See the attributes of the class."""
        return self._state.out_of_time

    @property
    def has_ended(self):
        """See the attributes of the class."""
        return self._state.has_ended(self._run.config.patience)

    @property
    def state(self):
        """The `ResumeState` of now, between two epochs."""
        step = self.model.finished_steps
        return dataclasses.replace(self._state, step=step)

    def on_train_begin(self, logs=None):
        """Sets the elapsed time again. See `keras.callbacks.Callback`."""
        del logs
        self._set_elapsed(self._state.elapsed_share)

    def on_epoch_begin(self, epoch, logs=None):
        """Undoes the reset of `fit`. See `keras.callbacks.Callback`."""
        del epoch, logs
        self._restore_metrics()

    def on_train_batch_end(self, batch, logs=None):
        """Reads and saves, if it is time. See `keras.callbacks.Callback`.

        Raises:
            Terminated: if the process has been asked to end.
            TrainingDivergedError: if the loss has become too large.
        """
        del batch
        # From now on there is something to save before the process ends.
        self._run.termination.deferred = True
        now = time.monotonic()
        ending, due, reading, share = self._run.worker_means(
            self._run.termination.requested,
            now - self._saved > self._interval,
            now - self._read > READ_EVERY,
            self._used_share(),
        )
        self._set_elapsed(share)
        if ending or due or reading:
            self._check_loss()
        if reading:
            self._read = now
            if logs is not None:
                logs.update(self._measured())
        if ending or due:
            path = self.save(self._train_metrics())
        if ending:
            raise _terminated(path)

    def on_epoch_end(self, epoch, logs=None):
        """See `keras.callbacks.Callback` and `finish_epoch`."""
        del epoch
        self._check_loss()
        step = self.model.finished_steps
        self.is_between = not self.out_of_time and (
            step % self._run.config.evaluate_every > 0
            and step < self._run.stage.num_steps
        )
        if self.is_between:
            # The next call of `fit` resets the means.
            self._metrics_to_restore = self._train_metrics()
            return
        train = self._measured()
        validation = self.finish_epoch(train)
        # Keras passes these to later callbacks, such as the progress line.
        if logs is not None:
            logs.update(train)
            logs.update({f"val_{k}": v for k, v in validation.items()})

    def finish_epoch(self, logs=None):
        """Evaluates, records the metrics and saves.

        Args:
            logs: training metrics, name -> scalar; None for those of the
                checkpoint that the run was resumed from.

        Returns:
            The validation metrics, name -> float; empty without validation
            images.

        Raises:
            Terminated: if the process has been asked to end.
            CollapseError: if the pseudo-labels have collapsed and
                `--collapse=stop`.
            WriteError: if the metrics cannot be written.
        """
        if logs is None:
            self._restore_metrics()
            logs = self._measured()
        # Read them now: evaluating resets them.
        train_metrics = self._train_metrics()
        # Sorted, because the order of `logs` depends on who collected them.
        train = {name: float(logs[name]) for name in sorted(logs)}
        rate = tf.convert_to_tensor(self.model.optimizer.learning_rate)
        train["learning_rate"] = float(rate)
        try:
            watchers = [_Interrupter(self._ending)]
            results = {s: self._evaluate(s, watchers) for s in self._splits}
        except Terminated:
            path = self.save(train_metrics)
            raise _terminated(path) from None
        validation = results.get("validation", {})
        self._write(train, results, self._histograms(train_metrics))
        self._set_elapsed(*self._run.worker_means(self._used_share()))
        best = self._state.best_validation
        accuracy = validation.get(self._run.best_metric, best)
        self._state = dataclasses.replace(
            self._state,
            last_evaluation=self.model.finished_steps,
            best_validation=max(best, accuracy),
            evaluations_without_gain=self._without_gain(accuracy > best),
        )
        # The best one first: a run that has to be resumed from before this
        # step finds it again.
        if accuracy > best:
            self.save(None, name="best")
        path = self.save(None)
        self._watch_collapse()
        if self._ending():
            raise _terminated(path)
        if self.has_ended:
            self.model.stop_training = True
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
            TrainingDivergedError: if a parameter is not finite; nothing is
                saved then.
        """
        step = self.model.finished_steps
        if not checkpoints.all_finite(self.model):
            raise TrainingDivergedError("A parameter is not finite", step)
        state = dataclasses.replace(
            self._state,
            train_metrics=train_metrics,
            wall_clock_seconds=self._elapsed_seconds(),
            step=step,
        )
        path = checkpoints.save(
            self._run.output_checkpoints,
            self.model,
            step,
            state.to_json(),
            keep=self._run.config.keep_checkpoints,
            name=name,
        )
        self._saved = time.monotonic()
        return path

    def _check_loss(self):
        """Stops a run whose loss has diverged, before it is saved.

        Every worker has to call it.

        Raises:
            TrainingDivergedError: if it has.
        """
        step, loss = self.model.divergence() or (0, 0.0)
        share, step, loss = self._run.worker_means(step > 0, step, loss)
        if share:
            # Means over all workers, of which some have found nothing.
            raise TrainingDivergedError(
                f"The loss became {loss / share:g}", round(step / share)
            )

    def _without_gain(self, gained):
        """The evaluations since the last gain, counted with patience alone."""
        if gained or not self._run.config.patience:
            return 0
        return self._state.evaluations_without_gain + 1

    def _ending(self):
        requested = self._run.termination.requested
        return self._run.worker_means(requested)[0] > 0

    def _elapsed_seconds(self):
        seconds = time.monotonic() - self._started
        return self._restored.wall_clock_seconds + seconds

    def _used_share(self):
        """The used share of the time budget, measured by this worker."""
        # The time that compiling takes does not count.
        self._first_batch = self._first_batch or time.monotonic()
        seconds = time.monotonic() - self._first_batch
        return self._restored.elapsed_share + seconds / self._budget

    def _set_elapsed(self, share):
        """Passes the used share to the schedules; above 1 the stage ends."""
        share = float(share)
        if self.model.elapsed is not None:
            self.model.elapsed.assign(min(share, 1.0))
        self._state = dataclasses.replace(
            self._state, elapsed_share=share, out_of_time=share > 1.0
        )
        if self.out_of_time:
            self.model.stop_training = True

    def _train_metrics(self):
        if self._read_metrics is None:
            self._read_metrics = metrics.reader(
                self.model.train_metrics, self.model.distribute_strategy
            )
        return self._read_metrics()

    def _measured(self):
        """The training metrics that have been updated, name -> float."""
        measured = metrics.measured(self._train_metrics())
        found = self.model.train_results()
        return {name: found[name] for name in found if name in measured}

    def _restore_metrics(self):
        """Restores the checkpoint's running means, once."""
        if self._metrics_to_restore:
            metrics.from_lists(
                self.model.train_metrics,
                self.model.distribute_strategy,
                self._metrics_to_restore,
            )
        self._metrics_to_restore = None

    def _histograms(self, train_metrics):
        """What `TensorBoardLog.write` takes, of all replicas."""
        return [
            (m.name, m.edges, np.sum(train_metrics[m.name][0], axis=0))
            for m in self.model.train_metrics
            if isinstance(m, metrics.Histogram)
        ]

    def _write(self, train, results, histograms):
        """Writes the metrics of this step to the files and to TensorBoard."""
        step = self._run.first_step + self.model.finished_steps
        seconds = {"wall_clock_seconds": self._elapsed_seconds()}
        self._run.timing_file.write(step, "train", seconds)
        self._run.metrics_file.write(step, "train", train)
        for split, values in results.items():
            self._run.metrics_file.write(step, split, values)
        folder = f"{self._run.log_folder}/" * bool(self._run.log_folder)
        for split, values in {"train": train, **results}.items():
            self._run.tracker.metrics(step, folder + split, values)
        self._board.write(
            step,
            {**results, "train": train | seconds},
            self.model.student.trainable_variables,
            histograms,
        )

    def _watch_collapse(self):
        wanted = self._run.config.collapse
        if wanted == "off":
            return
        rows = self._run.metrics_file.rows()
        rows = [row for row in rows if row["split"] == "train"]
        found = collapse.collapsed(rows[-1])
        if not found:
            return
        logging.warning("%s", found)
        # The row before may be the last one of another stage.
        first = self._run.first_step
        own = [row for row in rows[:-1] if not first or row["step"] > first]
        before = own and collapse.collapsed(own[-1])
        if wanted == "stop" and before:
            raise CollapseError(
                f"{found} The same was true one evaluation earlier. The last "
                "checkpoint is kept. Run the same command with "
                "--collapse=warn to continue from it."
            )


class ViewImages(keras.callbacks.Callback):
    """Writes the views of the first batch, after the first step.

    They are made by a pipeline of their own, which need not delay that step.

    Args:
        folder: of the stage.
        data: the dataset of the batches.
    """

    def __init__(self, folder, data):
        super().__init__()
        self._folder, self._data = folder, data

    def on_train_batch_end(self, batch, logs=None):
        """See the class."""
        if self._data is not None:
            write_view_images(self._folder, next(iter(self._data)))
            self._data = None


class Profiler(keras.callbacks.Callback):
    """Profiles some steps of a stage for TensorBoard.

    With `--steps_per_execution` it begins and ends with whole calls.

    Args:
        folder: of TensorBoard.
        first: the first step, counted from 1.
        last: the last step; none is profiled if it is before the first.
    """

    def __init__(self, folder, first, last):
        super().__init__()
        self._folder = str(folder)
        self._first, self._last = first, last
        self._running = False

    def on_train_batch_begin(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        del batch, logs
        # The next step is a profiled one; a resumed run may begin after it.
        coming = self.model.finished_steps + 1
        per_call = self.model.steps_per_execution
        reaches = self._first < coming + per_call
        if not self._running and reaches and coming <= self._last:
            tf.profiler.experimental.start(self._folder)
            self._running = True

    def on_train_batch_end(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        del batch, logs
        if self.model.finished_steps >= self._last:
            self.stop()

    def stop(self):
        """Writes what was profiled, if there is anything."""
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()


class _Interrupter(keras.callbacks.Callback):
    """Interrupts an evaluation when the process has been asked to end."""

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
        f"Stopped by SIGTERM. The checkpoint {path} is written. Run the same "
        "command with --run_dir set to this run's folder to continue from it."
    )
