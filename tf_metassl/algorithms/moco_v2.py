"""MoCo v2: Chen, Fan, Girshick, He, arXiv 2003.04297."""

import tensorflow as tf

from tf_metassl.algorithms.self_supervised import WithTarget
from tf_metassl.ops import projections, replicas


class MoCoV2(WithTarget):
    """Tells the key of an image from a queue of keys of earlier images.

    The target, an averaged network, makes the keys. The authors shuffle the
    images over GPUs before they compute keys: with batch statistics, a key and
    its query would else carry a mark of their common batch, by which they can
    be told from the queue. Here the target uses the averaged statistics of its
    batch norm instead, so that a key depends on its own image alone, with one
    device as with many (Cai et al., arXiv 2101.08482).
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        hp = self.hyperparameters
        shape = (hp.queue_size, hp.projection_size)
        # The oldest key comes first.
        self.queue = self.state_variable("queue", shape)
        self.queue.assign(projections.random_directions(shape, self._seed))

    def representation_losses(self, first, second, index):
        """See `SelfSupervised.representation_losses`."""
        del index
        (queries,) = self.project(first)
        return self.instance_losses(queries, self.keys(second))

    def instance_losses(self, queries, keys):
        """Compares queries with their keys and the queue; enqueues the keys.

        Args:
            queries: `[U, D]`, the student's projections.
            keys: `[U, D]`, of length 1.

        Returns:
            `[U]`.
        """
        losses = projections.info_nce(
            queries,
            keys,
            tf.convert_to_tensor(self.queue.value),
            self.hyperparameters.contrast_temperature,
        )
        replicas.enqueue(self.queue, keys)
        return losses

    def keys(self, images):
        """The target's projections `[U, D]`, of length 1, without gradient."""
        features, _ = self.target(images, training=False)
        keys = self.target_projector(features, training=False)
        return tf.stop_gradient(projections.normalized(keys))
