"""Meta-Semi: Wang, Guo, Song, Huang, arXiv 2007.02394 (it reweights examples).

Not the method of arXiv 2007.03966, which has the same name and learns the
pseudo-labels.
"""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.meta import example_weights, functional
from tf_metassl.ops import pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.mixing import mixup

_META_GRADIENTS = {
    "nested_tape": example_weights.nested_tape,
    "forward_mode": example_weights.forward_mode,
}
_PSEUDO_LABELS = {"soft": pseudo_labels.soft, "one_hot": pseudo_labels.one_hot}


class MetaSemi(Algorithm):
    """Trains on pseudo-labels whose gradient agrees with the labeled gradient.

    Comments give the lines of Algorithm 1. Hyperparameters whose help says
    "reconstruction" decide what the slides leave open. Their literal reading is
    `labeled_loss_weight=0 meta_labeled_batch=mixed pseudo_label_view=weak`.
    """

    metric_names = (
        "loss",
        "labeled_loss",
        "unlabeled_loss",
        "labeled_accuracy",
        "selected_share",
        "pseudo_label_accuracy",
        "pseudo_label_entropy",
        "selected_pseudo_label_accuracy",
    )

    def compile(self, **kwargs):
        """See `Algorithm.compile`.

        Raises:
            ValueError: if forward mode is combined with batch norm that is
                synchronized over replicas, where TensorFlow drops the tangent.
        """
        if (
            self.hyperparameters.meta_gradient == "forward_mode"
            and self.distribute_strategy.num_replicas_in_sync > 1
            and any(
                getattr(layer, "synchronized", False)
                for layer in self.student.layers
            )
        ):
            raise ValueError(
                "--meta_gradient=forward_mode is not exact with batch norm "
                "that is synchronized over replicas: use "
                "--meta_gradient=nested_tape or --batch_norm=local."
            )
        super().compile(**kwargs)

    @property
    def views(self):
        """See `Algorithm.views`."""
        label_view = self.hyperparameters.pseudo_label_view
        return Views(
            labeled=("weak",),
            unlabeled=tuple(dict.fromkeys((label_view, "weak"))),
            mixup_alpha=self.hyperparameters.mixup_alpha,
            mix_weight_rule=self.hyperparameters.mix_weight_rule,
        )

    def train_step(self, batch):
        """Algorithm 1, lines 3 to 13. See `keras.Model.train_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]  # Line 3.
        hp = self.hyperparameters

        # Line 4: pseudo-labels by the averaged model, then X~ and U~.
        labeler = self.deployable_model
        labeler_logits = labeler(
            unlabeled[hp.pseudo_label_view], training=False
        )
        pseudo_label = _PSEUDO_LABELS[hp.pseudo_label](labeler_logits)  # [U, C]
        label = self.one_hot(labeled["label"])  # [B, C]
        mixed_labeled, mixed_label = self._mix(labeled, label, "labeled")
        mixed_unlabeled, mixed_pseudo_label = self._mix(
            unlabeled, pseudo_label, "unlabeled"
        )
        if hp.meta_labeled_batch == "raw":
            meta_labeled = float_images(labeled["weak"]), label
        else:
            meta_labeled = mixed_labeled, mixed_label

        # Lines 5 to 10: the meta gradient. Nothing here assigns a variable.
        theta = functional.parameters(self.student)
        state = functional.state(self.student)

        def losses_at(params):
            groups = [mixed_unlabeled]
            if hp.labeled_loss_weight:
                groups.append(mixed_labeled)
            logits, new_state = functional.call(
                self.student, params, state, tf.concat(groups, axis=0)
            )
            size = mixed_unlabeled.shape[0]
            unlabeled_loss = cross_entropy(mixed_pseudo_label, logits[:size])
            labeled_loss = tf.zeros([], logits.dtype)
            if hp.labeled_loss_weight:
                labeled_loss = replicas.share_of_mean(
                    cross_entropy(mixed_label, logits[size:])
                )
            return unlabeled_loss, (labeled_loss, logits, new_state)

        meta_outputs = []

        def labeled_loss_at(params):
            images, target = meta_labeled
            logits, _ = functional.call(self.student, params, state, images)
            loss = replicas.share_of_mean(cross_entropy(target, logits))
            meta_outputs.append((loss, logits))
            return loss

        meta = _META_GRADIENTS[hp.meta_gradient](
            losses_at,
            labeled_loss_at,
            theta,
            self.student_optimizer.learning_rate,
            num_examples=mixed_unlabeled.shape[0],
            num_lookahead_steps=hp.lookahead_steps,
        )
        labeled_loss, logits, new_state = meta.extra

        # Line 11: equation 9.
        example_weight = example_weights.RULES[hp.example_weights](
            meta.meta_gradient
        )  # [U]

        # Lines 12 and 13: one step on the weighted mean loss.
        weight = example_weights.normalized(
            example_weight, self._normalizer(example_weight)
        )
        with meta.tape:
            unlabeled_loss = tf.reduce_sum(weight * meta.unlabeled_loss)
            loss = unlabeled_loss + hp.labeled_loss_weight * labeled_loss
            loss += self.additional_loss(
                unlabeled, labeler_logits, logits[: weight.shape[0]]
            )
        gradient = functional.gradient(meta.tape, loss, theta)
        self.apply_gradients("student", gradient)
        functional.assign_state(self.student, new_state)
        self.update_ema()

        labeled_logits = logits[weight.shape[0] :]
        if not hp.labeled_loss_weight:
            # With example weights 0 the lookahead student is the student.
            ((labeled_loss, labeled_logits),) = meta_outputs
        self.track_share("loss", loss)
        self.track_share("labeled_loss", labeled_loss)
        self.track_share("unlabeled_loss", unlabeled_loss)
        self.track_labeled(labeled["label"], labeled_logits)
        self.track("selected_share", tf.cast(example_weight > 0, tf.float32))
        self.track_pseudo_labels(
            unlabeled["oracle_label"], pseudo_label, example_weight
        )
        return {}

    def additional_loss(self, unlabeled, labeler_logits, mixed_logits):
        """A term that a subclass adds to the loss of the update; 0 here.

        Args:
            unlabeled: the batch's unlabeled group.
            labeler_logits: `[U, C]`, from which pseudo-labels were made.
            mixed_logits: `[U, C]` of the mixed images, differentiable.

        Returns:
            A scalar, this replica's share.
        """
        del unlabeled, labeler_logits, mixed_logits
        return 0.0

    def _mix(self, group, target, name):
        """MixUp of a group's weak view and targets, subject to `mixup_on`."""
        images = float_images(group["weak"])
        if self.hyperparameters.mixup_on not in (name, "both"):
            return images, target
        draw = group["mix_weight"], group["mix_partner"]
        return mixup(images, *draw), mixup(target, *draw)

    def _normalizer(self, example_weight):
        """The divisor of line 12, over the global batch."""
        hp = self.hyperparameters
        if (
            hp.weight_normalizer == "num_unlabeled"
            and hp.example_weights != "relu_norm"
        ):
            size = example_weight.shape[0] * replicas.count()
            return tf.constant(size, example_weight.dtype)
        return replicas.sum_over_replicas(tf.reduce_sum(tf.abs(example_weight)))
