"""Dash: Xu et al., ICML 2021, arXiv 2109.00650."""

import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.ops import pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy

# The labeled loss after the warm-up is a running mean over about ten batches.
_LOSS_DECAY = 0.9


class Dash(FixMatch):
    """FixMatch that selects images whose loss is below a falling threshold.

    The student first learns the labeled images alone. The threshold starts at
    the labeled loss that it has then. As long as it falls, targets are
    sharpened predictions; at its lower bound they are one-hot.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first_loss = self.state_variable("first_loss", ())

    can_accumulate = False  # The threshold depends on the whole batch.

    def targets(self, label, logits_l, logits_w, index):
        """See `FixMatch.targets`; `first_loss` is updated before."""
        del index
        hp = self.hyperparameters
        # The last update is at the first step of the selection.
        is_known = self.step > hp.labeled_warmup_steps
        self.move_mean(
            self.first_loss,
            tf.stop_gradient(cross_entropy(label, logits_l)),
            tf.where(is_known, 1.0, _LOSS_DECAY),
        )
        threshold = self.threshold()
        one_hot = pseudo_labels.one_hot(logits_w)  # [U, C]
        pseudo_label = tf.where(
            threshold > hp.min_loss_threshold,
            pseudo_labels.soft(logits_w / hp.temperature),
            one_hot,
        )
        # As in the authors' code, the loss of the weak view is compared.
        loss = tf.stop_gradient(cross_entropy(one_hot, logits_w))  # [U]
        is_selected = (loss <= threshold) & (
            self.step >= hp.labeled_warmup_steps
        )
        return pseudo_label, tf.cast(is_selected, loss.dtype)

    def threshold(self):
        """The largest loss that is selected, a scalar.

        max(C rho gamma^-k, minimum), where rho is the labeled loss after the
        warm-up and k the number of times that the threshold has been lowered.

        Source: Algorithm 1 of the paper, where k is t - 1.
        """
        hp = self.hyperparameters
        steps = tf.maximum(self.step - hp.labeled_warmup_steps, 0)
        times = tf.cast(steps // hp.loss_threshold_steps, self.first_loss.dtype)
        scale = hp.loss_threshold_factor * hp.loss_threshold_divisor**-times
        return tf.maximum(self.first_loss.value * scale, hp.min_loss_threshold)

    def unlabeled_loss(self, losses, example_weight):
        """This replica's share of the mean over the selected examples."""
        selected = replicas.sum_over_replicas(tf.reduce_sum(example_weight))
        total = tf.reduce_sum(example_weight * losses)
        return total / tf.maximum(selected, 1.0)
