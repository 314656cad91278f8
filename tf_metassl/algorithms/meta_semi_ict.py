"""Meta-Semi (arXiv 2007.02394) with the unlabeled loss of ICT (1903.03825)."""

import tensorflow as tf

from tf_metassl.algorithms.meta_semi import MetaSemi
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import squared_error
from tf_metassl.ops.mixing import mixup
from tf_metassl.ops.schedules import sigmoid_ramp


class MetaSemiIct(MetaSemi):
    """Adds ICT's consistency loss to Meta-Semi.

    It uses Meta-Semi's mixtures, forward pass and averaged model. Whether the
    example weights apply to this loss is not published. Here they do not, so
    that the images that Meta-Semi rejects contribute to it.
    """

    metric_names = (*MetaSemi.metric_names, "consistency_loss")

    def additional_loss(self, unlabeled, labeler_logits, mixed_logits):
        """See `MetaSemi.additional_loss`."""
        hp = self.hyperparameters
        if hp.mixup_on in ("unlabeled", "both"):
            draw = unlabeled["mix_weight"], unlabeled["mix_partner"]
            labeler_logits = mixup(labeler_logits, *draw)
        target = tf.stop_gradient(tf.nn.softmax(labeler_logits))
        loss = replicas.share_of_mean(
            squared_error(target, tf.nn.softmax(mixed_logits))
        )
        self.track_share("consistency_loss", loss)
        weight = self.ramped(
            hp.unlabeled_loss_weight, hp.unlabeled_ramp_steps, sigmoid_ramp
        )
        return weight * loss
