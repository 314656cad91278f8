"""Noise, for points rather than pictures."""

import dataclasses

import tensorflow as tf

from tf_metassl.data import host_draws
from tf_metassl.data.policy import Policy


@dataclasses.dataclass(frozen=True)
class JitterPolicy(Policy):
    """Gaussian noise on every value, rounded and clipped.

    A draw is a dict of `noise` `[N, H, W, C]` float32.

    Attributes:
        sigma: standard deviation on a scale of 0...255.
    """

    sigma: float

    def _draw(self, seed, num_images, image_shape):
        (seed,) = host_draws.split(seed, 1)
        shape = [num_images, *image_shape]
        return {"noise": host_draws.normal(shape, seed, self.sigma)}

    def _apply(self, images, draw):
        moved = tf.round(tf.cast(images, tf.float32) + draw["noise"])
        return tf.cast(tf.clip_by_value(moved, 0.0, 255.0), tf.uint8)
