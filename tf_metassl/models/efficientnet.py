"""EfficientNet: Tan and Le, arXiv 1905.11946."""

import sys

import keras

# The public functions of keras.applications fix width and depth; L2 and
# B6-Wide need the one that they call.
from keras.src.applications.efficientnet import EfficientNet

from tf_metassl.models.layers import (
    classifier,
    fan_out_uniform,
    synchronize,
    with_moving_statistics,
)


def efficientnet(images, num_classes, *, width, depth, dropout, synchronized):
    """keras.applications' EfficientNet without its scaling of pixels.

    Residual branches are dropped as published, at rates that rise to 0.2 with
    depth, independently of `dropout`.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`, at least 32x32.
        num_classes: C.
        width: factor on B0's filters.
        depth: factor on B0's repetitions.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    # Keras traverses graphs recursively, here and when it copies them; that of
    # L2 is a thousand layers deep.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    application = EfficientNet(
        width,
        depth,
        default_size=None,
        include_top=False,
        weights=None,
        input_shape=images.shape[1:],
    )
    # Without its own scaling of pixels, which comes before this layer.
    first = application.get_layer("stem_conv_pad")
    body = keras.Model(first.input, application.output, name="efficientnet")
    body = with_moving_statistics(body)
    if synchronized:
        synchronize(body)
    return classifier(
        body(images),
        num_classes,
        dropout,
        kernel_initializer=fan_out_uniform(),
    )
