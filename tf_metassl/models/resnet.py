"""Residual networks with bottlenecks: He et al., arXiv 1512.03385."""

import re

import keras
from keras import layers

from tf_metassl.models.layers import (
    BatchNormalization,
    DropBlock,
    classifier,
    fan_out_normal,
    synchronize,
)

# The ImageNet stem would reduce smaller images to less than 16x16.
SMALL = 64


def resnet(images, num_classes, *, depth, dropout, synchronized, dropblock=0.0):
    """keras.applications' ResNet, changed to match published ResNets.

    Convolutions have no bias, which batch norm would cancel, and the 3x3
    convolution of a bottleneck has the stride, not the first 1x1. ResNet-50
    for 1,000 classes has 25,557,032 parameters. Images below 64 pixels get the
    stem of the CIFAR literature: 3x3 without stride or pooling.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        depth: 50 or 152.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.
        dropblock: rate of DropBlock (arXiv 1810.12890) on what follows every
            convolution of the last two stages, and on shortcuts; a quarter of
            it in the last but one, as in the authors' code. 0 adds no layer.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    application = {
        50: keras.applications.ResNet50,
        152: keras.applications.ResNet152,
    }[depth](include_top=False, weights=None, input_shape=(None, None, 3))
    small = min(images.shape[1:3]) < SMALL

    def changed(layer):
        settings = layer.get_config()
        if isinstance(layer, layers.Conv2D):
            settings["use_bias"] = False
            settings["kernel_initializer"] = fan_out_normal()
            # The first two convolutions of each stage that has a stride.
            if match := re.fullmatch(
                r"conv[345]_block1_([12])_conv", layer.name
            ):
                settings["strides"] = int(match[1])
        if small and layer.name == "conv1_pad":
            settings["padding"] = 1
        elif small and layer.name == "conv1_conv":
            settings |= {"kernel_size": 3, "strides": 1}
        elif small and layer.name in ("pool1_pad", "pool1_pool"):
            return layers.Identity(name=layer.name)
        if isinstance(layer, layers.BatchNormalization):
            return BatchNormalization.from_config(settings)
        return type(layer).from_config(settings)

    def called(layer, *args, **kwargs):
        found = re.fullmatch(
            r"conv([45])_block\d+_(1_relu|2_relu|add)", layer.name
        )
        if not dropblock or not found:
            return layer(*args, **kwargs)
        rate = dropblock * 4.0 ** (int(found[1]) - 5)
        if found[2] == "add":
            (branches,) = args
            return layer([DropBlock(rate)(branch) for branch in branches])
        return DropBlock(rate)(layer(*args, **kwargs))

    body = keras.models.clone_model(
        application,
        input_tensors=keras.Input(images.shape[1:], dtype=images.dtype),
        clone_function=changed,
        call_function=called,
    )
    if synchronized:
        synchronize(body)
    return classifier(body(images), num_classes, dropout)
