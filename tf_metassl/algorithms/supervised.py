"""Supervised training on the labeled images alone: the baseline."""

from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy


class Supervised(Algorithm):
    """Mean cross-entropy of the labeled images, weakly augmented."""

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled = batch["labeled"]
        (view,) = self.views.labeled
        logits = self.forward(self.student, labeled[view])  # [B, C]
        self.track_labeled(labeled["label"], logits)
        label = self.one_hot(labeled["label"])
        losses = cross_entropy(label, logits)
        return replicas.share_of_mean(self.class_weighted(losses, label))
