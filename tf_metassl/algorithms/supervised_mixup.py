"""Supervised training with MixUp: Zhang et al., arXiv 1710.09412.

Or with CutMix: Yun et al., arXiv 1905.04899.
"""

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.ops import draws, replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.mixing import cutmix, mixup


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
        images = float_images(labeled["weak"])
        weight, partner = labeled["mix_weight"], labeled["mix_partner"]
        if self.hyperparameters.mixing == "cutmix":
            center = self.draw(draws.uniform, [images.shape[0], 2], "cutmix")
            images, weight = cutmix(images, weight, partner, center)
        else:
            images = mixup(images, weight, partner)
        labels = mixup(self.one_hot(labeled["label"]), weight, partner)
        logits = self.forward(self.student, images)  # [B, C]
        self.track_labeled(labeled["label"], logits)
        losses = cross_entropy(labels, logits)
        return replicas.share_of_mean(self.class_weighted(losses, labels))
