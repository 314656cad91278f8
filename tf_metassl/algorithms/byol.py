"""BYOL: Grill et al., arXiv 2006.07733."""

import math

import tensorflow as tf

from tf_metassl.algorithms.self_supervised import WithTarget
from tf_metassl.meta import functional
from tf_metassl.ops import projections


class Byol(WithTarget):
    """Predicts an averaged network's projection of another view.

    There are no negatives. What keeps the projections of all images from
    becoming the same is the predictor, which the target does not have. As in
    the authors' code the target takes batch statistics, of one batch of both
    views.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.predictor = self.head(
            "predictor", self.hyperparameters.projection_size
        )

    @property
    def heads(self):
        """See `SelfSupervised.heads`."""
        return [self.projector, self.predictor]

    def predict_targets(self, rows):
        """Predicts the target's projections from the student's, `[N, D]`."""
        return self.predictor(rows, training=True)

    def representation_losses(self, first, second, index):
        """See `SelfSupervised.representation_losses`."""
        del index
        rows = tf.concat(self.project(first, second), axis=0)
        of_first, of_second = tf.split(self.predict_targets(rows), 2)
        target_first, target_second = self._targets(first, second)
        return projections.cosine_distance(
            of_first, target_second
        ) + projections.cosine_distance(of_second, target_first)

    def decay_at(self, step):
        """1 - (1 - decay) (cos(pi step / steps) + 1) / 2."""
        hp = self.hyperparameters
        if not hp.target_decay_steps:
            return hp.target_decay
        share = tf.cast(step, tf.float32) / hp.target_decay_steps
        falling = 0.5 * (tf.cos(math.pi * tf.minimum(share, 1.0)) + 1.0)
        return 1.0 - (1.0 - hp.target_decay) * falling

    def _targets(self, *groups):
        """The target's projections of groups of images, as one batch."""
        outputs = tf.concat(groups, axis=0)
        for network, average in self.averaged:
            outputs, _ = functional.call_average(
                average, network, functional.state(network), outputs
            )
            if isinstance(outputs, list | tuple):
                outputs = outputs[0]
        return tf.split(outputs, len(groups))
