"""Supervised training with MixUp: Zhang et al., arXiv 1710.09412."""

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.mixing import mixup


class SupervisedMixup(Algorithm):
    """Mean cross-entropy of mixed labeled images and their mixed labels."""

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(
            mixup_alpha=self.hyperparameters.mixup_alpha,
            mix_weight_rule=self.hyperparameters.mix_weight_rule,
        )

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled = batch["labeled"]
        draw = labeled["mix_weight"], labeled["mix_partner"]
        images = mixup(float_images(labeled["weak"]), *draw)
        labels = mixup(self.one_hot(labeled["label"]), *draw)  # [B, C]
        logits = self.forward(self.student, images)  # [B, C]
        self.track_labeled(labeled["label"], logits)
        losses = cross_entropy(labels, logits)
        return replicas.share_of_mean(self.class_weighted(losses, labels))
