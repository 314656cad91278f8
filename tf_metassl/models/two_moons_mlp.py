"""A tiny network for points, which are images of one pixel."""

import keras
from keras import layers

from tf_metassl.models.layers import classifier


def two_moons_mlp(images, num_classes, *, dropout, synchronized):
    """Two hidden layers of 8 sigmoid units, weights from U(-0.1, 0.1).

    114 parameters for 1x1x2 images and 2 classes.

    Source: the two-moons experiment of Meta Pseudo Labels, arXiv 2003.10580.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: not used, there is no batch norm.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    del synchronized

    # A new one for each layer: an initializer draws the same numbers again.
    def uniform():
        return keras.initializers.RandomUniform(-0.1, 0.1)

    x = images
    for _ in range(2):
        x = layers.Dense(8, "sigmoid", kernel_initializer=uniform())(x)
    return classifier(x, num_classes, dropout, kernel_initializer=uniform())
