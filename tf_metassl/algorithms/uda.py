"""UDA: Xie, Dai, Hovy, Luong, Le, arXiv 1904.12848."""

import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy

# The share of the way from 1 / C to 1, as a function of training's progress.
_TSA_SCHEDULES = {
    "linear": lambda progress: progress,
    "exp": lambda progress: tf.exp(5.0 * (progress - 1.0)),
    "log": lambda progress: 1.0 - tf.exp(-5.0 * progress),
}


def tsa_threshold(schedule, step, num_steps, num_classes):
    """The true-class probability above which labeled images are not trained.

    Source: equation 4 of the paper: a * (1 - 1 / C) + 1 / C.

    Args:
        schedule: `linear`, `exp` or `log`.
        step: integer tensor, finished steps.
        num_steps: the step at which the threshold reaches 1 (with `log`, 0.993
            of the way from 1 / C to 1).
        num_classes: C.

    Returns:
        A float32 scalar.
    """
    progress = tf.minimum(1.0, tf.cast(step, tf.float32) / num_steps)
    share = _TSA_SCHEDULES[schedule](progress)
    return share * (1.0 - 1.0 / num_classes) + 1.0 / num_classes


class Uda(FixMatch):
    """Sharpened predictions on weak views are the targets of strong views.

    The paper's divergence KL(target || prediction) differs from the
    cross-entropy here by the entropy of the target, which has no gradient.
    """

    @property
    def can_accumulate(self):
        """See `Algorithm.can_accumulate`.

        Training signal annealing divides by the number of images it keeps.
        """
        annealed = self.hyperparameters.tsa_schedule != "off"
        return super().can_accumulate and not annealed

    def pseudo_label(self, logits):
        """See `FixMatch.pseudo_label`."""
        temperature = self.hyperparameters.temperature
        return tf.stop_gradient(tf.nn.softmax(logits / temperature))

    def example_weight(self, probs, index):
        """See `FixMatch.example_weight`; uses unsharpened confidences."""
        del index
        confidence = tf.reduce_max(probs, axis=-1)  # [U]
        threshold = self.hyperparameters.confidence_threshold
        return tf.cast(confidence > threshold, probs.dtype)

    def labeled_loss(self, label, logits):
        """Training signal annealing: the mean over images below the threshold.

        See `FixMatch.labeled_loss`.
        """
        hp = self.hyperparameters
        losses = cross_entropy(label, logits)  # [B]
        losses = self.class_weighted(losses, label)
        if hp.tsa_schedule == "off":
            return replicas.share_of_mean(losses)
        threshold = tsa_threshold(
            hp.tsa_schedule, self.step, hp.tsa_steps, self.num_classes
        )
        true_prob = tf.reduce_sum(label * tf.nn.softmax(logits), axis=-1)
        kept = tf.cast(
            true_prob <= tf.cast(threshold, losses.dtype), losses.dtype
        )
        total = replicas.sum_over_replicas(tf.reduce_sum(kept))
        return tf.reduce_sum(kept * losses) / tf.maximum(total, 1.0)
