"""Supervised training on the labeled images alone: the baseline."""

from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.losses import cross_entropy


class Supervised(Algorithm):
    """Mean cross-entropy of weakly augmented labeled images."""

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled = batch["labeled"]
        logits = self.forward(self.student, labeled["weak"])  # [B, C]
        self.track_labeled(labeled["label"], logits)
        return self.mean(cross_entropy(self.one_hot(labeled["label"]), logits))
