"""The first and the last layers of every network."""

import keras
from keras import layers


def image_input(image_shape):
    """The network's input and its first layer.

    Pixels come as uint8, or as floats in 0...255 after MixUp, and are scaled
    to -1...1 inside the network, so that training, evaluation and serving
    cannot disagree. Scaling is done in full precision: half precision would
    round mixed pixels first.

    Args:
        image_shape: height, width, channels.

    Returns:
        The input and the scaled images, two Keras tensors.
    """
    dtype = keras.config.floatx()
    pixels = keras.Input(image_shape, dtype=dtype, name="image")
    scaled = layers.Rescaling(1 / 127.5, offset=-1.0, dtype=dtype)(pixels)
    return pixels, scaled


def classifier(features, num_classes, dropout):
    """Global average pooling, dropout, logits in full precision.

    Args:
        features: Keras tensor `[N, h, w, F]`.
        num_classes: C.
        dropout: rate; 0 adds no layer.

    Returns:
        Keras tensor `[N, C]`.
    """
    x = layers.GlobalAveragePooling2D()(features)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return layers.Dense(
        num_classes, dtype=keras.config.floatx(), name="logits"
    )(x)
