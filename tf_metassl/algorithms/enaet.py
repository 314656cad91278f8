"""EnAET: Wang, Kihara, Luo, Qi, arXiv 1911.09265."""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.mixmatch import MixMatch
from tf_metassl.models.layers import perceptron
from tf_metassl.ops import draws, replicas, transformations
from tf_metassl.ops.losses import cross_entropy, squared_error

# Share of each transformation's loss, as published.
_SHARES = {
    "projective": 1.0,
    "affine": 0.75,
    "similarity": 0.5,
    "euclidean": 0.2,
    "color": 0.05,
}


class EnAet(MixMatch):
    """MixMatch with decoders that predict how an image was transformed.

    Every unlabeled image is transformed in five ways. A decoder per way
    predicts the parameters of the transformation from the features of the image
    and of its transformed copy. The student's predictions on the copies are
    trained to agree with the guessed label. The student's optimizer trains the
    decoders as well.
    """

    metric_names = (
        *MixMatch.metric_names,
        "transformation_loss",
        "agreement_loss",
    )
    reads_features = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        channels = self.student.input_shape[-1]
        self._num_draws = {
            "projective": 8,
            "affine": 6,
            "similarity": 4,
            "euclidean": 3,
            "color": transformations.num_color_factors(channels),
        }
        # Matrices are predicted by their entries, because an angle is not
        # continuous at 360 degrees.
        num_outputs = {
            "projective": 8,
            "affine": 6,
            "similarity": 6,
            "euclidean": 6,
            "color": self._num_draws["color"],
        }
        num_features = self.student_and_features.outputs[0].shape[-1]
        self.decoders = {
            # Pair of features `[N, 2F]` -> parameters `[N, P]`.
            kind: perceptron(f"{kind}_decoder", 2 * num_features, 128, size)
            for kind, size in num_outputs.items()
        }

    def trained_variables(self, role):
        """The student's variables and those of the decoders."""
        variables = super().trained_variables(role)
        for decoder in self.decoders.values():
            variables.extend(decoder.trainable_variables)
        return variables

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        guess = self.guess(unlabeled)  # [U, C]
        images = [labeled["weak"], unlabeled["weak_1"], unlabeled["weak_2"]]
        targets = [self.one_hot(labeled["label"]), guess, guess]
        images, targets = self.mixed(batch, images, targets)
        plain = float_images(unlabeled["weak_1"])
        copies, parameters = self.transformed(plain)

        features, logits = self.forward(
            self.student_and_features, *images, plain, *copies.values()
        )
        loss = self.mixed_loss(batch, logits[:3], targets, guess)

        transformation_loss = agreement_loss = 0.0
        for kind, features_k, logits_k in zip(
            copies, features[4:], logits[4:], strict=True
        ):
            pair = tf.concat([features[3], features_k], axis=-1)
            guessed = self.decoders[kind](pair)
            error = squared_error(parameters[kind], guessed)
            transformation_loss += _SHARES[kind] * replicas.share_of_mean(error)
            # Equal to the KL divergence up to the entropy of the guess.
            agreement_loss += replicas.share_of_mean(
                cross_entropy(guess, logits_k)
            )
        agreement_loss /= len(copies)
        weight = self.ramped(
            hp.transformation_weight, hp.transformation_ramp_steps
        )

        self.track_share("transformation_loss", transformation_loss)
        self.track_share("agreement_loss", agreement_loss)
        return (
            loss
            + weight * transformation_loss
            + hp.agreement_weight * agreement_loss
        )

    def transformed(self, images):
        """Draws and applies every transformation.

        Args:
            images: `[U, H, W, C]` floats.

        Returns:
            `(copies, parameters)`: kind -> `[U, H, W, C]`, and kind -> the
            target of its decoder, `[U, P]`.
        """
        copies, parameters = {}, {}
        for kind, count in self._num_draws.items():
            draw = self.draw(draws.uniform, [images.shape[0], count], kind)
            draw = tf.cast(2.0 * draw - 1.0, images.dtype)
            if kind == "color":
                copies[kind] = transformations.recolored(images, draw)
                parameters[kind] = draw
                continue
            matrix = self._matrix(kind, draw)
            copies[kind] = transformations.warp(images, matrix)
            entries = tf.reshape(matrix, [-1, 9])
            size = self.decoders[kind].output_shape[-1]
            parameters[kind] = entries[:, :size]
        return copies, parameters

    def _matrix(self, kind, draw):
        if kind == "projective":
            return transformations.projective(draw)
        make = {
            "affine": transformations.affine,
            "similarity": transformations.similarity,
            "euclidean": transformations.euclidean,
        }[kind]
        return make(draw, self.hyperparameters.max_rotation)
