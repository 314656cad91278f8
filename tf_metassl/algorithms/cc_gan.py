"""Context-conditional GAN: Denton, Gross, Fergus, arXiv 1611.06430.

A reconstruction: of the paper, the abstract and a summary were at hand.
"""

import keras
import tensorflow as tf

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.meta import functional
from tf_metassl.models.in_painter import in_painter
from tf_metassl.ops import draws, replicas
from tf_metassl.ops.losses import cross_entropy

# Smaller images have no context around a hole.
_SMALLEST = 4


class CcGan(Algorithm):
    """A classifier that also tells real images from in-painted ones.

    The generator fills a square hole of each unlabeled image. The discriminator
    is the student with a second head on its features. It learns the labels, and
    to tell real images from in-painted ones and, for CC-GAN^2, from all of what
    the generator made, its context included. The generator learns to make both
    look real.

    Both networks take their step from the same forward pass. Generated images
    are a batch of their own for batch norm and move no average, so that the
    exported network has the statistics of real images.
    """

    roles = ("student", "generator")
    metric_names = (
        "loss",
        "labeled_loss",
        "discriminator_loss",
        "generator_loss",
        "labeled_accuracy",
        "discriminator_accuracy",
    )
    reads_features = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        features = self.student_and_features.outputs[0]
        self.real_head = keras.Sequential(
            [
                keras.Input(features.shape[1:]),
                keras.layers.Dense(1, dtype=keras.config.floatx()),
            ],
            name="real",
        )

    @classmethod
    def build_networks(cls, build, num_classes):
        """See `Algorithm.build_networks`.

        Raises:
            ValueError: if the images are too small to have a hole.
        """
        del num_classes
        student = build("student")
        image_shape = student.input_shape[1:]
        if min(image_shape[:2]) < _SMALLEST:
            raise ValueError(
                f"cc_gan fills holes of images of at least {_SMALLEST}x"
                f"{_SMALLEST} pixels, got {image_shape[0]}x{image_shape[1]}: "
                "change --dataset or --image_size."
            )
        return {"student": student, "generator": in_painter(image_shape)}

    @property
    def views(self):
        """See `Algorithm.views`."""
        learned_view = self.hyperparameters.learned_view
        return Views(labeled=(learned_view,), unlabeled=("weak",))

    @property
    def evaluated_networks(self):
        """See `Algorithm.evaluated_networks`; the generator has no classes."""
        networks = super().evaluated_networks
        return {k: v for k, v in networks.items() if k != "generator"}

    def trained_variables(self, role):
        """Those of the generator, or of the student and its second head."""
        variables = super().trained_variables(role)
        if role == "student":
            variables += self.real_head.trainable_variables
        return variables

    def train_step(self, batch):
        """A step of the discriminator and one of the generator."""
        hp = self.hyperparameters
        labeled = batch["labeled"]
        real = float_images(batch["unlabeled"]["weak"])
        label = self.one_hot(labeled["label"])
        hole = self._hole(real)
        with tf.GradientTape(persistent=True) as tape:
            whole, in_painted = self.generated(real, hole)
            features, logits = self.forward(
                self.student_and_features,
                float_images(labeled[hp.learned_view]),
                real,
            )
            real_scores = self._scores(features[1])
            in_painted_scores, whole_scores = tf.split(
                self._scores(self._still_features(in_painted, whole)), 2
            )
            losses = self.class_weighted(cross_entropy(label, logits[0]), label)
            labeled_loss = replicas.share_of_mean(losses)
            discriminator_loss = replicas.share_of_mean(
                surprise(real_scores, real=True)
                + surprise(in_painted_scores, real=False)
                + hp.whole_image_weight * surprise(whole_scores, real=False)
            )
            # Of the label "real", not minus the discriminator's loss, whose
            # gradient vanishes where the generator is bad.
            generator_loss = replicas.share_of_mean(
                surprise(in_painted_scores, real=True)
                + hp.whole_image_weight * surprise(whole_scores, real=True)
            )
            loss = labeled_loss + hp.adversarial_weight * discriminator_loss
        gradients = {
            "student": self.gradients("student", tape, loss),
            "generator": self.gradients("generator", tape, generator_loss),
        }
        del tape
        for role, gradient in gradients.items():
            self.apply_gradients(role, gradient)
        self.update_ema()

        self.track_share("loss", loss)
        self.track_share("labeled_loss", labeled_loss)
        self.track_share("discriminator_loss", discriminator_loss)
        self.track_share("generator_loss", generator_loss)
        self.track_labeled(labeled["label"], logits[0])
        correct = tf.concat([real_scores > 0, in_painted_scores < 0], axis=0)
        self.track("discriminator_accuracy", tf.cast(correct, tf.float32))
        return {}

    def generated(self, images, hole):
        """What the generator makes of images with a hole.

        Args:
            images: `[U, H, W, C]` floats in 0...255.
            hole: `[U, H, W, 1]`, 1 inside.

        Returns:
            `(whole, in_painted)`, `[U, H, W, C]` in 0...255 each: all of its
            output, and the images with its output in the hole.
        """
        context = (1.0 - hole) * (images / 127.5 - 1.0)
        made = self.forward(self.generator, tf.concat([context, hole], axis=-1))
        whole = 127.5 * (made + 1.0)
        return whole, hole * whole + (1.0 - hole) * images

    def _hole(self, images):
        """A square hole in a random place of each image, `[U, H, W, 1]`."""
        share = self.hyperparameters.hole_share
        draw = self.draw(draws.uniform, [images.shape[0], 2], "hole")
        return holes(draw, images.shape[1:3], share, images.dtype)

    def _still_features(self, *groups):
        """Features of generated images; changes no batch-norm average."""
        (features, _), _ = functional.call(
            self.student_and_features,
            functional.parameters(self.student_and_features),
            functional.state(self.student_and_features),
            tf.concat(groups, axis=0),
        )
        return features

    def _scores(self, features):
        """`[N, F]` -> `[N]`, log-odds of being real."""
        return self.real_head(features)[:, 0]


def holes(draw, size, share, dtype):
    """Square holes as masks.

    Args:
        draw: `[N, 2]` uniform in [0, 1), the place of the upper left corner.
        size: height and width of the images.
        share: side of the hole, relative to the shorter side of the image.
        dtype: of the result.

    Returns:
        `[N, H, W, 1]`, 1 inside the hole. It has at least one pixel, leaves at
        least one row or column, and lies within the image.
    """
    shorter = min(size)
    side = min(max(round(share * shorter), 1), shorter - 1)
    inside = []
    for place, length in zip(tf.unstack(draw, axis=1), size, strict=True):
        first = tf.floor(place * (length - side + 1))[:, tf.newaxis]
        pixel = tf.range(length, dtype=first.dtype)
        inside.append((pixel >= first) & (pixel < first + side))
    rows, columns = inside
    both = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
    return tf.cast(both, dtype)[..., tf.newaxis]


def surprise(scores, *, real):
    """-log of the probability that images are real, or that they are not.

    Args:
        scores: `[N]`, log-odds of being real.
        real: which of the two.

    Returns:
        `[N]`.
    """
    return tf.nn.softplus(-scores if real else scores)
