"""Virtual Adversarial Training: Miyato et al., arXiv 1704.03976."""

import keras
import tensorflow as tf

from tf_metassl import draws
from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.consistency import Consistency, Output, Terms
from tf_metassl.contract import Views
from tf_metassl.losses import entropy, kl_divergence
from tf_metassl.meta import functional

# Networks scale pixels to -1...1; the paper's lengths are in their input.
_PIXELS_PER_UNIT = 127.5


class Vat(Consistency):
    """Predictions must not change along the direction that changes them most.

    All passes over unlabeled images use batch statistics and one set of
    dropout masks, and move no batch-norm average; those belong to the labeled
    images alone.
    """

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(unlabeled=("weak",))

    def terms(self, batch):
        """See `Consistency.terms`."""
        hp = self.hyperparameters
        images = float_images(batch["unlabeled"]["weak"])
        (labeled,) = self.student_pass(batch["labeled"]["weak"])

        params = functional.parameters(self.student)
        state = functional.state(self.student)
        clean = self.still_pass(params, state, images)
        target_logits = tf.stop_gradient(clean.logits)  # [U, C]

        def divergence(perturbation):  # [U]
            moved = images + _PIXELS_PER_UNIT * perturbation
            logits = self.still_pass(params, state, moved).logits
            return kl_divergence(target_logits, logits)

        noise = self.draw(draws.normal, images.shape, "vat")
        noise = tf.cast(noise, keras.config.floatx())
        direction = steepest_direction(divergence, noise, hp.vat_xi)
        losses = divergence(hp.vat_epsilon * direction)  # [U]
        if hp.entropy_weight:
            losses += hp.entropy_weight * entropy(clean.logits)
        return Terms(labeled, clean, losses, target_logits)

    def still_pass(self, params, state, images):
        """The student's `Output` in training mode; it changes no variable."""
        logits, _ = functional.call(self.student, params, state, images)
        return Output(logits)


def steepest_direction(losses_at, noise, xi):
    """One step of the power iteration: where does a loss at its minimum rise?

    Args:
        losses_at: perturbation `[N, ...]` -> `[N]`, least at 0.
        noise: `[N, ...]`, the random directions to start from.
        xi: length at which the gradient is taken.

    Returns:
        `[N, ...]` of length 1 each, or 0 where there is no gradient; without
        gradient.

    Source: Miyato et al., arXiv 1704.03976, equation 12.
    """
    start = xi * unit_rows(noise)
    with tf.GradientTape() as tape:
        tape.watch(start)
        loss = tf.reduce_sum(losses_at(start))
    return tf.stop_gradient(unit_rows(tape.gradient(loss, start)))


def unit_rows(values):
    """Scales every row of `[N, ...]` to Euclidean length 1; 0 stays 0."""
    axes = list(range(1, values.shape.rank))
    # First to a largest element of 1: squares of small gradients underflow.
    largest = tf.reduce_max(tf.abs(values), axes, keepdims=True)
    values = tf.math.divide_no_nan(values, largest)
    length = tf.sqrt(tf.reduce_sum(values**2, axes, keepdims=True))
    return tf.math.divide_no_nan(values, length)
