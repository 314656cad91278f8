"""A small network for images of about 8x8 pixels."""

from keras import layers

from tf_metassl.models.layers import classifier


def digits_cnn(images, num_classes, *, dropout, synchronized):
    """Five 3x3 convolutions, each with batch norm and leaky ReLU.

    140,458 parameters for 8x8x1 images and 10 classes.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    x = images
    for filters, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2)):
        x = layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False
        )(x)
        x = layers.BatchNormalization(momentum=0.99, synchronized=synchronized)(
            x
        )
        x = layers.LeakyReLU(0.1)(x)
    return classifier(x, num_classes, dropout)
