"""Virtual Adversarial Training: Miyato et al., arXiv 1704.03976."""

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

# Lengths are those of images scaled to -1...1, whatever --normalization makes
# of them after that; the paper's are in the input of its networks, which is
# whitened for CIFAR-10.
_PIXELS_PER_UNIT = 127.5


class Vat(Consistency):
    """Predictions must not change along the direction that changes them most.

    All passes over unlabeled images use batch statistics and one set of
    dropout masks, and move no batch-norm average; those belong to the labeled
    images alone. With --precision=mixed_bfloat16 the direction is sought in
    full precision, with dropout masks of its own.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        precise = in_full_precision(self.student)
        # A function, because a network would become part of checkpoints.
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
        hp = self.hyperparameters
        images = float_images(batch["unlabeled"]["weak"])
        (labeled,) = self.student_pass(batch["labeled"]["weak"])

        params = functional.parameters(self.student)
        state = functional.state(self.student)
        clean = self.still_pass(params, state, images)
        target_logits = tf.stop_gradient(clean.logits)  # [U, C]

        direction = self._direction(params, state, images, target_logits)
        moved = images + _PIXELS_PER_UNIT * hp.vat_epsilon * direction
        moved_logits = self.still_pass(params, state, moved).logits
        losses = kl_divergence(target_logits, moved_logits)  # [U]
        if hp.entropy_weight:
            losses += hp.entropy_weight * entropy(clean.logits)
        return ConsistencyTerms(labeled, clean, losses, target_logits)

    def still_pass(self, params, state, images):
        """The student's output in training mode; it changes no variable."""
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

    A change of length xi is lost in the rounding of bfloat16, and at the
    lengths that are not, the direction is another. The cosine with that in
    float32 at xi = 0.1, in the mean over images, of an untrained and a little
    trained wrn_16_2: 0.50 and 0.67 in bfloat16; at xi = 1 0.75 and 0.71, which
    in float32 are 0.77 and 0.72, too; at xi = 10 0.13 and 0.27.

    Args:
        network: a Keras model.

    Returns:
        The network itself if all of its layers compute so; else one of the
        same layers, with variables of its own that stand in the same order.
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
