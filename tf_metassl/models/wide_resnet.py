"""Wide residual networks: Zagoruyko and Komodakis, arXiv 1605.07146."""

import math

import keras
from keras import layers

from tf_metassl.models.layers import classifier, image_input


def wide_resnet(
    image_shape,
    num_classes,
    *,
    depth,
    width,
    dropout=0.0,
    synchronized=False,
    network_name="wide_resnet",
):
    """WRN-depth-width, as the semi-supervised literature compares on.

    A stem of 16 filters, convolutions without bias, leaky ReLU 0.1, batch norm
    0.999 / 1e-3, a 1x1 shortcut wherever the width or the resolution changes,
    taken from the activated input. WRN-28-2 for 10 classes has 1,467,610
    parameters.

    Args:
        image_shape: height, width, channels.
        num_classes: C.
        depth: 6 n + 4 layers.
        width: factor on 16, 32 and 64 filters.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.
        network_name: name of the Keras model.

    Returns:
        A built Keras model, `[N, H, W, C]` -> logits `[N, C]`.

    Raises:
        ValueError: if the depth is not 6 n + 4.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(
            f"A wide residual network has depth 6 n + 4 (10, 16, 22, 28, "
            f"...), got {depth}: change --model."
        )

    def normalised(x):
        x = layers.BatchNormalization(
            momentum=0.999, epsilon=1e-3, synchronized=synchronized
        )(x)
        return layers.LeakyReLU(0.1)(x)

    def convolution(x, filters, size, stride=1):
        fan_out = size * size * filters
        return layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=math.sqrt(2.0 / fan_out)
            ),
        )(x)

    def block(x, filters, stride):
        activated = normalised(x)
        shortcut = x
        if stride != 1 or x.shape[-1] != filters:
            shortcut = convolution(activated, filters, 1, stride)
        y = convolution(activated, filters, 3, stride)
        y = convolution(normalised(y), filters, 3)
        return layers.Add()([shortcut, y])

    pixels, x = image_input(image_shape)
    x = convolution(x, 16, 3)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        for index in range(blocks):
            x = block(x, filters * width, stride if index == 0 else 1)
    logits = classifier(normalised(x), num_classes, dropout)
    return keras.Model(pixels, logits, name=network_name)
