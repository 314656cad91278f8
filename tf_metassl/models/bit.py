"""Big Transfer's networks: ResNet-V2 with group norm.

Source: Kolesnikov et al., arXiv 1912.11370; pre-activation blocks of He et al.,
arXiv 1603.05027, group norm of arXiv 1803.08494 and weight standardization of
arXiv 1903.10520.
"""

import keras
from keras import layers, ops

from tf_metassl.models.layers import classifier

# The ImageNet stem would reduce smaller images to less than 16x16.
SMALL = 64


@keras.saving.register_keras_serializable("tf_metassl")
class StandardizedConv2D(layers.Conv2D):
    """A convolution whose filters have mean 0 and variance 1 over the fan-in.

    The weights that are trained are those before standardization.
    """

    @property
    def kernel(self):
        """The weights that the layer applies."""
        weights = super().kernel
        full = ops.cast(weights, keras.config.floatx())
        mean, variance = ops.moments(full, (0, 1, 2), keepdims=True)
        return ops.cast(
            (full - mean) / ops.sqrt(variance + 1e-10), weights.dtype
        )

    # Keras' own would write the kernel that is applied.
    def save_own_variables(self, store):
        """Writes the weights that are trained."""
        layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        """Reads what `save_own_variables` has written."""
        layers.Layer.load_own_variables(self, store)


def bit(images, num_classes, *, blocks, width, dropout, synchronized):
    """ResNet-V2 with group norm of 32 groups and weight standardization.

    Parameters for 1,000 classes: ResNet-50x1 25,549,352 and ResNet-152x4
    936,533,224, as timm counts the released networks; the paper's 928 million
    is without the last layer. Images below 64 pixels get a stem of 3x3 without
    stride or pooling.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        blocks: bottlenecks of each of the four stages.
        width: factor on all filters.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: not used, there is no batch norm.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    del synchronized

    def normalized(x):
        x = layers.GroupNormalization(32, epsilon=1e-5)(x)
        return layers.ReLU()(x)

    def convolution(x, filters, size, stride=1):
        return StandardizedConv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
        )(x)

    def block(x, filters, stride):
        y = normalized(x)
        shortcut = x
        if stride != 1 or x.shape[-1] != filters:
            shortcut = convolution(y, filters, 1, stride)
        y = convolution(y, filters // 4, 1)
        y = convolution(normalized(y), filters // 4, 3, stride)
        y = convolution(normalized(y), filters, 1)
        return layers.Add()([shortcut, y])

    if min(images.shape[1:3]) < SMALL:
        x = convolution(images, 64 * width, 3)
    else:
        x = convolution(images, 64 * width, 7, 2)
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            x = block(x, 256 * 2**stage * width, stride)
    return classifier(
        normalized(x), num_classes, dropout, kernel_initializer="zeros"
    )
