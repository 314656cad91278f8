"""SoftMatch: Chen et al., arXiv 2301.10921."""

import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.ops import averaging, replicas


class SoftMatch(FixMatch):
    """FixMatch with example weights instead of a threshold.

    The weight is 1 at confidences above their running mean. Below, it falls as
    a Gaussian whose variance is the running variance divided by num_sigmas^2.
    Uniform alignment changes the confidence, not the pseudo-label.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        uniform = 1.0 / self.num_classes
        self.mean_confidence = self.state_variable(
            "mean_confidence", (), uniform
        )
        self.confidence_variance = self.state_variable(
            "confidence_variance", (), 1.0
        )
        self.mean_probs = self.state_variable(
            "mean_probs", (self.num_classes,), uniform
        )

    can_accumulate = False  # Weights depend on the whole batch.
    selects_whole_images = False

    def example_weight(self, probs, index):
        """See `FixMatch.example_weight`; the statistics are updated first."""
        del index
        hp = self.hyperparameters
        probs = self.uniformly_aligned(probs)
        confidence = tf.reduce_max(probs, axis=-1)  # [U]
        mean = replicas.global_mean(confidence)
        size = confidence.shape[0] * replicas.count()
        variance = (
            replicas.global_mean((confidence - mean) ** 2) * size / (size - 1)
        )
        decay = hp.statistics_decay
        averaging.move(self.mean_confidence, mean, decay)
        averaging.move(self.confidence_variance, variance, decay)

        below = tf.minimum(confidence - self.mean_confidence.value, 0.0)
        width = self.confidence_variance.value / hp.num_sigmas**2
        return tf.exp(-(below**2) / (2.0 * width))
