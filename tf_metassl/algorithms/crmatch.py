"""CRMatch: Fan, Kukleva, Dai, Schiele, arXiv 2112.05825."""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.models.layers import linear, perceptron
from tf_metassl.ops import draws, projections, replicas, transformations
from tf_metassl.ops.losses import cross_entropy


class CrMatch(FixMatch):
    """FixMatch with views whose classes agree and whose features differ.

    The classifier has to predict one class for the weak and the strong view. A
    linear map of their features has to tell them apart (FeatDistLoss). A
    second head predicts by how many quarter turns an image was rotated.
    """

    metric_names = (*FixMatch.metric_names, "feature_loss", "rotation_loss")
    reads_features = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        size = self.student_and_features.outputs[0].shape[-1]
        self.projector = linear("projector", size, size)
        self.rotation_head = perceptron("rotation", size, size, 4)

    def trained_variables(self, role):
        """The student's variables and those of both heads."""
        return [
            *super().trained_variables(role),
            *self.projector.trainable_variables,
            *self.rotation_head.trainable_variables,
        ]

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        label = self.one_hot(labeled["label"])
        views = labeled["weak"], unlabeled["weak"], unlabeled["strong"]
        images = [float_images(view) for view in views]
        rotated, rotation = self.rotated(images[1])
        features, logits = self.forward(
            self.student_and_features, *images, rotated
        )
        logits_l, logits_w, logits_s, _ = logits
        _, features_w, features_s, features_r = features
        pseudo_label, example_weight = self.targets(
            label, logits_l, logits_w, unlabeled["index"]
        )
        loss = self.matched_loss(
            batch, label, logits_l, logits_s, pseudo_label, example_weight
        )
        similarity = projections.cosine(
            self.projector(features_w), self.projector(features_s)
        )  # [U]
        # Features that are at a right angle differ enough.
        feature_loss = replicas.share_of_mean(
            example_weight * tf.nn.relu(similarity)
        )
        rotation_loss = replicas.share_of_mean(
            cross_entropy(
                tf.one_hot(rotation, 4, dtype=label.dtype),
                self.rotation_head(features_r),
            )
        )

        self.track_share("feature_loss", feature_loss)
        self.track_share("rotation_loss", rotation_loss)
        return (
            loss
            + hp.feature_loss_weight * feature_loss
            + hp.rotation_loss_weight * rotation_loss
        )

    def rotated(self, images):
        """Turns every image by a drawn multiple of a quarter turn.

        Args:
            images: `[U, H, W, C]` floats.

        Returns:
            `(images, rotation)`: `[U, H, W, C]` and `[U]` int32 in 0...3.
        """
        draw = self.draw(draws.uniform, [images.shape[0]], "rotation")
        rotation = tf.cast(4.0 * draw, tf.int32)
        return transformations.quarter_turned(images, rotation), rotation
