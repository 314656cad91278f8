"""Residual networks with grouped convolutions: ResNeXt and SENet-154.

Sources: Xie et al., arXiv 1611.05431; Hu et al., arXiv 1709.01507.
"""

from keras import layers

from tf_metassl.models.layers import (
    BatchNormalization,
    classifier,
    fan_out_normal,
)

# The ImageNet stem would reduce smaller images to less than 16x16.
SMALL = 64


def bottlenecks(
    images,
    num_classes,
    *,
    blocks,
    groups,
    group_width,
    dropout,
    synchronized,
    senet=False,
):
    """Bottlenecks whose 3x3 convolutions have groups.

    Parameters for 1,000 classes, as counted for the released networks (torch
    hub and timm), which have the same layers: ResNeXt-101 32x4d 44,177,704;
    64x4d 83,455,272; 32x8d 88,791,336; 32x16d 194,026,792; 32x48d 828,411,176;
    SENet-154 115,088,984. Tables of later papers give 146 million for SENet.
    Images below 64 pixels get a stem of 3x3 without stride or pooling.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        blocks: bottlenecks of each of the four stages.
        groups: of the 3x3 convolution, the paper's cardinality.
        group_width: filters of a group in the first stage.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.
        senet: as in SENet-154: squeeze and excitation, a stem of three 3x3
            convolutions, half of the filters in the first 1x1 convolution, and
            3x3 convolutions in shortcuts.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """

    def convolution(x, filters, size=1, stride=1, groups=1, rectify=True):
        x = layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            groups=groups,
            use_bias=False,
            kernel_initializer=fan_out_normal(),
        )(x)
        x = BatchNormalization(
            momentum=0.9, epsilon=1e-5, synchronized=synchronized
        )(x)
        return layers.ReLU()(x) if rectify else x

    def squeezed(x):
        filters = x.shape[-1]
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(filters // 16, 1, activation="relu")(gate)
        gate = layers.Conv2D(filters, 1, activation="sigmoid")(gate)
        return layers.Multiply()([x, gate])

    def block(x, stage, stride):
        inner = groups * group_width * 2**stage
        filters = 256 * 2**stage
        y = convolution(x, inner // 2 if senet else inner)
        y = convolution(y, inner, 3, stride, groups)
        y = convolution(y, filters, rectify=False)
        if senet:
            y = squeezed(y)
        shortcut = x
        if stride != 1 or x.shape[-1] != filters:
            size = 3 if senet and stage else 1
            shortcut = convolution(x, filters, size, stride, rectify=False)
        return layers.ReLU()(layers.Add()([shortcut, y]))

    stride = 1 if min(images.shape[1:3]) < SMALL else 2
    if senet:
        x = convolution(images, 64, 3, stride)
        x = convolution(convolution(x, 64, 3), 128, 3)
    else:
        x = convolution(images, 64, 3 if stride == 1 else 7, stride)
    if stride == 2:
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = block(x, stage, 2 if stage and not index else 1)
    return classifier(x, num_classes, dropout)
