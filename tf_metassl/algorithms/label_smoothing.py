"""Supervised training on smoothed labels: Szegedy et al., arXiv 1512.00567."""

from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy, smooth_labels


class LabelSmoothing(Algorithm):
    """Mean cross-entropy with the target (1 - a) * label + a / C."""

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled = batch["labeled"]
        logits = self.forward(self.student, labeled["weak"])  # [B, C]
        self.track_labeled(labeled["label"], logits)
        label = self.one_hot(labeled["label"])
        smoothed = smooth_labels(label, self.hyperparameters.label_smoothing)
        losses = cross_entropy(smoothed, logits)
        return replicas.share_of_mean(self.class_weighted(losses, label))
