"""Small networks: for the digits, and for experiments on a CPU."""

from keras import layers

from tf_metassl.models.layers import BatchNormalization, classifier


def small_cnn(images, num_classes, *, convolutions, dropout, synchronized):
    """3x3 convolutions, each with batch norm and leaky ReLU.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        convolutions: filters and stride of each.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    x = images
    for filters, stride in convolutions:
        x = layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False
        )(x)
        x = BatchNormalization(momentum=0.99, synchronized=synchronized)(x)
        x = layers.LeakyReLU(0.1)(x)
    return classifier(x, num_classes, dropout)
