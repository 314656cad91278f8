"""The progress of a stage on standard output."""

import sys
import time

import keras
import rich.progress

from tf_metassl.data.patience import clock


class Progress(keras.callbacks.Callback):
    """A bar on a terminal, and a line per evaluation everywhere.

    Where there is no terminal, further lines come between evaluations: the
    first after half a minute, later ones at intervals that double up to ten
    minutes.

    Args:
        num_steps: steps of the stage.
        images_per_step: images that a step consumes, for images/s.
        verbose: 2 for both, 1 for the lines alone, 0 for nothing.
        is_between: function without arguments: whether an epoch has ended
            between two evaluations; None: none does.
    """

    def __init__(self, *, num_steps, images_per_step, verbose, is_between=None):
        super().__init__()
        self._is_between = is_between or (lambda: False)
        self._num_steps = num_steps
        self._images = images_per_step
        self._verbose = verbose
        self._bar = None
        self._pause = 30.0
        # The metrics that were read last; between that `logs` are empty.
        self._logs = {}
        if verbose == 2 and sys.stdout.isatty():
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("step"),
                rich.progress.MofNCompleteColumn(),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.description}"),
            )
            self._task = self._bar.add_task("", total=num_steps)

    def on_train_begin(self, logs=None):
        """See `keras.callbacks.Callback`."""
        del logs
        if self._bar:
            self._bar.start()

    def on_train_end(self, logs=None):
        """Removes the bar; may be called again after an interrupted `fit`."""
        del logs
        if self._bar:
            self._bar.stop()

    def on_epoch_begin(self, epoch, logs=None):
        """See `keras.callbacks.Callback`."""
        del epoch, logs
        self._begin = time.monotonic()
        self._begin_step = self.model.finished_steps
        self._said = self._begin

    def on_train_batch_end(self, batch, logs=None):
        """See `keras.callbacks.Callback`."""
        self._logs = logs or self._logs
        elapsed = max(time.monotonic() - self._begin, 1e-9)
        self._speed = (batch + 1) / elapsed
        if self._bar and batch % 5 == 0:
            self._bar.update(
                self._task,
                completed=self._begin_step + batch + 1,
                description=self._line(self._logs),
            )
        elif self._verbose == 2 and not self._bar:
            now = time.monotonic()
            if now - self._said > self._pause:
                self._said, self._pause = now, min(2 * self._pause, 600.0)
                print(self._report(self._logs), flush=True)

    def on_epoch_end(self, epoch, logs=None):
        """See `keras.callbacks.Callback`."""
        del epoch
        if not self._verbose or self._is_between():
            return
        line = self._report(logs)
        if self._bar:
            self._bar.print(line, highlight=False)
        else:
            print(line, flush=True)

    def _report(self, logs):
        """The step, the time left and the metrics."""
        step = self.model.finished_steps
        left = clock((self._num_steps - step) / self._speed)
        return f"step {step}/{self._num_steps}  {left} left  {self._line(logs)}"

    def _line(self, logs):
        shown = " ".join(
            f"{name} {float(value):.3f}"
            for name, value in logs.items()
            if not name.endswith("macro_f1")
        )
        return f"{self._speed * self._images:,.0f} images/s  {shown}"
