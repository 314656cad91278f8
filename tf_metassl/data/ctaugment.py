"""CTAugment: operations whose magnitudes are learned while training.

Berthelot et al., arXiv 1911.09785; the operations and their ranges are those of
the authors' code for FixMatch, with Pillow's rounding. Other than there,
translations are fractions of the side, not of a pixel, and images are uncovered
with the same gray everywhere.

`draw_ctaugment` makes all random choices, `apply_ctaugment` carries them out.
"""

import numpy as np
import tensorflow as tf

from tf_metassl.data import image_ops, policies
from tf_metassl.ops import augmentation_rates

DEPTH = 2
_FILL = 127
_NAMES = tuple(augmentation_rates.BINS)


@tf.autograph.experimental.do_not_convert
def draw_ctaugment(seed, num_images, image_shape, probabilities=None):
    """Draws `DEPTH` operations per image and a level for each parameter.

    Args:
        seed: `[2]` int32.
        num_images: N, static.
        image_shape: (height, width, channels), ints.
        probabilities: of the bins, see `augmentation_rates`; None draws
            all bins alike, as for a probe.

    Returns:
        Dict of `op` `[N, DEPTH]` int32, `bin` `[N, DEPTH, NUM_PARAMETERS]`
        int32, `level` of the same shape, float32 in 0 ... 1 inside the bin, and
        `center_y` and `center_x` `[N, DEPTH + 1]` int32 of cutouts.
    """
    seeds = tf.unstack(tf.random.split(tf.convert_to_tensor(seed), 5))
    height, width, _ = image_shape
    shape = [num_images, DEPTH]
    uniform = tf.random.stateless_uniform
    op = uniform(shape, seeds[0], 0, len(_NAMES), tf.int32)
    counts = tf.gather(augmentation_rates.bin_counts(), op)
    if probabilities is None:
        probabilities = augmentation_rates.probabilities(
            augmentation_rates.initial()
        )
    # The bin in which the cumulated probability passes a uniform draw.
    edges = tf.cumsum(tf.gather(probabilities, op), axis=-1)
    passed = uniform(counts.shape, seeds[1])[..., None] >= edges
    chosen = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)
    chosen = tf.minimum(chosen, tf.maximum(counts - 1, 0))
    inside = uniform(counts.shape, seeds[2])
    level = (tf.cast(chosen, tf.float32) + inside) / tf.cast(
        tf.maximum(counts, 1), tf.float32
    )
    centers = [num_images, DEPTH + 1]
    return {
        "op": op,
        "bin": chosen,
        "level": level,
        "center_y": uniform(centers, seeds[3], 0, height, tf.int32),
        "center_x": uniform(centers, seeds[4], 0, width, tf.int32),
    }


@tf.autograph.experimental.do_not_convert
def apply_ctaugment(images, draw, *, cutout_fraction=0.5):
    """Carries out what `draw_ctaugment` has drawn.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 or 3.
        draw: dict of tensors with leading dimension N.
        cutout_fraction: side of the square that is cut out of every image in
            the end, as a fraction of the shorter side; 0 for none.

    Returns:
        `[N, H, W, C]` uint8.
    """
    images = tf.convert_to_tensor(images)
    for layer in range(DEPTH):
        column = {name: values[:, layer] for name, values in draw.items()}
        images = _apply_layer(images, column)
    if not cutout_fraction:
        return images
    half = round(min(images.shape[1:3]) * cutout_fraction / 2)
    center_y, center_x = draw["center_y"][:, -1], draw["center_x"][:, -1]
    half_width = tf.fill(tf.shape(center_y), half)
    return image_ops.cutout(images, center_y, center_x, half_width, _FILL)


def _factor(level):
    return 0.1 + 1.9 * level


def _signed(level, largest):
    return (2.0 * level - 1.0) * largest


def _floor(values):
    return tf.cast(tf.floor(values), tf.int32)


def _blended(change):
    """An operation that is mixed into the image by its level."""

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
    """One operation per image; `draw` holds one layer of a draw."""
    everywhere = tf.ones_like(draw["op"], tf.bool)
    rows = policies.rows_of_operations(draw["op"], everywhere, _NAMES)

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

    return policies.apply_operations(
        images,
        rows,
        matrices={op: matrices for op in _MATRICES},
        tables={op: table for op in _TABLES},
        kernels={op: kernel for op in (*_KERNELS, "cutout", "rescale")},
        fill_value=_FILL,
    )


def _rescaled(images, level, method_level):
    """Enlarges the middle of each image, with a filter of its own."""
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
