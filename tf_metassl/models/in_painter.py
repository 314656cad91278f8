"""A generator that fills holes in images."""

import keras
from keras import layers


def in_painter(image_shape, filters=32):
    """An encoder and a decoder of 3x3 convolutions.

    Maps are reduced to half of their size twice, with twice the filters, and
    enlarged again by repetition. Each convolution normalizes the map of an
    image by itself, so that images do not depend on replicas.

    Args:
        image_shape: height, width, channels.
        filters: of the first convolution.

    Returns:
        A Keras model: images in -1...1 whose hole is 0, and the hole, a channel
        of ones and zeros, `[N, H, W, C + 1]` -> images in -1...1,
        `[N, H, W, C]`.
    """
    height, width, channels = image_shape
    inputs = keras.Input((height, width, channels + 1))

    def convolution(x, filters, strides=1):
        x = layers.Conv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
        )(x)
        return layers.LeakyReLU(0.2)(layers.GroupNormalization(1)(x))

    maps = [convolution(inputs, filters)]
    for times in (2, 4):
        maps.append(convolution(maps[-1], times * filters, strides=2))
    x = convolution(maps.pop(), 4 * filters)
    for before in reversed(maps):
        x = layers.UpSampling2D(2)(x)
        # Halves of odd sizes are rounded up.
        below = x.shape[1] - before.shape[1]
        right = x.shape[2] - before.shape[2]
        x = layers.Cropping2D([(0, below), (0, right)])(x)
        x = convolution(x, before.shape[-1])
    image = layers.Conv2D(
        channels,
        3,
        padding="same",
        activation="tanh",
        dtype=keras.config.floatx(),
    )(x)
    return keras.Model(inputs, image, name="generator")
