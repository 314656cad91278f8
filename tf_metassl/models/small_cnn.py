"""A network for experiments on a CPU, on images of about 28x28 pixels."""

from keras import layers

from tf_metassl.models.layers import classifier


def small_cnn(images, num_classes, *, dropout, synchronized):
    """Three 3x3 convolutions of stride 2, with batch norm and leaky ReLU.

    24,058 parameters for 28x28x1 images and 10 classes.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    x = images
    for filters in (16, 32, 64):
        x = layers.Conv2D(
            filters, 3, strides=2, padding="same", use_bias=False
        )(x)
        x = layers.BatchNormalization(momentum=0.99, synchronized=synchronized)(
            x
        )
        x = layers.LeakyReLU(0.1)(x)
    return classifier(x, num_classes, dropout)
