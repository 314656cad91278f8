"""CTAugment: operations whose magnitudes are learned during training.

Source: Berthelot et al., arXiv 1911.09785; the operations and their ranges are
those of the authors' code for FixMatch, with Pillow's rounding. Unlike there,
translations are fractions of the side, not of a pixel, and uncovered pixels
have the same gray everywhere.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_metassl.data import host_draws, image_ops, operations
from tf_metassl.data.policy import Policy
from tf_metassl.ops import augmentation_rates

DEPTH = 2
_FILL = 127
_NAMES = tuple(augmentation_rates.BINS)


@dataclasses.dataclass(frozen=True, eq=False)
class CTAugmentPolicy(Policy):
    """Draws `DEPTH` operations per image and a level for each parameter.

    A draw is a dict of `op` `[N, DEPTH]` int32; `bin` `[N, DEPTH,
    NUM_PARAMETERS]` int32; `level` of the same shape, float32 in 0 ... 1 inside
    the bin; `center_y` and `center_x` `[N, DEPTH + 1]` int32 of cutouts. N must
    be static.

    Attributes:
        probabilities: of the bins, see `augmentation_rates`; None: all bins
            are equally probable.
        final_cutout: side of the square that is cut out of every image in the
            end, as a fraction of the shorter side; 0 for none.
    """

    probabilities: np.ndarray | tf.Tensor | None = None
    final_cutout: float = 0.5

    @property
    def mixes_colors(self):
        """True: `color` and `contrast` compute gray levels."""
        return True

    def _draw(self, seed, num_images, image_shape):
        seeds = host_draws.split(seed, 5)
        height, width, _ = image_shape
        op = host_draws.integers(
            [num_images, DEPTH], seeds[0], 0, len(_NAMES) - 1
        )
        counts = tf.gather(augmentation_rates.bin_counts(), op)
        probabilities = self.probabilities
        if probabilities is None:
            probabilities = augmentation_rates.probabilities(
                augmentation_rates.initial()
            )
        # The bin in which the cumulated probability passes a uniform draw.
        edges = tf.cumsum(tf.gather(probabilities, op), axis=-1)
        passed = host_draws.uniform(counts.shape, seeds[1])[..., None] >= edges
        chosen = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
        chosen = tf.minimum(chosen, tf.maximum(counts - 1, 0))
        inside = host_draws.uniform(counts.shape, seeds[2])
        level = (tf.cast(chosen, tf.float32) + inside) / tf.cast(
            tf.maximum(counts, 1), tf.float32
        )
        centers = [num_images, DEPTH + 1]
        return {
            "op": op,
            "bin": chosen,
            "level": level,
            "center_y": host_draws.integers(centers, seeds[3], 0, height - 1),
            "center_x": host_draws.integers(centers, seeds[4], 0, width - 1),
        }

    def _apply(self, images, draw):
        apply_layer = _apply_layer
        if not tf.executing_eagerly():
            apply_layer = _traced_once
        return operations.apply_layers(
            images, draw, apply_layer, self.final_cutout, _FILL
        )


def _factor(level):
    return 0.1 + 1.9 * level


def _signed(level, largest):
    return (2.0 * level - 1.0) * largest


def _floor(values):
    return tf.cast(tf.floor(values), tf.int32)


def _blended(change):
    """Makes an operation that is blended into the image by its level."""

    def kernel(images, level):
        return image_ops.blend(images, change(images), level, "down")

    return kernel


def _looked_up(table):
    return lambda images: image_ops.apply_lookup_table(images, table(images))


def _degrees(level):
    return tf.round(_signed(level, 45.0)) * (np.pi / 180.0)


# Operation -> matrices of levels [n] and (height, width).
_MATRICES = {
    "rotate": lambda level, size: image_ops.rotation_matrix(
        _degrees(level), *size
    ),
    "shear_x": lambda level, size: image_ops.shear_x_matrix(
        _signed(level, 0.3)
    ),
    "shear_y": lambda level, size: image_ops.shear_y_matrix(
        _signed(level, 0.3)
    ),
    "translate_x": lambda level, size: image_ops.translation_matrix(
        _signed(level, 0.3 * size[1]), tf.zeros_like(level)
    ),
    "translate_y": lambda level, size: image_ops.translation_matrix(
        tf.zeros_like(level), _signed(level, 0.3 * size[0])
    ),
}

# Operation -> look-up tables of images and levels [n].
_TABLES = {
    "brightness": lambda images, level: image_ops.brightness_table(
        _factor(level)
    ),
    "contrast": lambda images, level: image_ops.contrast_table(
        _factor(level), image_ops.gray_mean(images)
    ),
    "posterize": lambda images, level: image_ops.posterize_table(
        1 + _floor(level * 7.999)
    ),
    "solarize": lambda images, level: image_ops.solarize_table(
        _floor(level * 255.999)
    ),
}

# Operation -> images of images and levels [n].
_KERNELS = {
    "autocontrast": _blended(
        _looked_up(
            lambda images: image_ops.autocontrast_table(
                image_ops.histograms(images)
            )
        )
    ),
    "equalize": _blended(
        _looked_up(
            lambda images: image_ops.equalize_table(
                image_ops.histograms(images)
            )
        )
    ),
    "invert": _blended(lambda images: 255 - images),
    "blur": _blended(image_ops.blurred),
    "smooth": _blended(image_ops.smoothed),
    "color": lambda images, level: image_ops.color(images, _factor(level)),
    "sharpness": lambda images, level: image_ops.sharpness(
        images, _factor(level)
    ),
}


def _apply_layer(images, draw):
    """Applies one operation per image; `draw` holds one layer of a draw."""
    everywhere = tf.ones_like(draw["op"], tf.bool)
    rows = operations.rows_of_operations(draw["op"], everywhere, _NAMES)

    def level(op, parameter=0):
        return tf.gather(draw["level"][:, parameter], rows[op])

    def matrices(op):
        return _MATRICES[op](level(op), images.shape[1:3])

    def table(op, part):
        return _TABLES[op](part, level(op))

    def kernel(op, part):
        if op == "cutout":
            side = 1 + _floor(level(op) * min(images.shape[1:3]) * 0.499)
            return image_ops.cutout(
                part,
                tf.gather(draw["center_y"], rows[op]),
                tf.gather(draw["center_x"], rows[op]),
                side // 2,
                _FILL,
            )
        if op == "rescale":
            return _rescaled(part, level(op), level(op, 1))
        return _KERNELS[op](part, level(op))

    return operations.apply_operations(
        images,
        rows,
        matrices={op: matrices for op in _MATRICES},
        tables={op: table for op in _TABLES},
        kernels={op: kernel for op in (*_KERNELS, "cutout", "rescale")},
        fill_value=_FILL,
    )


# For all layers and views; a trace takes seconds.
_traced_once = tf.function(_apply_layer, autograph=False)


def _rescaled(images, level, method_level):
    """Enlarges the center of each image, with the filter drawn for it."""
    method = _floor(method_level * 5.999)
    for number, name in enumerate(image_ops.RESAMPLING):
        chosen = tf.where(method == number)
        changed = image_ops.enlarge_center(
            tf.gather(images, chosen[:, 0]),
            0.25 * tf.gather(level, chosen[:, 0]),
            name,
        )
        images = tf.tensor_scatter_nd_update(images, chosen, changed)
    return images
