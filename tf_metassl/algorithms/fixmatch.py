"""FixMatch: Sohn et al., arXiv 2001.07685."""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.ops import averaging, pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy
from tf_metassl.ops.mixing import mixup


class FixMatch(Algorithm):
    """Confident predictions on weak views are the labels of strong views.

    Its successors and UDA are subclasses that override what their papers
    change: the target, the weight of an example, the labeled loss.
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

    @property
    def views(self):
        """See `Algorithm.views`."""
        hp = self.hyperparameters
        return Views(
            labeled=("weak",),
            unlabeled=("weak", "strong"),
            mixup_alpha=hp.labeled_mixup_alpha if hp.mixes else 0.0,
        )

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        images = [labeled["weak"], unlabeled["weak"], unlabeled["strong"]]
        target = self.one_hot(labeled["label"])  # [B, C]
        if self.hyperparameters.mixes:
            draw = labeled["mix_weight"], labeled["mix_partner"]
            images = [float_images(view) for view in images]
            images[0], target = mixup(images[0], *draw), mixup(target, *draw)
        logits_l, logits_w, logits_s = self.forward(self.student, *images)
        pseudo_label, example_weight = self.targets(
            target, logits_l, logits_w, unlabeled["index"]
        )
        return self.matched_loss(
            batch, target, logits_l, logits_s, pseudo_label, example_weight
        )

    def targets(self, label, logits_l, logits_w, index):
        """What the strong views learn, and how much of it.

        Args:
            label: `[B, C]`, the labels of the labeled images.
            logits_l: `[B, C]`, the logits of the labeled images.
            logits_w: `[U, C]`, those of the weak views.
            index: `[U]` int64, rows of the images in the training set.

        Returns:
            `(pseudo_label, example_weight)`: targets `[U, C]` and weights
            `[U]` in 0...1, without gradient.
        """
        del label, logits_l
        probs = pseudo_labels.soft(logits_w)
        return self.pseudo_label(logits_w), self.example_weight(probs, index)

    def matched_loss(
        self, batch, label, logits_l, logits_s, pseudo_label, example_weight
    ):
        """The sum of the labeled, the unlabeled and the additional loss.

        Args:
            batch: the batch.
            label: `[B, C]`.
            logits_l: `[B, C]`, of the labeled images.
            logits_s: `[U, C]`, of the strong views.
            pseudo_label: `[U, C]`.
            example_weight: `[U]`.

        Returns:
            A scalar, this replica's share.
        """
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        labeled_loss = self.labeled_loss(label, logits_l)
        unlabeled_loss = self.unlabeled_loss(
            cross_entropy(pseudo_label, logits_s), example_weight
        )

        self.track_share("labeled_loss", labeled_loss)
        self.track_share("unlabeled_loss", unlabeled_loss)
        self.track_labeled(labeled["label"], logits_l)
        self.track("selected_share", example_weight)
        self.track_pseudo_labels(
            unlabeled["oracle_label"], pseudo_label, example_weight
        )
        return (
            labeled_loss
            + self.hyperparameters.unlabeled_loss_weight * unlabeled_loss
            + self.additional_loss(logits_s, example_weight)
        )

    def pseudo_label(self, logits):
        """Targets `[U, C]` from the logits `[U, C]` of the weak views."""
        return pseudo_labels.one_hot(logits)

    def example_weight(self, probs, index):
        """The weight of each unlabeled example.

        Args:
            probs: `[U, C]` predictions on the weak views, without gradient.
            index: `[U]` int64, rows of the images in the training set.

        Returns:
            `[U]` in 0...1.
        """
        del index
        confidence = tf.reduce_max(probs, axis=-1)  # [U]
        threshold = self.hyperparameters.confidence_threshold
        return tf.cast(confidence >= threshold, probs.dtype)

    def labeled_loss(self, label, logits):
        """This replica's share of the loss of labels and logits `[B, C]`."""
        losses = cross_entropy(label, logits)
        return replicas.share_of_mean(self.class_weighted(losses, label))

    def unlabeled_loss(self, losses, example_weight):
        """This replica's share of the mean of weighted losses `[U]`.

        The mean is over all U examples, rejected ones included.
        """
        return replicas.share_of_mean(example_weight * losses)

    def additional_loss(self, logits, example_weight):
        """This replica's share of a term that a subclass adds; 0 here.

        Args:
            logits: `[U, C]` of the strong views.
            example_weight: `[U]`.

        Returns:
            A scalar.
        """
        del logits, example_weight
        return 0.0

    def move_mean(self, variable, values, decay):
        """Moves a running mean over steps by the mean of the global batch.

        The first mean replaces the initial value.

        Args:
            variable: a Keras variable `[...]`, the running mean.
            values: `[N, ...]`, the rows of this replica.
            decay: scalar in 0...1.
        """
        decay = tf.where(self.step > 0, decay, 0.0)
        averaging.move(variable, replicas.global_mean(values), decay)

    def uniformly_aligned(self, probs):
        """Predictions scaled toward the uniform distribution.

        For subclasses with the setting `uniform_alignment` and the running
        mean `mean_probs` `[C]`, which is updated first.

        Args:
            probs: `[U, C]`, predictions on weak views.

        Returns:
            `[U, C]`; `probs` itself without the alignment.
        """
        hp = self.hyperparameters
        if not hp.uniform_alignment:
            return probs
        self.move_mean(self.mean_probs, probs, hp.statistics_decay)
        current = self.mean_probs.value
        uniform = tf.ones_like(current) / self.num_classes
        return pseudo_labels.aligned(probs, target=uniform, current=current)
