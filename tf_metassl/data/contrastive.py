"""The strong views that self-supervised methods compare."""

import dataclasses

import tensorflow as tf

from tf_metassl.data import host_draws, image_ops, operations
from tf_metassl.data.policy import Policy
from tf_metassl.data.windows import WindowPolicy

_JITTER = ("brightness", "contrast", "saturation", "hue")
# The size of images that the paper's blur is given for, its sigma in pixels
# there, and the side of its kernel as a fraction of the image's.
_BLUR_SIZE, _SIGMA, _KERNEL = 224, (0.1, 2.0), 0.1


@dataclasses.dataclass(frozen=True)
class ContrastivePolicy(Policy):
    """SimCLR's views: resized crop, flip, color jitter, gray, blur.

    Source: Chen et al., arXiv 2002.05709, appendix A. The four operations of
    color jitter are applied in an order that is drawn for each image; those of
    saturation and hue change no gray image.

    The crop is bilinear. Where a window is larger than the view it is not
    smoothed before, as in all crops of this package.

    A draw is a dict of tensors with leading dimension N: those of
    `WindowPolicy`; `jitter`, `gray` and `blur` `[N]` bool, whether they are
    applied; `order` `[N, 4]` int32; float32 `brightness`, `contrast`,
    `saturation` (factors), `hue` (part of a turn) and `sigma` (pixels).

    Attributes:
        flip: whether to mirror left to right with probability 1/2.
        area: smallest and largest area of the window as a fraction of the
            stored image.
        strength: s of the paper: brightness, contrast and saturation change by
            factors in 1 - 0.8 s ... 1 + 0.8 s, the hue by up to 0.2 s.
        jitter_probability: of color jitter.
        gray_probability: of a gray image.
        blur_probability: of a Gaussian blur, whose sigma is 0.1 to 2 pixels of
            224, and whose kernel has a tenth of the side of the image.
    """

    flip: bool = True
    area: tuple[float, float] = (0.08, 1.0)
    strength: float = 1.0
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    blur_probability: float = 0.0

    @property
    def replaces_weak(self):
        """True: the window is cut out of the stored image itself."""
        return True

    @property
    def mixes_colors(self):
        """True: contrast and gray need luminances."""
        return True

    def without_mirroring(self):
        """See `Policy.without_mirroring`."""
        return dataclasses.replace(self, flip=False)

    @property
    def _window(self):
        return WindowPolicy(flip=self.flip, area=self.area)

    def draw(self, seed, num_images, image_shape, output_size=None):
        """Draws a window and all tones for each image, see `Policy.draw`."""
        # The order decides which seed each value gets.
        window, order, *seeds = host_draws.split(seed, 10)
        draw = self._window.draw(window, num_images, image_shape, output_size)
        shape = [num_images]
        change = 0.8 * self.strength
        turn = 0.2 * self.strength
        scale = min(output_size or image_shape[:2]) / _BLUR_SIZE
        factors = (max(0.0, 1.0 - change), 1.0 + change)
        ranges = {
            "brightness": factors,
            "contrast": factors,
            "saturation": factors,
            "hue": (-turn, turn),
            "sigma": tuple(scale * sigma for sigma in _SIGMA),
        }
        chances = {
            "jitter": self.jitter_probability,
            "gray": self.gray_probability,
            "blur": self.blur_probability,
        }
        for one_seed, (name, (low, high)) in zip(
            seeds[:5], ranges.items(), strict=True
        ):
            draw[name] = host_draws.uniform(shape, one_seed, low, high)
        for one_seed, (name, chance) in zip(
            seeds[5:], chances.items(), strict=True
        ):
            draw[name] = host_draws.uniform(shape, one_seed) < chance
        keys = host_draws.uniform([num_images, len(_JITTER)], order)
        draw["order"] = tf.argsort(keys)
        return draw

    def apply(self, images, draw, output_size=None):
        """Cuts the windows out of the whole images, see `Policy.apply`."""
        images = self._window.apply(images, draw, output_size)
        for place in range(len(_JITTER)):
            images = _jittered(images, draw, draw["order"][:, place])
        images = _where(images, draw["gray"], image_ops.gray_copy)
        radius = int(_KERNEL * min(images.shape[1:3])) // 2
        if not self.blur_probability or not radius:
            return images
        return _where(
            images,
            draw["blur"],
            lambda part, sigma: image_ops.gaussian_blur(part, sigma, radius),
            draw["sigma"],
        )


def _jittered(images, draw, op):
    """Applies one of the operations of color jitter to each image."""
    rows = operations.rows_of_operations(op, draw["jitter"], _JITTER)

    def factor(name):
        return tf.gather(draw[name], rows[name])

    def contrast(name, part):
        return image_ops.contrast_table(factor(name), image_ops.gray_mean(part))

    return operations.apply_operations(
        images,
        rows,
        matrices={},
        tables={
            "brightness": lambda name, _: image_ops.brightness_table(
                factor(name)
            ),
            "contrast": contrast,
        },
        kernels={
            "saturation": lambda name, part: image_ops.color(
                part, factor(name)
            ),
            "hue": lambda name, part: image_ops.hue(part, factor(name)),
        },
        fill_value=0,
    )


def _where(images, applied, function, *parameters):
    """Applies a function of images and vectors to the chosen images."""
    rows = tf.where(applied)
    parts = (tf.gather(v, rows[:, 0]) for v in (images, *parameters))
    return tf.tensor_scatter_nd_update(images, rows, function(*parts))
