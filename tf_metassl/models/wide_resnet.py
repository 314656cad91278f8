"""Wide residual networks: Zagoruyko and Komodakis, arXiv 1605.07146."""

import typing

import keras
from keras import layers

from tf_metassl.models.layers import (
    BatchNormalization,
    classifier,
    fan_out_normal,
    fan_out_uniform,
)


class Variant(typing.NamedTuple):
    """Choices in which implementations of the literature differ.

    Attributes:
        wide_stem: 16 K filters in the stem, rather than 16.
        slope: of the leaky ReLU.
        momentum: of batch norm; its epsilon is 1e-3 everywhere.
        bias: whether convolutions have one.
        raw_shortcuts: all shortcuts but the very first block's take the
            block's input itself. Otherwise every 1x1 shortcut takes the
            normalized and activated input, every other one the input itself.
        dense_initializer: makes that of the last layer's kernel; one that is
            used twice would give the same values twice.
    """

    wide_stem: bool = False
    slope: float = 0.1
    momentum: float = 0.999
    bias: bool = False
    raw_shortcuts: bool = False
    dense_initializer: typing.Callable = keras.initializers.GlorotUniform


VARIANTS = {
    "plain": Variant(),
    "mpl": Variant(
        wide_stem=True,
        slope=0.2,
        momentum=0.99,
        dense_initializer=fan_out_uniform,
    ),
    "fixmatch": Variant(
        bias=True,
        raw_shortcuts=True,
        dense_initializer=keras.initializers.GlorotNormal,
    ),
}


def wide_resnet(
    images,
    num_classes,
    *,
    depth,
    width,
    variant,
    dropout,
    synchronized,
):
    """WRN-depth-width, as the semi-supervised literature compares on.

    WRN-28-2 for 10 classes has 1,467,610 parameters in the plain variant,
    1,472,170 in that of Meta Pseudo Labels (arXiv 2003.10580) and 1,469,642 in
    that of MixMatch and FixMatch (arXiv 1905.02249, 2001.07685).

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        depth: 6 n + 4 for three scales of 16, 32 and 64 filters; 8 n + 5 for a
            fourth of 128, such as the 37 that FixMatch has for STL-10.
        width: K, the factor on these filters.
        variant: a key of `VARIANTS`.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.

    Raises:
        ValueError: if depth or width are impossible.
    """
    scales = 4 if depth % 2 else 3
    # 2 n convolutions and a shortcut in each scale, and the stem.
    blocks, rest = divmod(depth - scales - 1, 2 * scales)
    if rest or blocks < 1 or width < 1:
        raise ValueError(
            f"--model=wrn_{depth}_{width}: the depth of a wide residual "
            "network is 6 n + 4 (10, 16, 22, 28, ...) or, with four scales, "
            "8 n + 5 (13, 21, 29, 37, ...), its width at least 1."
        )
    settings = VARIANTS[variant]

    def normalized(x):
        x = BatchNormalization(
            momentum=settings.momentum, epsilon=1e-3, synchronized=synchronized
        )(x)
        return layers.LeakyReLU(settings.slope)(x)

    def convolution(x, filters, size, stride=1):
        return layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=settings.bias,
            kernel_initializer=fan_out_normal(),
        )(x)

    def block(x, filters, stride, first):
        activated = normalized(x)
        shortcut = x
        if settings.raw_shortcuts and first:
            shortcut = activated
        if stride != 1 or x.shape[-1] != filters:
            source = shortcut if settings.raw_shortcuts else activated
            shortcut = convolution(source, filters, 1, stride)
        y = convolution(activated, filters, 3, stride)
        y = convolution(normalized(y), filters, 3)
        return layers.Add()([shortcut, y])

    x = convolution(images, 16 * width if settings.wide_stem else 16, 3)
    for scale in range(scales):
        for index in range(blocks):
            stride = 2 if scale and not index else 1
            first = not scale and not index
            x = block(x, 16 * 2**scale * width, stride, first)
    return classifier(
        normalized(x),
        num_classes,
        dropout,
        kernel_initializer=settings.dense_initializer(),
    )
