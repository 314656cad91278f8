"""Views of which the features have been computed before training."""

import dataclasses

import tensorflow as tf

from tf_metassl.data import host_draws
from tf_metassl.data.policy import Policy


@dataclasses.dataclass(frozen=True)
class CachedViews(Policy):
    """Draws one of several views that are stored with each image.

    Stored images are `[R, 1, F]`: the features `[F]` of R views. What is used
    of them is `[1, 1, F]`.

    Attributes:
        first: the first view that may be drawn.
        count: how many may be drawn.
    """

    first: int
    count: int

    @property
    def replaces_weak(self):
        """True: a strong view is stored as a whole."""
        return True

    def draw(self, seed, num_images, image_shape, output_size=None):
        """See `Policy.draw`: `view` `[N]` int32, the row of a stored image."""
        return {
            "view": host_draws.integers(
                [num_images], seed, self.first, self.first + self.count - 1
            )
        }

    def apply(self, images, draw, output_size=None):
        """See `Policy.apply`: `[N, R, 1, F]` -> `[N, 1, 1, F]` float32."""
        views = tf.gather(images, draw["view"], batch_dims=1)
        return views[:, tf.newaxis]
