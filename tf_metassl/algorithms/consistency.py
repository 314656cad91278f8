"""Base of the methods that make predictions of unlabeled images agree."""

import typing

import tensorflow as tf

from tf_metassl.algorithms.algorithm import TWO_LOSSES, Algorithm
from tf_metassl.meta import functional
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.schedules import sigmoid_ramp


class NetworkOutput(typing.NamedTuple):
    """The student's outputs for a group of images.

    Attributes:
        logits: `[N, C]`.
        features: `[N, F]`, the inputs of the last layer; None unless the
            method sets `reads_features`.
    """

    logits: tf.Tensor
    features: tf.Tensor | None = None


class ConsistencyTerms(typing.NamedTuple):
    """Outputs, losses and targets of a consistency method for a batch.

    Attributes:
        labeled: the student's `NetworkOutput` for the labeled images.
        unlabeled: its `NetworkOutput` for the unlabeled images.
        unlabeled_losses: `[U]`.
        target: `[U, C]`, the scores of the targets of the unlabeled images.
        selected: `[U]`, 0 where the target is not used; None if all are.
    """

    labeled: NetworkOutput
    unlabeled: NetworkOutput
    unlabeled_losses: tf.Tensor
    target: tf.Tensor
    selected: tf.Tensor | None = None


class Consistency(Algorithm):
    """Cross-entropy of labeled images plus a ramped loss of unlabeled ones.

    A method defines `terms`. The unlabeled loss is a mean over the unlabeled
    batch. The labeled images are part of the unlabeled pool unless
    --labeled_inside_unlabeled=false.
    """

    metric_names = TWO_LOSSES
    ramp = staticmethod(sigmoid_ramp)

    def terms(self, batch):
        """The `ConsistencyTerms` of a batch, see `tf_metassl.contract`."""
        raise NotImplementedError

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled = batch["labeled"]
        terms = self.terms(batch)
        label = self.one_hot(labeled["label"])
        self.track_labeled(labeled["label"], terms.labeled.logits)
        self.track_pseudo_labels(
            batch["unlabeled"]["oracle_label"], terms.target, terms.selected
        )
        losses = cross_entropy(label, terms.labeled.logits)
        return self.weighted_sum(
            replicas.share_of_mean(self.class_weighted(losses, label)),
            self.unlabeled_loss(batch, terms),
        )

    def unlabeled_loss(self, batch, terms):
        """This replica's share of the unlabeled loss, unweighted; a scalar."""
        del batch
        return replicas.share_of_mean(terms.unlabeled_losses)

    def weighted_sum(self, labeled_loss, unlabeled_loss):
        """labeled + weight * ramp * unlabeled, of this replica's shares."""
        hp = self.hyperparameters
        weight = self.ramped(
            hp.unlabeled_loss_weight, hp.unlabeled_ramp_steps, self.ramp
        )
        self.track_share("labeled_loss", labeled_loss)
        self.track_share("unlabeled_loss", unlabeled_loss)
        return labeled_loss + weight * unlabeled_loss

    def student_pass(self, *image_groups):
        """One pass of the student over all groups, as one batch-norm batch.

        Args:
            *image_groups: `[N_i, H, W, C]` each.

        Returns:
            A list with the `NetworkOutput` of each group.
        """
        logits = self.forward(self.student, *image_groups)
        if len(image_groups) == 1:
            logits = [logits]
        return [NetworkOutput(group) for group in logits]

    def teacher_logits(self, images):
        """Predictions of the averaged student in training mode.

        As in the code of ICT, and of Mean Teacher in that of MixMatch, the
        teacher uses batch statistics and its own dropout masks. It updates no
        moving average, but for that of ICT. Its batch statistics are those of
        `images`, whereas the student's pass includes the labeled images.
        Without an averaged student (`ema_decay` 0) the teacher is the student.

        Call it after the student's pass: that advances the random state of
        dropout, so that the masks differ.

        Args:
            images: `[N, H, W, C]`.

        Returns:
            Logits `[N, C]` without gradient.
        """
        average = self.student if self.ema is None else self.ema
        logits, _ = functional.call_average(
            average, self.student, functional.state(self.student), images
        )
        return tf.stop_gradient(logits)
