"""Augmentation by a function of the user."""

import dataclasses
import typing

import tensorflow as tf

from tf_metassl.data import host_draws
from tf_metassl.data.policy import Policy


@dataclasses.dataclass(frozen=True)
class FunctionPolicy(Policy):
    """Applies a function to one image after the other.

    A draw is a dict of `seed` `[N, 2]` int32, one for each image, so that what
    becomes of an image depends on the run's seed, the step and its place in the
    batch, on any number of replicas.

    Attributes:
        function: of an image `[H, W, C]` uint8 and a seed `[2]` int32; returns
            an image of the same shape with values in 0...255. It is traced by
            TensorFlow, and has to draw from the seed alone, as
            `tf.image.stateless_random_flip_left_right` does.
    """

    function: typing.Callable

    def _draw(self, seed, num_images, image_shape):
        (seed,) = host_draws.split(seed, 1)
        return {
            "seed": host_draws.integers([num_images, 2], seed, 0, 2**31 - 2)
        }

    def _apply(self, images, draw):
        shape = images.shape[1:]

        def changed(pair):
            image = tf.convert_to_tensor(self.function(*pair))
            if image.shape != shape:
                raise ValueError(
                    "A function for augmentation has to keep the shape "
                    f"{shape} of an image; it returned {image.shape}."
                )
            if image.dtype.is_floating:
                image = tf.round(image)
            return tf.saturate_cast(image, tf.uint8)

        return tf.map_fn(
            changed,
            (images, draw["seed"]),
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
