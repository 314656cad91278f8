"""AdaMatch: Berthelot et al., arXiv 2106.04732."""

import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.ops import pseudo_labels, replicas


class AdaMatch(FixMatch):
    """FixMatch with aligned predictions and a relative threshold.

    Predictions on weak views are scaled toward the mean prediction on labeled
    images. The threshold is a share of the mean confidence on labeled images.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        shape, uniform = (self.num_classes,), 1.0 / self.num_classes
        self.labeled_probs = self.state_variable(
            "labeled_probs", shape, uniform
        )
        self.mean_probs = self.state_variable("mean_probs", shape, uniform)

    can_accumulate = False  # The threshold depends on the whole batch.

    def targets(self, label, logits_l, logits_w, index):
        """See `FixMatch.targets`; the running means are updated first."""
        del label, index
        labeled_probs = pseudo_labels.soft(logits_l)  # [B, C]
        probs = self.aligned(labeled_probs, pseudo_labels.soft(logits_w))
        confidence = tf.reduce_max(probs, axis=-1)  # [U]
        selected = confidence >= self.threshold(labeled_probs)
        return pseudo_labels.one_hot(probs), tf.cast(selected, probs.dtype)

    def aligned(self, labeled_probs, probs):
        """Predictions `[U, C]`, scaled by a ratio of running means.

        Args:
            labeled_probs: `[B, C]`, predictions on labeled images.
            probs: `[U, C]`, predictions on weak views.
        """
        decay = self.hyperparameters.statistics_decay
        self.move_mean(self.labeled_probs, labeled_probs, decay)
        self.move_mean(self.mean_probs, probs, decay)
        return pseudo_labels.aligned(
            probs,
            target=self.labeled_probs.value,
            current=self.mean_probs.value,
        )

    def threshold(self, labeled_probs):
        """The share of the mean confidence on `[B, C]`, a scalar."""
        confidence = replicas.global_mean(tf.reduce_max(labeled_probs, axis=-1))
        return self.hyperparameters.relative_threshold * confidence
