"""Pi-model: Laine and Aila, arXiv 1610.02242."""

import tensorflow as tf

from tf_metassl.algorithms.consistency import Consistency, ConsistencyTerms
from tf_metassl.contract import Views
from tf_metassl.ops.losses import squared_error


class PiModel(Consistency):
    """Predictions for two views of an image, with two dropout masks, agree.

    The gradient flows through both branches, as in the paper. Later
    reimplementations stop it in one branch, which halves it. The released code
    flips both views alike and shifts them independently; here both views are
    independent draws of --weak_augmentation.
    """

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(unlabeled=("weak_1", "weak_2"))

    def terms(self, batch):
        """See `Consistency.terms`."""
        unlabeled = batch["unlabeled"]
        labeled, first, second = self.student_pass(
            batch["labeled"]["weak"], unlabeled["weak_1"], unlabeled["weak_2"]
        )
        losses = squared_error(
            tf.nn.softmax(second.logits), tf.nn.softmax(first.logits)
        )  # [U]
        return ConsistencyTerms(
            labeled, first, losses, tf.stop_gradient(second.logits)
        )
