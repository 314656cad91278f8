"""RandAugment: a few operations per image, drawn with replacement.

Source: Cubuk et al., arXiv 1909.13719.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from tf_metassl.data import host_draws, image_ops, operations
from tf_metassl.data.policy import Policy

TONE_RULES = ("kept", "removed")


@dataclasses.dataclass(frozen=True)
class RandAugmentPolicy(Policy):
    """Draws operations, their magnitudes and whether they are applied.

    A draw is a dict of `op` `[N, L]` int32, an index into `ops`; `applied`
    `[N, L]` bool; `magnitude` `[N, L]` float32; `sign` `[N, L]` float32, 1 or
    -1, for geometric operations; `center_y` and `center_x` `[N, L + 1]` int32,
    for the cutout of each layer and the final one. L is `num_ops`.

    Attributes:
        ops: names of the operations to draw from, see `OPERATIONS`.
        num_ops: operations per image, N in the paper.
        magnitude: lowest and highest magnitude M; one whole number is drawn per
            image and operation, uniformly, both ends included. On a scale of
            10, but may exceed it. If both ends are equal, M is that number,
            which need not be whole.
        apply_probability: one probability per image is drawn uniformly from
            this range; each of its operations is applied with it.
        tones: `kept` if the magnitude is the strength of what is kept
            (posterize keeps 0.4 M bits, solarize starts at 25.6 M: weaker for
            larger M), `removed` if of what is lost (4 - 0.4 M bits,
            256 - 25.6 M). At least 1 bit is kept: 0 would be a black image.
        translate: pixels that `translate_x` and `translate_y` move at M = 10,
            in images whose shorter side is `image_size`.
        cutout: pixels of half the side of the operation `cutout` at M = 10, in
            such images.
        image_size: pixels of the images that the policy is published for. In
            smaller and larger ones both lengths are the same share of the
            shorter side; 10 pixels of 14 would leave little to see.
        fill_value: gray level of uncovered and cut out pixels.
        final_cutout: side of a last cutout that every image gets, as a fraction
            of the image's shorter side; 0 for none.
    """

    ops: tuple[str, ...]
    num_ops: int = 2
    magnitude: tuple[float, float] = (1, 9)
    apply_probability: tuple[float, float] = (0.5, 0.5)
    tones: str = "removed"
    translate: float = 10.0
    cutout: float = 10.0
    image_size: int = 32
    fill_value: int = 128
    final_cutout: float = 0.5

    def __post_init__(self):
        unknown = [op for op in self.ops if op not in OPERATIONS]
        if unknown or not self.ops or len(set(self.ops)) < len(self.ops):
            raise ValueError(
                "ops: expected different names out of "
                f"{', '.join(OPERATIONS)}; got {self.ops}."
            )
        if self.tones not in TONE_RULES:
            raise ValueError(
                f"tones: expected one of {', '.join(TONE_RULES)}, got "
                f"{self.tones!r}."
            )

    @property
    def mixes_colors(self):
        """True: `color` and `contrast` compute gray levels."""
        return True

    def with_magnitude(self, magnitude):
        """Returns the same policy with one fixed magnitude.

        Args:
            magnitude: number.
        """
        return dataclasses.replace(self, magnitude=(magnitude, magnitude))

    def level(self, op, magnitude):
        """Converts magnitudes to the unit in which an operation is applied.

        Radians for `rotate`, pixels for translations, half the side in pixels
        for `cutout`, the first inverted value for `solarize`, the number of
        bits kept for `posterize`, the factor for `color`, `contrast`,
        `brightness` and `sharpness`. No level is negative: the sign is another
        draw.

        Args:
            op: a name out of `OPERATIONS`.
            magnitude: number or float32 tensor of any shape.

        Returns:
            Tensor of the same shape; int32 for `posterize`, `solarize` and
            `cutout`, else float32.

        Raises:
            ValueError: if `op` is unknown.
        """
        if op not in OPERATIONS:
            raise ValueError(
                f"op: expected one of {', '.join(OPERATIONS)}, got {op!r}."
            )
        return OPERATIONS[op](tf.cast(magnitude, tf.float32), self)

    def _draw(self, seed, num_images, image_shape):
        seeds = host_draws.split(seed, 7)
        height, width, _ = image_shape
        shape = [num_images, self.num_ops]
        centers = [num_images, self.num_ops + 1]
        probability = host_draws.uniform(
            [num_images, 1], seeds[0], *self.apply_probability
        )
        applied = host_draws.uniform(shape, seeds[2]) < probability
        low, high = self.magnitude
        if low == high:
            magnitude = tf.fill(shape, float(low))
        else:
            magnitude = host_draws.integers(shape, seeds[3], low, high)
        sign = 2 * host_draws.integers(shape, seeds[4], 0, 1) - 1
        return {
            "op": host_draws.integers(shape, seeds[1], 0, len(self.ops) - 1),
            "applied": applied,
            "magnitude": tf.cast(magnitude, tf.float32),
            "sign": tf.cast(sign, tf.float32),
            "center_y": host_draws.integers(centers, seeds[5], 0, height - 1),
            "center_x": host_draws.integers(centers, seeds[6], 0, width - 1),
        }

    def scaled_to(self, image_size):
        """Returns the same policy with lengths for images of another size.

        Args:
            image_size: pixels of the shorter side.
        """
        return dataclasses.replace(
            self,
            translate=self.translate * image_size / self.image_size,
            cutout=self.cutout * image_size / self.image_size,
            image_size=image_size,
        )

    def _apply(self, images, draw):
        policy = self.scaled_to(min(images.shape[1:3]))
        apply_layer = policy._apply_layer
        if not tf.executing_eagerly():
            apply_layer = _traced_once(policy)
        return operations.apply_layers(
            images, draw, apply_layer, self.final_cutout, self.fill_value
        )

    def _apply_layer(self, images, draw):
        """Applies one operation per image; `draw` holds vectors `[N]`."""
        rows = operations.rows_of_operations(
            draw["op"], draw["applied"], self.ops
        )

        def level(op):
            return self.level(op, tf.gather(draw["magnitude"], rows[op]))

        def matrices(op):
            sign = tf.gather(draw["sign"], rows[op])
            return _MATRICES[op](sign * level(op), images.shape[1:3])

        def table(op, part):
            return _TABLES[op](part, level(op))

        def kernel(op, part):
            if op != "cutout":
                return _KERNELS[op](part, level(op))
            return image_ops.cutout(
                part,
                tf.gather(draw["center_y"], rows[op]),
                tf.gather(draw["center_x"], rows[op]),
                level(op),
                self.fill_value,
            )

        return operations.apply_operations(
            images,
            rows,
            matrices={op: matrices for op in rows if op in _MATRICES},
            tables={op: table for op in rows if op in _TABLES},
            kernels={op: kernel for op in rows if op in (*_KERNELS, "cutout")},
            fill_value=self.fill_value,
        )


@functools.lru_cache(maxsize=8)
def _traced_once(policy):
    """`policy._apply_layer` for all layers and views; a trace takes seconds."""
    return tf.function(policy._apply_layer, autograph=False)


# The published slopes are per 10; multiplying whole numbers before the only
# division makes the levels of whole magnitudes exact to the last bit.
def _rotate_level(magnitude, policy):
    return magnitude * 3.0 * (np.pi / 180.0)


def _shear_level(magnitude, policy):
    return magnitude * 3.0 / 100.0


def _translate_level(magnitude, policy):
    return magnitude * policy.translate / 10.0


def _enhance_level(magnitude, policy):
    return (magnitude * 18.0 + 10.0) / 100.0


def _posterize_level(magnitude, policy):
    bits = tf.cast(tf.floor(magnitude * 4.0 / 10.0), tf.int32)
    if policy.tones == "removed":
        bits = 4 - bits
    return tf.clip_by_value(bits, 1, 8)


def _solarize_level(magnitude, policy):
    level = tf.cast(tf.floor(magnitude * 256.0 / 10.0), tf.int32)
    return level if policy.tones == "kept" else 256 - level


def _cutout_level(magnitude, policy):
    return tf.cast(tf.floor(magnitude * policy.cutout / 10.0), tf.int32)


def _no_level(magnitude, policy):
    return magnitude


# Operation -> the level of a magnitude, see `RandAugmentPolicy.level`.
OPERATIONS = {
    "identity": _no_level,
    "autocontrast": _no_level,
    "equalize": _no_level,
    "invert": _no_level,
    "rotate": _rotate_level,
    "posterize": _posterize_level,
    "solarize": _solarize_level,
    "color": _enhance_level,
    "contrast": _enhance_level,
    "brightness": _enhance_level,
    "sharpness": _enhance_level,
    "shear_x": _shear_level,
    "shear_y": _shear_level,
    "translate_x": _translate_level,
    "translate_y": _translate_level,
    "cutout": _cutout_level,
}

# Operation -> matrices of signed levels and (height, width).
_MATRICES = {
    "rotate": lambda level, size: image_ops.rotation_matrix(level, *size),
    "shear_x": lambda level, size: image_ops.shear_x_matrix(level),
    "shear_y": lambda level, size: image_ops.shear_y_matrix(level),
    "translate_x": lambda level, size: image_ops.translation_matrix(
        level, tf.zeros_like(level)
    ),
    "translate_y": lambda level, size: image_ops.translation_matrix(
        tf.zeros_like(level), level
    ),
}

# Operation -> look-up tables of images and levels.
_TABLES = {
    "autocontrast": lambda images, level: image_ops.autocontrast_table(
        image_ops.histograms(images)
    ),
    "equalize": lambda images, level: image_ops.equalize_table(
        image_ops.histograms(images)
    ),
    "invert": lambda images, level: image_ops.invert_table(tf.size(level)),
    "posterize": lambda images, level: image_ops.posterize_table(level),
    "solarize": lambda images, level: image_ops.solarize_table(level),
    "contrast": lambda images, level: image_ops.contrast_table(
        level, image_ops.gray_mean(images)
    ),
    "brightness": lambda images, level: image_ops.brightness_table(level),
}

# Operation -> images of images and levels.
_KERNELS = {"color": image_ops.color, "sharpness": image_ops.sharpness}
