"""Networks with max pooling, whose positions a decoder can invert."""

from keras import layers

from tf_metassl.models.layers import BatchNormalization, classifier


def pooling_cnn(images, num_classes, *, blocks, dropout, synchronized):
    """Blocks of 3x3 convolutions with batch norm and leaky ReLU, max pooling.

    Source of the blocks of `swwae_cnn`: Zhao, Mathieu, Goroshin, LeCun, arXiv
    1506.02351, for STL-10. Its last layer sees the 2x2 map itself; here, as in
    all networks, its average. Leaky ReLU is that of the other small networks.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        blocks: filters of the convolutions of each block, and height and width
            of its max pooling; 1 for none.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    x = images
    for filters_of_block, size in blocks:
        for filters in filters_of_block:
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = BatchNormalization(momentum=0.99, synchronized=synchronized)(x)
            x = layers.LeakyReLU(0.1)(x)
        if size > 1:
            x = layers.MaxPooling2D(size)(x)
    return classifier(x, num_classes, dropout)
