"""Virtual Adversarial Training: Miyato et al., arXiv 1704.03976."""

import math

import keras
import tensorflow as tf

from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.consistency import (
    Consistency,
    ConsistencyTerms,
    NetworkOutput,
)
from tf_metassl.contract import Views
from tf_metassl.meta import functional
from tf_metassl.ops import draws
from tf_metassl.ops.losses import entropy, kl_divergence

# Lengths refer to images scaled to -1...1, whatever --normalization is. Those
# of the paper refer to the inputs of its networks, which are whitened for
# CIFAR-10.
_PIXELS_PER_UNIT = 127.5


def default_epsilon(image_shape):
    """The length of the perturbation that changes a value by 1/8 on average.

    The published 8 changes those of CIFAR-10 by 0.144, MixMatch's 6 by 0.108.

    Args:
        image_shape: height, width, channels.
    """
    return math.sqrt(math.prod(image_shape)) / 8


class Vat(Consistency):
    """Penalizes changes of predictions along the adversarial direction.

    All passes over unlabeled images use batch statistics and the same dropout
    masks. They update no batch-norm average; only the pass over the labeled
    images does. With --precision=mixed_bfloat16 the direction is computed in
    full precision, with other dropout masks.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        precise = in_full_precision(self.student)
        # A function, because Keras would add the variables of a network to
        # this one's, and so to its checkpoints.
        self._precise = lambda: precise

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(unlabeled=("weak",))

    @property
    def training_networks(self):
        """See `Algorithm.training_networks`."""
        networks, precise = super().training_networks, self._precise()
        return networks if precise is self.student else [*networks, precise]

    def terms(self, batch):
        """See `Consistency.terms`."""
        images = float_images(batch["unlabeled"]["weak"])
        (labeled,) = self.student_pass(batch["labeled"]["weak"])

        params = functional.parameters(self.student)
        state = functional.state(self.student)
        clean = self.still_pass(params, state, images)
        losses = self.adversarial_losses(params, state, images, clean.logits)
        target_logits = tf.stop_gradient(clean.logits)  # [U, C]
        return ConsistencyTerms(labeled, clean, losses, target_logits)

    def adversarial_losses(self, params, state, images, logits):
        """The divergence of predictions along the adversarial direction, `[U]`.

        With `entropy_weight`, plus that of the entropy.

        Args:
            params: the student's parameters.
            state: its other variables.
            images: `[U, H, W, C]` floats.
            logits: `[U, C]`, its predictions; a gradient flows to them through
                the entropy alone.
        """
        hp = self.hyperparameters
        target_logits = tf.stop_gradient(logits)
        direction = self._direction(params, state, images, target_logits)
        epsilon = hp.vat_epsilon or default_epsilon(images.shape[1:])
        moved = images + _PIXELS_PER_UNIT * epsilon * direction
        moved_logits = self.still_pass(params, state, moved).logits
        losses = kl_divergence(target_logits, moved_logits)  # [U]
        if hp.entropy_weight:
            losses += hp.entropy_weight * entropy(logits)
        return losses

    def still_pass(self, params, state, images):
        """The student's output in training mode; changes no variable."""
        logits, _ = functional.call(self.student, params, state, images)
        return NetworkOutput(logits)

    def _direction(self, params, state, images, target_logits):
        """The adversarial direction of every image, see `steepest_direction`.

        Args:
            params: the student's parameters.
            state: its other variables.
            images: `[U, H, W, C]` floats.
            target_logits: `[U, C]`, its predictions.
        """
        network = self._precise()

        def logits_at(images):
            return functional.call(network, params, state, images)[0]

        if network is not self.student:
            target_logits = logits_at(images)

        def divergence(perturbation):  # [U]
            moved = images + _PIXELS_PER_UNIT * perturbation
            return kl_divergence(target_logits, logits_at(moved))

        noise = self.draw(draws.normal, images.shape, "vat")
        noise = tf.cast(noise, keras.config.floatx())
        return steepest_direction(
            divergence, noise, self.hyperparameters.vat_xi
        )


def in_full_precision(network):
    """A network that computes in Keras' float type, for `functional.call`.

    bfloat16 rounds away a perturbation of length xi = 0.1, and with longer
    ones the direction is a different one. Cosines with the direction in float32
    at xi = 0.1, mean over images, for an untrained and a briefly trained
    wrn_16_2:

        xi = 0.1   bfloat16 0.50, 0.67
        xi = 1     bfloat16 0.75, 0.71   float32 0.77, 0.72
        xi = 10    bfloat16 0.13, 0.27

    Args:
        network: a Keras model.

    Returns:
        The network itself if all of its layers compute in that type; else a
        network of the same layers whose own variables are in the same order.
    """
    full = keras.config.floatx()
    if all(layer.compute_dtype == full for layer in network._flatten_layers()):
        return network

    def copy(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": full})

    return keras.models.clone_model(
        network, clone_function=copy, recursive=True
    )


def steepest_direction(losses_at, noise, xi):
    """The direction in which a loss rises most; one power iteration step.

    Args:
        losses_at: perturbation `[N, ...]` -> `[N]`, with its minimum at 0.
        noise: `[N, ...]`, the random initial directions.
        xi: length of the perturbation at which the gradient is computed.

    Returns:
        `[N, ...]`, rows of length 1, or 0 where the gradient is 0; without
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
    # Dividing by the largest element first keeps squares of small gradients
    # from underflowing.
    largest = tf.reduce_max(tf.abs(values), axes, keepdims=True)
    values = tf.math.divide_no_nan(values, largest)
    length = tf.sqrt(tf.reduce_sum(values**2, axes, keepdims=True))
    return tf.math.divide_no_nan(values, length)
