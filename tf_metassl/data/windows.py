"""Crops and windows, with random mirroring."""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_metassl.data import host_draws, image_ops
from tf_metassl.data.policy import Policy

# Windows that are drawn for each image; the first one that fits is taken.
_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class CropPolicy(Policy):
    """Random mirroring, and a random crop out of the padded image.

    A draw is a dict of `flip` `[N]` bool, `offset_y` and `offset_x` `[N]`
    int32.

    Attributes:
        flip: whether to mirror left to right with probability 1/2.
        padding: pixels added to each side, as a fraction of the image's shorter
            side, rounded; 0 for no crop.
        mode: `reflect` or `constant`.
        fill_value: gray level for the mode `constant`.
    """

    flip: bool = False
    padding: float = 0.0
    mode: str = "reflect"
    fill_value: int = 128

    def without_mirroring(self):
        """See `Policy.without_mirroring`."""
        return dataclasses.replace(self, flip=False)

    def _draw(self, seed, num_images, image_shape):
        seeds = host_draws.split(seed, 3)
        last = 2 * self._padding_pixels(image_shape)
        return {
            "flip": _draw_flip(seeds[0], num_images) & self.flip,
            "offset_y": host_draws.integers([num_images], seeds[1], 0, last),
            "offset_x": host_draws.integers([num_images], seeds[2], 0, last),
        }

    def _apply(self, images, draw):
        if self.flip:
            images = image_ops.flip_horizontal(images, draw["flip"])
        padding = self._padding_pixels(images.shape[1:])
        if not padding:
            return images
        return image_ops.pad_and_crop(
            images,
            draw["offset_y"],
            draw["offset_x"],
            padding,
            self.mode,
            self.fill_value,
        )

    def _padding_pixels(self, image_shape):
        return round(min(image_shape[:2]) * self.padding)


@dataclasses.dataclass(frozen=True)
class WindowPolicy(Policy):
    """A random window of a larger stored image, and random mirroring.

    Source of the resized window: Szegedy et al., arXiv 1409.4842, as it is
    commonly implemented: area and the logarithm of the aspect ratio are drawn
    uniformly, up to ten times until the window fits, else the whole image is
    taken.

    A draw is a dict of `flip` `[N]` bool and, in pixels, `top`, `left`,
    `height` and `width` `[N]` float32.

    Attributes:
        flip: whether to mirror left to right with probability 1/2.
        area: smallest and largest area of the window as a fraction of the
            stored image, bilinearly resized; None for windows of the output
            size, which are not resized.
        ratio: smallest and largest width / height of a window to be resized.
    """

    flip: bool = True
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def without_mirroring(self):
        """See `Policy.without_mirroring`."""
        return dataclasses.replace(self, flip=False)

    def draw(self, seed, num_images, image_shape, output_size=None):
        """Draws a flip and a window for each image, see `Policy.draw`."""
        seeds = host_draws.split(seed, 5)
        stored = tf.constant(image_shape[:2], tf.float32)
        if self.area is None:
            size = tf.constant(output_size or image_shape[:2], tf.float32)
            size = tf.tile([size], [num_images, 1])
        else:
            size = self._draw_sizes(seeds[:2], num_images, stored)
        room = stored - size
        place = tf.stack(
            [host_draws.uniform([num_images], s) for s in seeds[2:4]], axis=1
        )
        # Whole pixels, so that a window that is not resized is cut, not
        # blurred.
        corner = tf.minimum(tf.floor(place * (room + 1.0)), room)
        return {
            "flip": _draw_flip(seeds[4], num_images) & self.flip,
            "top": corner[:, 0],
            "left": corner[:, 1],
            "height": size[:, 0],
            "width": size[:, 1],
        }

    def apply(self, images, draw, output_size=None):
        """Cuts the windows out of the whole images, see `Policy.apply`."""
        images = tf.convert_to_tensor(images)
        output_size = output_size or images.shape[1:3]
        box = (draw[name] for name in ("top", "left", "height", "width"))
        images = image_ops.projective_transform(
            images,
            image_ops.window_matrix(*box, output_size),
            interpolation="bilinear",
            output_size=output_size,
        )
        return image_ops.flip_horizontal(images, draw["flip"])

    def _draw_sizes(self, seeds, num_images, stored):
        """Heights and widths `[N, 2]` of windows of random area and ratio."""
        shape = [num_images, _ATTEMPTS]
        area = host_draws.uniform(shape, seeds[0], *self.area)
        area *= tf.reduce_prod(stored)
        ratio = tf.exp(host_draws.uniform(shape, seeds[1], *np.log(self.ratio)))
        sizes = tf.round(
            tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)], axis=-1)
        )  # [N, attempts, 2]
        fits = tf.reduce_all((sizes <= stored) & (sizes >= 1.0), axis=-1)
        first = tf.argmax(fits, axis=1, output_type=tf.int32)
        return tf.where(
            tf.reduce_any(fits, axis=1)[:, None],
            tf.gather(sizes, first, batch_dims=1),
            stored,
        )


def _draw_flip(seed, num_images):
    """`[N]` bool, true with probability 1/2."""
    return host_draws.integers([num_images], seed, 0, 1) == 1
