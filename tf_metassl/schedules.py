"""Learning rates and ramps as functions of the step."""

import math

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tf_metassl")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Zero while waiting, linear warm-up, then half a cosine down to zero.

    With s = step - wait: 0 for s < 0; lr * (s + 1) / warmup for s < warmup;
    then lr / 2 * (1 + cos(pi * (s - warmup) / (num_steps - wait - warmup))).

    Source: the schedule of the released Meta Pseudo Labels code.

    Args:
        learning_rate: the peak.
        num_steps: the step at which zero is reached.
        warmup_steps: length of the warm-up; 0 switches it off.
        wait_steps: steps at rate 0 before the warm-up (the student's wait).
    """

    def __init__(self, learning_rate, num_steps, warmup_steps=0, wait_steps=0):
        if warmup_steps + wait_steps >= num_steps:
            raise ValueError(
                f"warmup_steps ({warmup_steps}) and wait_steps ({wait_steps}) "
                f"must leave some of num_steps ({num_steps}) for training."
            )
        self.learning_rate = learning_rate
        self.num_steps = num_steps
        self.warmup_steps = warmup_steps
        self.wait_steps = wait_steps

    def __call__(self, step):
        """The rate at `step`, a scalar of Keras' float type."""
        step = tf.cast(step, keras.config.floatx()) - self.wait_steps
        length = self.num_steps - self.wait_steps - self.warmup_steps
        progress = tf.clip_by_value(
            (step - self.warmup_steps) / length, 0.0, 1.0
        )
        rate = 0.5 * self.learning_rate * (1.0 + tf.cos(math.pi * progress))
        if self.warmup_steps:
            rising = self.learning_rate * (step + 1.0) / self.warmup_steps
            rate = tf.where(step < self.warmup_steps, rising, rate)
        return tf.where(step < 0.0, tf.zeros_like(rate), rate)

    def get_config(self):
        """The constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "num_steps": self.num_steps,
            "warmup_steps": self.warmup_steps,
            "wait_steps": self.wait_steps,
        }


def linear_ramp(step, ramp_steps):
    """min(1, step / ramp_steps) as float32; 1 if `ramp_steps` is 0."""
    if not ramp_steps:
        return tf.constant(1.0)
    return tf.minimum(1.0, tf.cast(step, tf.float32) / ramp_steps)
