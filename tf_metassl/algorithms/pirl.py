"""PIRL: Misra and van der Maaten, arXiv 1912.01991."""

import numpy as np
import tensorflow as tf

from tf_metassl import models
from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.self_supervised import SelfSupervised
from tf_metassl.meta import functional
from tf_metassl.models.layers import linear
from tf_metassl.ops import draws, jigsaw, projections, replicas


class Pirl(SelfSupervised):
    """Nine patches of an image, in any order, are represented as the image is.

    A bank has a representation of every image, an average of its projections.
    The projection of an image, and one of its nine patches together, have to
    find the entry of the image among entries of others.

    Patches are smaller images, and a batch of their own for batch norm. They
    are enlarged, as no image is later, so that their statistics do not enter
    the averages that inference uses.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        hp = self.hyperparameters
        size = hp.projection_size
        self.patch_projector = linear(
            "patch_projector", self.projector.input_shape[-1], size
        )
        self.jigsaw_projector = self.head(
            "jigsaw_projector", jigsaw.NUM_PATCHES * size
        )
        self._patch_size = tuple(
            hp.patch_size or -(-side // 2)
            for side in self.student.input_shape[1:3]
        )
        self.patch_features = models.at_size(
            self.student_and_features, self._patch_size
        )
        shape = (self.num_images, size)
        self.bank = self.state_variable("bank", shape)
        self.bank.assign(projections.random_directions(shape, self._seed))
        # The rows that negatives are drawn from come first.
        self.pool = self.state_variable("pool", shape[:1], dtype="int64")
        self.pool_size = self.state_variable("pool_size", (), dtype="int64")
        self._draw_negatives_from(np.arange(self.num_images))

    @property
    def heads(self):
        """See `SelfSupervised.heads`."""
        return [self.projector, self.patch_projector, self.jigsaw_projector]

    @property
    def training_networks(self):
        """See `Algorithm.training_networks`."""
        return [*super().training_networks, self.patch_features]

    def prepare(self, predict):
        """See `Algorithm.prepare`."""
        super().prepare(predict)
        self._draw_negatives_from(np.unique(predict.unlabeled))

    def _draw_negatives_from(self, rows):
        self.pool.assign(np.resize(rows, self.num_images))
        self.pool_size.assign(len(rows))

    def representation_losses(self, first, second, index):
        """See `SelfSupervised.representation_losses`."""
        share = self.hyperparameters.jigsaw_share
        (image,) = self.project(first)  # f(v_I)
        of_patches = self.project_patches(second)  # g(v_I^t)
        entries = tf.gather(self.bank.value, index)  # m_I
        rows = self.negative_rows()
        negatives = tf.gather(self.bank.value, rows)
        is_own = rows == index[:, tf.newaxis]

        def contrast(rows):
            return projections.noise_contrast(
                rows,
                entries,
                negatives,
                is_own,
                self.hyperparameters.contrast_temperature,
            )

        losses = share * contrast(of_patches) + (1.0 - share) * contrast(image)
        self.update_bank(index, entries, image)
        return losses

    def project_patches(self, images):
        """The projection of the nine patches of each image together.

        Args:
            images: `[U, H, W, C]`.

        Returns:
            `[U, D]`; the projections of the patches are its input, in an order
            that is drawn for each image.
        """
        size, count = images.shape[0], jigsaw.NUM_PATCHES
        place = self.draw(draws.uniform, [size, count, 2], "patches")
        patches = jigsaw.patches(float_images(images), place, self._patch_size)
        (features, _), _ = functional.call(
            self.patch_features,
            functional.parameters(self.patch_features),
            functional.state(self.patch_features),
            patches,
        )
        rows = self.patch_projector(features)
        rows = tf.reshape(rows, [size, count, -1])
        keys = self.draw(draws.uniform, [size, count], "order")
        rows = tf.gather(rows, tf.argsort(keys), batch_dims=1)
        return self.jigsaw_projector(
            tf.reshape(rows, [size, -1]), training=True
        )

    def negative_rows(self):
        """Rows of the pool, drawn with replacement, equal on every replica.

        Returns:
            `[K]` int64.
        """
        count = self.hyperparameters.num_negatives
        draw = self.draw_for_all(draws.uniform, [count], "negatives")
        # In double precision: the product rounds to the size itself else.
        place = tf.cast(draw, tf.float64) * tf.cast(
            self.pool_size.value, tf.float64
        )
        return tf.gather(self.pool.value, tf.cast(place, tf.int64))

    def update_bank(self, index, entries, projections_of_images):
        """Moves the entries of the batch toward their projections.

        Args:
            index: `[U]` int64, their rows.
            entries: `[U, D]`, their values so far.
            projections_of_images: `[U, D]`.
        """
        momentum = self.hyperparameters.bank_momentum
        new = tf.stop_gradient(projections.normalized(projections_of_images))
        moved = momentum * entries + (1.0 - momentum) * new
        replicas.write_rows(self.bank, index, projections.normalized(moved))
