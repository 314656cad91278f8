"""Interpolation Consistency Training: Verma et al., arXiv 1903.03825."""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.consistency import Consistency
from tf_metassl.contract import Views
from tf_metassl.meta import functional
from tf_metassl.ops import averaging, replicas
from tf_metassl.ops.losses import cross_entropy, squared_error
from tf_metassl.ops.mixing import mixup


class Ict(Consistency):
    """The prediction of a mixture is trained to be the mixture of predictions.

    The averaged student makes these predictions, as in Mean Teacher. The
    labeled loss is that of MixUp of labeled pairs. The student sees mixtures
    alone; the moving statistics of the averaged student's batch norm are, as in
    the released code, those of the images that it predicts for, which are not
    mixed.

    Differences from the paper and its code: every image has its own mix weight,
    the paper draws one per batch; the decay of the average is
    `tf_metassl.ops.averaging.ramped_decay`, the code's is
    min(decay, 1 - 1 / (t + 1)); the momentum of --optimizer=sgd is Nesterov's,
    the code's is not.
    """

    averages_statistics = False

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(
            unlabeled=("weak",),
            mixup_alpha=self.hyperparameters.mixup_alpha,
            mix_weight_rule=self.hyperparameters.mix_weight_rule,
        )

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        draw_l = labeled["mix_weight"], labeled["mix_partner"]
        draw_u = unlabeled["mix_weight"], unlabeled["mix_partner"]
        label = mixup(self.one_hot(labeled["label"]), *draw_l)  # [B, C]
        logits_l, logits_u = self.forward(
            self.student,
            mixup(float_images(labeled["weak"]), *draw_l),
            mixup(float_images(unlabeled["weak"]), *draw_u),
        )
        # The released code mixes logits, not probabilities.
        teacher_logits = self.teacher_logits(unlabeled["weak"])  # [U, C]
        target = tf.nn.softmax(mixup(teacher_logits, *draw_u))
        losses = squared_error(target, tf.nn.softmax(logits_u))  # [U]

        self.track_labeled(labeled["label"], logits_l)
        self.track_pseudo_labels(unlabeled["oracle_label"], teacher_logits)
        labeled_losses = cross_entropy(label, logits_l)  # [B]
        return self.weighted_sum(
            replicas.share_of_mean(self.class_weighted(labeled_losses, label)),
            replicas.share_of_mean(losses),
        )

    def teacher_logits(self, images):
        """See `Consistency.teacher_logits`; moves the average's statistics."""
        if self.ema is None:
            return super().teacher_logits(images)
        twins = averaging.twins(self.ema, self.student)
        # The seeds of dropout have no twins and are the student's.
        own = {
            place: twins[id(variable)]
            for place, variable in enumerate(
                self.student.non_trainable_variables
            )
            if id(variable) in twins
        }
        state = functional.state(self.student)
        for place, variable in own.items():
            state[place] = tf.convert_to_tensor(variable.value)
        logits, new_state = functional.call_average(
            self.ema, self.student, state, images
        )
        for place, variable in own.items():
            variable.assign(new_state[place])
        return tf.stop_gradient(logits)
