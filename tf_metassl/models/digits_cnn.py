"""A small network for images of about 8x8 pixels."""

import keras
from keras import layers

from tf_metassl.models.layers import classifier, image_input


def digits_cnn(
    image_shape,
    num_classes,
    *,
    dropout=0.0,
    synchronized=False,
    network_name="digits_cnn",
):
    """Five 3x3 convolutions, each with batch norm and leaky ReLU.

    140,458 parameters for 8x8x1 images and 10 classes.

    Args:
        image_shape: height, width, channels.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.
        network_name: name of the Keras model.

    Returns:
        A built Keras model, `[N, H, W, C]` -> logits `[N, C]`.
    """
    pixels, x = image_input(image_shape)
    for filters, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2)):
        x = layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False
        )(x)
        x = layers.BatchNormalization(momentum=0.99, synchronized=synchronized)(
            x
        )
        x = layers.LeakyReLU(0.1)(x)
    logits = classifier(x, num_classes, dropout)
    return keras.Model(pixels, logits, name=network_name)
