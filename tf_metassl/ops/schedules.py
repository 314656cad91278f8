"""Learning rates and ramps as functions of the step."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

_SHAPES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "cosine": lambda progress: 0.5 * (1.0 + tf.cos(math.pi * progress)),
    "cosine_7_16": lambda progress: tf.cos(7.0 / 16.0 * math.pi * progress),
    "constant": tf.ones_like,
}


@keras.saving.register_keras_serializable("tf_metassl")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate of 0 for some steps, a linear warm-up, then a decay.

    With s = step - wait: 0 for s < 0; lr * (s + 1) / warmup for s < warmup;
    then lr * shape(p) with p = (s - warmup) / (num_steps - wait - warmup).
    The shapes are

        cosine       (1 + cos(pi p)) / 2, which ends at 0
        cosine_7_16  cos(7 / 16 pi p), which ends at 0.195
        constant     1

    With `cycle_steps` = c the decay is stretched so that p is 1 at
    s = cycle_start + c. From cycle_start on, the c steps before it are repeated
    without end: the rate falls, jumps back and falls again.

    Source: warm-up and cosine of the released Meta Pseudo Labels code; 7/16 of
    FixMatch, arXiv 2001.07685; cycles of fast-SWA, arXiv 1806.05594.

    Args:
        learning_rate: the peak.
        num_steps: the step at which the decay ends.
        warmup_steps: steps of the warm-up; 0 for none.
        wait_steps: steps at rate 0 before the warm-up.
        shape: `cosine`, `cosine_7_16` or `constant`.
        cycle_start: the step at which the first repetition begins.
        cycle_steps: steps of a repetition; 0 for none.
    """

    def __init__(
        self,
        learning_rate: float,
        num_steps: int,
        warmup_steps: int = 0,
        wait_steps: int = 0,
        shape: str = "cosine",
        cycle_start: int = 0,
        cycle_steps: int = 0,
    ) -> None:
        if warmup_steps + wait_steps >= num_steps:
            raise ValueError(
                f"warmup_steps ({warmup_steps}) and wait_steps ({wait_steps}) "
                f"must leave some of num_steps ({num_steps}) for training."
            )
        if cycle_steps and cycle_start - cycle_steps < warmup_steps:
            raise ValueError(
                f"--cycle_start={cycle_start} must come at least one cycle of "
                f"{cycle_steps} steps after the warm-up of {warmup_steps}."
            )
        self.learning_rate = learning_rate
        self.num_steps = num_steps
        self.warmup_steps = warmup_steps
        self.wait_steps = wait_steps
        self.shape = shape
        self.cycle_start = cycle_start
        self.cycle_steps = cycle_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The rate at `step`, a scalar of Keras' float type."""
        step = tf.cast(step, keras.config.floatx()) - self.wait_steps
        end, position = self.num_steps - self.wait_steps, step
        if self.cycle_steps:
            end = self.cycle_start + self.cycle_steps
            after = tf.math.floormod(step - self.cycle_start, self.cycle_steps)
            position = tf.where(
                step < self.cycle_start,
                step,
                self.cycle_start - self.cycle_steps + after,
            )
        progress = tf.clip_by_value(
            (position - self.warmup_steps) / (end - self.warmup_steps), 0.0, 1.0
        )
        rate = self.learning_rate * _SHAPES[self.shape](progress)
        if self.warmup_steps:
            rising = self.learning_rate * (step + 1.0) / self.warmup_steps
            rate = tf.where(step < self.warmup_steps, rising, rate)
        return tf.where(step < 0.0, tf.zeros_like(rate), rate)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "num_steps": self.num_steps,
            "warmup_steps": self.warmup_steps,
            "wait_steps": self.wait_steps,
            "shape": self.shape,
            "cycle_start": self.cycle_start,
            "cycle_steps": self.cycle_steps,
        }


@keras.saving.register_keras_serializable("tf_metassl")
class TimedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that follows the used time budget if that is ahead.

    It evaluates another schedule at max(step, elapsed * num_steps). A run whose
    time budget ends before its steps therefore completes the schedule.

    Args:
        schedule: a schedule of the learning rate over `num_steps`.
        num_steps: its length.
        elapsed: scalar variable in [0, 1], the used share of the time budget,
            which the training loop assigns.
    """

    def __init__(
        self,
        schedule: Callable[[tf.Tensor], tf.Tensor],
        num_steps: int,
        elapsed: tf.Variable,
    ) -> None:
        self.schedule = schedule
        self.num_steps = num_steps
        self.elapsed = elapsed

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The rate at `step`, a scalar of Keras' float type."""
        timed = tf.convert_to_tensor(self.elapsed) * self.num_steps
        step = tf.cast(step, timed.dtype)
        return self.schedule(tf.maximum(step, timed))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the variable as a number."""
        return {
            "schedule": self.schedule,
            "num_steps": self.num_steps,
            "elapsed": float(self.elapsed.numpy()),
        }


def linear_ramp(step: tf.Tensor | int, ramp_steps: int) -> tf.Tensor:
    """min(1, step / ramp_steps) as float32; 1 if `ramp_steps` is 0."""
    if not ramp_steps:
        return tf.constant(1.0)
    return tf.minimum(1.0, tf.cast(step, tf.float32) / ramp_steps)


def sigmoid_ramp(step: tf.Tensor | int, ramp_steps: int) -> tf.Tensor:
    """exp(-5 (1 - step / ramp_steps)^2) as float32, then 1.

    The first value is 0.0067, not 0. All values are 1 if `ramp_steps` is 0.

    Source: Laine and Aila, arXiv 1610.02242, appendix A.
    """
    return tf.exp(-5.0 * (1.0 - linear_ramp(step, ramp_steps)) ** 2)
