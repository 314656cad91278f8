"""Meta-Semi: Wang, Guo, Song, Huang, arXiv 2007.02394 (it reweights examples).

Not the method of arXiv 2007.03966, which has the same name and learns the
pseudo-labels.
"""

import typing

import tensorflow as tf

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.meta import example_weights, functional
from tf_metassl.models import layers
from tf_metassl.ops import draws, mixing, pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.mixing import mixup

_META_GRADIENTS = {
    "nested_tape": example_weights.nested_tape,
    "forward_mode": example_weights.forward_mode,
    "finite_difference": example_weights.finite_difference,
}
_PSEUDO_LABELS = {"soft": pseudo_labels.soft, "one_hot": pseudo_labels.one_hot}


class Examples(typing.NamedTuple):
    """Images `[N, H, W, C]` float and their target distributions `[N, C]`."""

    images: tf.Tensor
    target: tf.Tensor


def concat(*groups):
    """The rows of several `Examples`, one group after the other."""
    return Examples(*(tf.concat(v, axis=0) for v in zip(*groups, strict=True)))


def _mixed_across(groups, weights, keys):
    """MixUp with partners from all groups, see `mixing.joined`."""
    sizes = [group.images.shape[0] for group in groups]
    count, block = keys.shape
    weight = mixing.joined(weights, count)
    partner = tf.reshape(tf.argsort(keys), [-1])
    mixed = [
        mixing.parted(
            mixup(mixing.joined(values, count), weight, partner, block),
            sizes,
            count,
        )
        for values in zip(*groups, strict=True)
    ]
    return [Examples(*values) for values in zip(*mixed, strict=True)]


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
        "foreign_selected_share",
    )

    def compile(self, **kwargs):
        """See `Algorithm.compile`.

        Raises:
            ValueError: if forward mode is combined with batch norm of a user's
                own that is synchronized over replicas, where TensorFlow loses
                the tangent.
        """
        loses_tangents = layers.loses_tangents(
            self.student, self.distribute_strategy.num_replicas_in_sync
        )
        form = self.hyperparameters.meta_gradient
        if form == "forward_mode" and loses_tangents:
            raise ValueError(
                "--meta_gradient=forward_mode is not exact with a batch norm "
                "of your own that is synchronized over replicas: use "
                "keras.layers.BatchNormalization in the network, "
                "--meta_gradient=nested_tape or --batch_norm=local."
            )
        if form == "auto":
            form = "nested_tape" if loses_tangents else "forward_mode"
        self._meta_gradient = _META_GRADIENTS[form]
        super().compile(**kwargs)

    @property
    def views(self):
        """See `Algorithm.views`."""
        label_view = self.hyperparameters.pseudo_label_view
        learned_view = self.hyperparameters.learned_view
        return Views(
            labeled=("weak",),
            unlabeled=tuple(dict.fromkeys((label_view, learned_view))),
            mixup_alpha=self.hyperparameters.mixup_alpha,
            mix_weight_rule=self.hyperparameters.mix_weight_rule,
            mix_weight_per=self.hyperparameters.mix_weight_per,
            judge_share=self._judge_share,
        )

    @property
    def _judge_share(self):
        """0 where no label is learned, so that all can judge."""
        hp = self.hyperparameters
        return 0.0 if hp.labels_in_update == "none" else hp.judge_share

    def train_step(self, batch):
        """Algorithm 1, lines 3 to 13. See `keras.Model.train_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]  # Line 3.
        hp = self.hyperparameters

        # Line 4: pseudo-labels by the averaged model, then X~ and U~.
        labeler_logits = self._label(unlabeled[hp.pseudo_label_view])
        pseudo_label = _PSEUDO_LABELS[hp.pseudo_label](labeler_logits)  # [U, C]
        judge, supervised, pool = self._groups(batch, pseudo_label)
        judging, learning = self._parts(labeled, pseudo_label.dtype)
        num_unlabeled = pseudo_label.shape[0]
        num_examples = pool.target.shape[0]
        separate = hp.has_labeled_loss

        # Lines 5 to 10: the meta gradient. Nothing here assigns a variable.
        theta = functional.parameters(self.student)
        state = functional.state(self.student)

        learned = concat(pool, supervised) if separate else pool

        def weighted(losses):
            """Weights for the labeled images, which come last."""
            if self.class_weights is None and not self._judge_share:
                return losses
            of_pool, of_labels = tf.split(losses, [num_unlabeled, -1])
            label = learned.target[num_unlabeled:]
            of_labels = self.class_weighted(of_labels, label) * learning
            return tf.concat([of_pool, of_labels], axis=0)

        def losses_at(params):
            logits, new_state = functional.call(
                self.student, params, state, learned.images
            )
            losses = weighted(cross_entropy(learned.target, logits))
            return losses[:num_examples], (losses, logits, new_state)

        judge_outputs = []

        def labeled_loss_at(params):
            logits, _ = functional.call(
                self.student, params, state, judge.images
            )
            losses = self.class_weighted(
                cross_entropy(judge.target, logits), judge.target
            )
            judge_outputs.append((losses, logits))
            return replicas.share_of_mean(losses * judging)

        meta = self._meta_gradient(
            losses_at,
            labeled_loss_at,
            theta,
            self.student_optimizer.learning_rate,
            num_examples=num_examples,
            num_lookahead_steps=hp.lookahead_steps,
        )
        losses, logits, new_state = meta.extra

        # Line 11: equation 9.
        example_weight = example_weights.RULES[hp.example_weights](
            example_weights.within_margin(
                meta.meta_gradient, hp.selection_margin
            )
        )  # [N]

        # Lines 12 and 13: one step on the weighted mean loss.
        weight = example_weights.normalized(
            example_weight, self._normalizer(example_weight)
        )
        with meta.tape:
            unlabeled_loss = tf.reduce_sum(weight * meta.unlabeled_loss)
            loss = unlabeled_loss
            if separate:
                loss += hp.labeled_loss_weight * replicas.share_of_mean(
                    losses[num_examples:]
                )
            loss += self.additional_loss(
                unlabeled, labeler_logits, logits[:num_unlabeled]
            )
        gradient = functional.gradient(meta.tape, loss, theta)
        self.apply_gradients("student", gradient)
        functional.assign_state(self.student, new_state)
        self.update_ema()

        if hp.labels_in_update == "none" or logits.shape[0] == num_unlabeled:
            # With example weights 0 the lookahead student is the student.
            ((labeled_losses, labeled_logits),) = judge_outputs
        else:
            labeled_losses = losses[num_unlabeled:]
            labeled_logits = logits[num_unlabeled:]
        self.track_share("loss", loss)
        self.track_share("labeled_loss", replicas.share_of_mean(labeled_losses))
        self.track_share("unlabeled_loss", unlabeled_loss)
        self.track_labeled(labeled["label"], labeled_logits)
        if hp.example_weights == "relu_norm":
            # These are gradients, which have no scale: a mean of 1 is shown.
            example_weight = weight * (num_examples * replicas.count())
        selected = example_weight[:num_unlabeled]
        self.track("selected_share", tf.cast(selected > 0, tf.float32))
        self.track_pseudo_labels(
            unlabeled["oracle_label"], pseudo_label, selected
        )
        return {}

    def _groups(self, batch, pseudo_label):
        """What a batch is learned from and judged by.

        Args:
            batch: the batch.
            pseudo_label: `[U, C]`, of its unlabeled images.

        Returns:
            Three `Examples`: the labeled ones of the lookahead's loss, those of
            the update, and the pool that is weighted, the unlabeled ones first.
        """
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        raw = Examples(
            float_images(labeled["weak"]), self.one_hot(labeled["label"])
        )
        mixed, pool = self._mixed(
            batch,
            raw,
            Examples(float_images(unlabeled[hp.learned_view]), pseudo_label),
        )
        of = {"raw": raw, "mixed": mixed}
        supervised = of[hp.labeled_loss_batch]
        if hp.labels_in_update == "joint":
            pool = concat(pool, supervised)
        return of[hp.meta_labeled_batch], supervised, pool

    def _parts(self, labeled, dtype):
        """The weights of labeled images as judges, and in the update.

        Args:
            labeled: the batch's labeled group.
            dtype: of the weights.

        Returns:
            Two `[L]`, or 1 and 1. A part has equal weights, whose mean over
            the global batch is 1, and the other part 0. Where a batch has no
            image of a part, that loss is 0.
        """
        if not self._judge_share:
            return 1.0, 1.0
        judges = tf.cast(labeled["judges"], dtype)
        return tuple(
            tf.math.divide_no_nan(part, replicas.global_mean(part))
            for part in (judges, 1.0 - judges)
        )

    def _label(self, images):
        """The labeler's logits `[U, C]`, without gradient or state update."""
        averaged = self.hyperparameters.labeler == "ema"
        labeler = self.deployable_model if averaged else self.student
        if self.hyperparameters.labeler_mode == "inference":
            return labeler(images, training=False)
        logits, _ = functional.call_average(
            labeler, self.student, functional.state(self.student), images
        )
        return tf.stop_gradient(logits)

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

    def _mixed(self, batch, labeled, unlabeled):
        """MixUp of both groups, subject to `mixup_on` and `mix_partners`.

        Args:
            batch: the batch, for its draws.
            labeled: `Examples`.
            unlabeled: `Examples`.

        Returns:
            Both, mixed.
        """
        hp = self.hyperparameters
        groups = {"labeled": labeled, "unlabeled": unlabeled}
        if hp.mix_partners == "all" and hp.mixes:
            sizes = [group.images.shape[0] for group in groups.values()]
            mixed = _mixed_across(
                list(groups.values()),
                [batch[name]["mix_weight"] for name in groups],
                self._partner_keys(sizes),
            )
        else:
            mixed = [
                Examples(
                    *(
                        mixup(
                            values,
                            batch[name]["mix_weight"],
                            batch[name]["mix_partner"],
                        )
                        for values in group
                    )
                )
                for name, group in groups.items()
            ]
        return [
            after if hp.mixup_on in (name, "both") else before
            for (name, before), after in zip(groups.items(), mixed, strict=True)
        ]

    def _partner_keys(self, sizes):
        """Random numbers, one row per block, whose order gives partners."""
        count = mixing.num_blocks(sizes[0])
        return self.draw(draws.uniform, [count, sum(sizes) // count], "mix")

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
