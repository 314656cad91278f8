"""ReMixMatch: Berthelot et al., arXiv 1911.09785."""

import keras
import tensorflow as tf

from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.mixmatch import MixMatch
from tf_metassl.contract import Views
from tf_metassl.ops import (
    averaging,
    draws,
    pseudo_labels,
    replicas,
    transformations,
)
from tf_metassl.ops.losses import cross_entropy

# The paper's moving average is a mean over this many steps.
_HISTORY = 128


class ReMixMatch(MixMatch):
    """MixMatch with aligned guesses, learned augmentation and rotations.

    The guessed label of an unlabeled image is predicted on a weak view, scaled
    toward the class distribution of the labels, and used for several strong
    views. CTAugment learns the magnitudes of the strong views from predictions
    of the averaged network on augmented labeled images (probes). A head on the
    features predicts by how many quarter turns an image was rotated.
    """

    metric_names = (*MixMatch.metric_names, "strong_loss", "rotation_loss")
    reads_features = True
    can_accumulate = False  # It remembers a mean over the batch of each step.

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        classes = self.num_classes
        self.label_share = self.state_variable(
            "label_share", (classes,), 1.0 / classes
        )
        self.past_probs = self.state_variable(
            "past_probs", (_HISTORY, classes), 1.0 / classes
        )
        self.create_rates()
        self.rotation_head = keras.Sequential(
            [
                keras.Input(self.student_and_features.outputs[0].shape[1:]),
                keras.layers.Dense(4, dtype=keras.config.floatx()),
            ],
            name="rotation",
        )

    @property
    def views(self):
        """See `Algorithm.views`."""
        hp = self.hyperparameters
        return Views(
            labeled=("ctaugment",),
            unlabeled=("weak", *self._strong_views),
            mixup_alpha=hp.mixup_alpha,
            mix_weight_rule=hp.mix_weight_rule,
        )

    @property
    def _strong_views(self):
        count = self.hyperparameters.num_strong_views
        return tuple(f"ctaugment_{n}" for n in range(1, count + 1))

    def trained_variables(self, role):
        """The student's variables and those of the rotation head."""
        return [
            *super().trained_variables(role),
            *self.rotation_head.trainable_variables,
        ]

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        label = self.one_hot(labeled["label"])
        guess = self.guess(unlabeled)  # [U, C]
        averaging.move(self.label_share, replicas.global_mean(label), 0.999)

        views = [unlabeled[view] for view in (*self._strong_views, "weak")]
        images, targets = self.mixed(
            batch,
            [labeled["ctaugment"], *views],
            [label, *[guess] * len(views)],
        )
        strong = float_images(unlabeled[self._strong_views[0]])
        rotated, rotation = self.rotated(strong)
        features, logits = self.forward(
            self.student_and_features, *images, strong, rotated
        )
        loss = self.mixed_loss(batch, logits[:-2], targets, guess)
        strong_loss = replicas.share_of_mean(cross_entropy(guess, logits[-2]))
        rotation_loss = replicas.share_of_mean(
            cross_entropy(
                tf.one_hot(rotation, 4, dtype=label.dtype),
                self.rotation_head(features[-1]),
            )
        )
        weight = self.ramped(hp.strong_loss_weight, hp.unlabeled_ramp_steps)

        self.track_share("strong_loss", strong_loss)
        self.track_share("rotation_loss", rotation_loss)
        return (
            loss
            + weight * strong_loss
            + hp.rotation_loss_weight * rotation_loss
        )

    def guess(self, unlabeled):
        """The aligned, then sharpened prediction; see `MixMatch.guess`.

        The alignment uses the predictions of earlier steps only.
        """
        probs = self.probs([unlabeled["weak"]])
        past = self.past_probs.value
        guess = pseudo_labels.aligned(
            probs,
            target=self.label_share.value,
            current=tf.reduce_mean(past, axis=0),
        )
        mean = replicas.global_mean(probs)[tf.newaxis]
        self.past_probs.assign(tf.concat([past[1:], mean], axis=0))
        return pseudo_labels.sharpened(guess, self.hyperparameters.temperature)

    def rotated(self, images):
        """Turns every image by a multiple of a quarter turn.

        Args:
            images: `[U, H, W, C]` floats.

        Returns:
            `(images, rotation)`: `[U, H, W, C]` and `[U]` int32 in 0...3.
            Images that are not square are rotated within their frame.
        """
        draw = self.draw(draws.uniform, [images.shape[0]], "rotation")
        rotation = tf.cast(4.0 * draw, tf.int32)
        return transformations.quarter_turned(images, rotation), rotation

    @staticmethod
    def unlabeled_losses(targets, logits):
        """See `MixMatch.unlabeled_losses`."""
        return cross_entropy(targets, logits)
