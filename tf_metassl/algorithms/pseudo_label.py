"""Pseudo-Label: Lee, ICML 2013 workshop on representation learning."""

import tensorflow as tf

from tf_metassl.algorithms.consistency import Consistency, ConsistencyTerms
from tf_metassl.contract import Views
from tf_metassl.ops import pseudo_labels
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.schedules import linear_ramp


class PseudoLabel(Consistency):
    """The student's confident predictions are labels of the same view.

    Images below the confidence threshold, which the original method does not
    have, enter the mean with loss 0.
    """

    metric_names = (
        *Consistency.metric_names,
        "selected_share",
        "selected_pseudo_label_accuracy",
        "foreign_selected_share",
    )
    ramp = staticmethod(linear_ramp)

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(unlabeled=("weak",))

    def terms(self, batch):
        """See `Consistency.terms`."""
        labeled, unlabeled = self.student_pass(
            batch["labeled"]["weak"], batch["unlabeled"]["weak"]
        )
        pseudo_label = pseudo_labels.one_hot(unlabeled.logits)  # [U, C]
        confidence = tf.reduce_max(tf.nn.softmax(unlabeled.logits), axis=-1)
        # Strictly greater, as in the released code.
        confidence_mask = tf.cast(
            confidence > self.hyperparameters.confidence_threshold,
            confidence.dtype,
        )  # [U]
        losses = confidence_mask * cross_entropy(pseudo_label, unlabeled.logits)
        self.track("selected_share", confidence_mask)
        return ConsistencyTerms(
            labeled, unlabeled, losses, pseudo_label, confidence_mask
        )
