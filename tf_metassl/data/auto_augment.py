"""AutoAugment: pairs of operations that were found by a search.

Source: Cubuk, Zoph, Mane, Vasudevan, Le, arXiv 1805.09501; the sub-policies are
those of the paper's appendix, tables 7 to 9.
"""

import dataclasses

import tensorflow as tf

from tf_metassl.data import host_draws
from tf_metassl.data.rand_augment import RandAugmentPolicy

# Of one operation: its name, its probability and its magnitude; 0 where it has
# none.
Step = tuple[str, float, int]


@dataclasses.dataclass(frozen=True)
class AutoAugmentPolicy(RandAugmentPolicy):
    """Draws one sub-policy per image, and which of its operations are applied.

    The operations, their levels and the draw are those of `RandAugmentPolicy`;
    what is drawn uniformly there follows the sub-policy here.

    Attributes:
        sub_policies: of two operations each.
    """

    sub_policies: tuple[tuple[Step, Step], ...] = ()

    def with_magnitude(self, magnitude):
        """Refused: each sub-policy has its own magnitudes.

        Args:
            magnitude: number.

        Raises:
            ValueError: always.
        """
        return super(RandAugmentPolicy, self).with_magnitude(magnitude)

    def _draw(self, seed, num_images, image_shape):
        seeds = host_draws.split(seed, 2)
        draw = super()._draw(seeds[0], num_images, image_shape)
        chosen = host_draws.integers(
            [num_images], seeds[1], 0, len(self.sub_policies) - 1
        )
        names, probabilities, magnitudes = (
            [[step[part] for step in pair] for pair in self.sub_policies]
            for part in range(3)
        )
        op = [[self.ops.index(name) for name in pair] for pair in names]
        uniform = host_draws.uniform(
            [num_images, self.num_ops], host_draws.fold_in(seeds[1], "applied")
        )
        return {
            **draw,
            "op": tf.gather(tf.constant(op, tf.int32), chosen),
            "applied": uniform < tf.gather(tf.constant(probabilities), chosen),
            "magnitude": tf.gather(tf.constant(magnitudes, tf.float32), chosen),
        }


def _policy(text, **settings):
    """A policy of lines `operation probability magnitude` twice each."""
    pairs = []
    for line in text.strip().splitlines():
        a, p, m, b, q, n = line.split()
        pairs.append(((a, float(p), int(m)), (b, float(q), int(n))))
    ops = tuple(dict.fromkeys(name for pair in pairs for name, *_ in pair))
    return AutoAugmentPolicy(ops=ops, sub_policies=tuple(pairs), **settings)


# The levels are those of the authors' code for CIFAR-10, which are those of
# RandAugment's authors, too.
CIFAR10 = _policy(
    """
    invert 0.1 0 contrast 0.2 6
    rotate 0.7 2 translate_x 0.3 9
    sharpness 0.8 1 sharpness 0.9 3
    shear_y 0.5 8 translate_y 0.7 9
    autocontrast 0.5 0 equalize 0.9 0
    shear_y 0.2 7 posterize 0.3 7
    color 0.4 3 brightness 0.6 7
    sharpness 0.3 9 brightness 0.7 9
    equalize 0.6 0 equalize 0.5 0
    contrast 0.6 7 sharpness 0.6 5
    color 0.7 7 translate_x 0.5 8
    equalize 0.3 0 autocontrast 0.4 0
    translate_y 0.4 3 sharpness 0.2 6
    brightness 0.9 6 color 0.2 8
    solarize 0.5 2 invert 0.0 0
    equalize 0.2 0 autocontrast 0.6 0
    equalize 0.2 0 equalize 0.6 0
    color 0.9 9 equalize 0.6 0
    autocontrast 0.8 0 solarize 0.2 8
    brightness 0.1 3 color 0.7 0
    solarize 0.4 5 autocontrast 0.9 0
    translate_y 0.9 9 translate_y 0.7 9
    autocontrast 0.9 0 solarize 0.8 3
    equalize 0.8 0 invert 0.1 0
    translate_y 0.7 9 autocontrast 0.9 0
    """
)

# With the paper's cutout of 20 pixels of 32.
SVHN = _policy(
    """
    shear_x 0.9 4 invert 0.2 0
    shear_y 0.9 8 invert 0.7 0
    equalize 0.6 0 solarize 0.6 6
    invert 0.9 0 equalize 0.6 0
    equalize 0.6 0 rotate 0.9 3
    shear_x 0.9 4 autocontrast 0.8 0
    shear_y 0.9 8 invert 0.4 0
    shear_y 0.9 5 solarize 0.2 6
    invert 0.9 0 autocontrast 0.8 0
    equalize 0.6 0 rotate 0.9 3
    shear_x 0.9 4 solarize 0.3 3
    shear_y 0.8 8 invert 0.7 0
    equalize 0.9 0 translate_y 0.6 6
    invert 0.9 0 equalize 0.6 0
    contrast 0.3 3 rotate 0.8 4
    invert 0.8 0 translate_y 0.0 2
    shear_y 0.7 6 solarize 0.4 8
    invert 0.6 0 rotate 0.8 4
    shear_y 0.3 7 translate_x 0.9 3
    shear_x 0.1 6 invert 0.6 0
    solarize 0.7 2 translate_y 0.6 7
    shear_y 0.8 4 invert 0.8 0
    shear_x 0.7 9 translate_y 0.8 3
    shear_y 0.8 5 autocontrast 0.7 0
    shear_x 0.7 2 invert 0.1 0
    """,
    final_cutout=0.625,
)

# The levels are those of the authors' code for ImageNet, in which a larger
# magnitude posterizes and solarizes less.
IMAGENET = _policy(
    """
    posterize 0.4 8 rotate 0.6 9
    solarize 0.6 5 autocontrast 0.6 0
    equalize 0.8 0 equalize 0.6 0
    posterize 0.6 7 posterize 0.6 6
    equalize 0.4 0 solarize 0.2 4
    equalize 0.4 0 rotate 0.8 8
    solarize 0.6 3 equalize 0.6 0
    posterize 0.8 5 equalize 1.0 0
    rotate 0.2 3 solarize 0.6 8
    equalize 0.6 0 posterize 0.4 6
    rotate 0.8 8 color 0.4 0
    rotate 0.4 9 equalize 0.6 0
    equalize 0.0 0 equalize 0.8 0
    invert 0.6 0 equalize 1.0 0
    color 0.6 4 contrast 1.0 8
    rotate 0.8 8 color 1.0 2
    color 0.8 8 solarize 0.8 7
    sharpness 0.4 7 invert 0.6 0
    shear_x 0.6 5 equalize 1.0 0
    color 0.4 0 equalize 0.6 0
    equalize 0.4 0 solarize 0.2 4
    solarize 0.6 5 autocontrast 0.6 0
    invert 0.6 0 equalize 1.0 0
    color 0.6 4 contrast 1.0 8
    equalize 0.8 0 equalize 0.6 0
    """,
    tones="kept",
    image_size=224,
    final_cutout=0.0,
)
