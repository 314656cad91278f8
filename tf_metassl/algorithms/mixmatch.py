"""MixMatch: Berthelot et al., arXiv 1905.02249."""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import (
    TWO_LOSSES,
    Algorithm,
    float_images,
)
from tf_metassl.contract import MIX_BLOCK, Views
from tf_metassl.meta import functional
from tf_metassl.ops import draws, mixing, pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy, squared_error


class MixMatch(Algorithm):
    """MixUp of labeled images and of unlabeled images with guessed labels.

    A guessed label is the sharpened mean prediction on two weak views. It is
    predicted in training mode, as in the released code, without an update of
    any moving average.
    """

    metric_names = TWO_LOSSES

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(
            labeled=("weak",),
            unlabeled=("weak_1", "weak_2"),
            mixup_alpha=self.hyperparameters.mixup_alpha,
            mix_weight_rule=self.hyperparameters.mix_weight_rule,
        )

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        guess = self.guess(unlabeled)  # [U, C]
        images = [labeled["weak"], unlabeled["weak_1"], unlabeled["weak_2"]]
        targets = [self.one_hot(labeled["label"]), guess, guess]
        images, targets = self.mixed(batch, images, targets)
        logits = self.forward(self.student, *images)
        return self.mixed_loss(batch, logits, targets, guess)

    def guess(self, unlabeled):
        """The labels `[U, C]` of the unlabeled images, without gradient."""
        probs = self.probs([unlabeled["weak_1"], unlabeled["weak_2"]])
        return pseudo_labels.sharpened(probs, self.hyperparameters.temperature)

    def probs(self, views):
        """The mean prediction on views `[U, ...]` of the same images."""
        logits, _ = functional.call(
            self.student,
            functional.parameters(self.student),
            functional.state(self.student),
            tf.concat(views, axis=0),
        )
        probs = tf.split(tf.nn.softmax(logits), len(views))
        return tf.stop_gradient(tf.reduce_mean(tf.stack(probs), axis=0))

    def mixed(self, batch, images, targets):
        """MixUp across the labeled group and all unlabeled views.

        Args:
            batch: the batch.
            images: list of the labeled images `[B, ...]` and of views of the
                unlabeled ones `[U, ...]`, uint8.
            targets: list of their targets, `[B, C]` and `[U, C]`.

        Returns:
            Both lists, mixed; float images.
        """
        weight = batch["unlabeled"]["mix_weight"]
        blocks = tf.reshape(weight, [-1, MIX_BLOCK])
        weights = [batch["labeled"]["mix_weight"]]
        for view in range(len(images) - 1):
            # The same draws for other images.
            shifted = tf.roll(blocks, view, axis=1)
            weights.append(tf.reshape(shifted, weight.shape))

        count = mixing.num_blocks(images[0].shape[0])
        sizes = [group.shape[0] for group in images]
        block = sum(sizes) // count
        keys = self.draw(draws.uniform, [count, block], "mix")
        partner = tf.reshape(tf.argsort(keys), [-1])
        weights = mixing.joined(weights, count)

        def mix(groups):
            values = mixing.joined(groups, count)
            values = mixing.mixup(values, weights, partner, block)
            return mixing.parted(values, sizes, count)

        return mix([float_images(group) for group in images]), mix(targets)

    def mixed_loss(self, batch, logits, targets, guess):
        """Cross-entropy of the labeled, squared error of the unlabeled part.

        Args:
            batch: the batch.
            logits: list of the logits of the mixed groups.
            targets: list of their mixed targets.
            guess: `[U, C]`, for the metrics.

        Returns:
            A scalar, this replica's share.
        """
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled_loss = replicas.share_of_mean(
            self.class_weighted(
                cross_entropy(targets[0], logits[0]), targets[0]
            )
        )
        unlabeled_loss = replicas.share_of_mean(
            self.unlabeled_losses(
                tf.concat(targets[1:], axis=0), tf.concat(logits[1:], axis=0)
            )
        )
        weight = self.ramped(hp.unlabeled_loss_weight, hp.unlabeled_ramp_steps)

        self.track_share("labeled_loss", labeled_loss)
        self.track_share("unlabeled_loss", unlabeled_loss)
        self.track_labeled(labeled["label"], logits[0])
        self.track_pseudo_labels(unlabeled["oracle_label"], guess)
        return labeled_loss + weight * unlabeled_loss

    @staticmethod
    def unlabeled_losses(targets, logits):
        """`[N]` from targets and logits `[N, C]` of mixed unlabeled images."""
        return squared_error(targets, tf.nn.softmax(logits))
