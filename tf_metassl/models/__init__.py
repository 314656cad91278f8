"""Networks: uint8 images (or floats in 0...255) -> float32 logits.

The registry has names as text, so that listing the networks imports no
TensorFlow. A new network is one file here and one line below: a function from
scaled images, the number of classes, `dropout`, `synchronized` and the line's
options to logits, whose last layer is called `logits`
(`tf_metassl.models.layers.classifier`).
"""

import importlib
import re
import typing


class Network(typing.NamedTuple):
    """What is known of a network before it is built.

    Attributes:
        function: where it is, `module:function`.
        options: keyword arguments that make the function this network.
        dropout: its own rate, where no flag says otherwise.
        image_size: height and width that it was published with.
        smallest: the least height and width that it can take.
        scaling: mean and standard deviation of each channel, on a scale of
            0...1, by which it scales pixels whatever `--normalization` says;
            None for networks that follow it.
        is_own: whether it is a network of the user's own.
        takes_dropblock: whether it can be built with DropBlock.
        has_batch_norm: whether it has batch norm, not another norm or none.
    """

    function: str
    options: dict = {}
    dropout: float = 0.0
    image_size: int = 32
    smallest: int = 1
    scaling: tuple | None = None
    is_own: bool = False
    takes_dropblock: bool = False
    has_batch_norm: bool = True

    @property
    def has_own_scaling(self):
        """Whether it scales pixels itself; a user's network does."""
        return self.is_own or self.scaling is not None


def _small_cnn(image_size, *convolutions):
    options = {"convolutions": convolutions}
    return Network(
        "tf_metassl.models.small_cnn:small_cnn", options, image_size=image_size
    )


def _pooling_cnn(image_size, smallest, *blocks):
    return Network(
        "tf_metassl.models.pooling_cnn:pooling_cnn",
        {"blocks": blocks},
        image_size=image_size,
        smallest=smallest,
    )


def _cnn13(variant, dropout):
    options = {"variant": variant}
    return Network(
        "tf_metassl.models.cnn13:cnn13", options, dropout, smallest=12
    )


def _resnet(depth):
    options = {"depth": depth}
    return Network(
        "tf_metassl.models.resnet:resnet",
        options,
        image_size=224,
        takes_dropblock=True,
    )


def _efficientnet(width, depth, image_size, dropout):
    options = {"width": width, "depth": depth}
    return Network(
        "tf_metassl.models.efficientnet:efficientnet",
        options,
        dropout,
        image_size,
        smallest=32,
    )


def _bottlenecks(blocks, groups, group_width, dropout=0.0, senet=False):
    options = {"blocks": blocks, "groups": groups, "group_width": group_width}
    return Network(
        "tf_metassl.models.bottlenecks:bottlenecks",
        options | ({"senet": True} if senet else {}),
        dropout,
        image_size=224,
    )


def _bit(blocks, width, image_size):
    options = {"blocks": blocks, "width": width}
    return Network(
        "tf_metassl.models.bit:bit",
        options,
        image_size=image_size,
        has_batch_norm=False,
    )


def _vit(patch, width, depth, heads):
    options = {"patch": patch, "width": width, "depth": depth, "heads": heads}
    return Network(
        "tf_metassl.models.vit:vit",
        options,
        image_size=224,
        smallest=patch,
        has_batch_norm=False,
    )


def _searched(cells, stacks, filters, stem, image_size):
    options = {
        "cells": cells,
        "stacks": stacks,
        "filters": filters,
        "stem": stem,
    }
    return Network(
        "tf_metassl.models.searched:searched",
        options,
        0.5,
        image_size,
        smallest=32,
    )


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Pixels as they are.
_AS_THEY_ARE = (0.0,) * 3, (1 / 255,) * 3
# Rank of what `--freeze=lora` adds to a kernel.
LORA_RANK = 4
# Of the names of networks of keras.applications.
KERAS_PREFIX = "keras:"

NETWORKS = {
    # Filters and stride of each convolution.
    "digits_cnn": _small_cnn(8, (32, 1), (32, 1), (64, 2), (64, 1), (128, 2)),
    # Filters of a block, then the size of its max pooling.
    "digits_pooling_cnn": _pooling_cnn(
        8, 4, ((32, 32), 2), ((64, 64), 2), ((128,), 1)
    ),
    "swwae_cnn": _pooling_cnn(
        96,
        48,
        ((64,), 4),
        ((64,), 3),
        ((128, 128), 2),
        ((256, 256, 256, 512, 512, 512), 2),
    ),
    "small_cnn": _small_cnn(28, (16, 2), (32, 2), (64, 2)),
    # Fits a few hundred labels in full, and trains in minutes on one core.
    "strided_cnn": _small_cnn(16, (32, 2), (64, 1), (96, 2), (128, 1)),
    "two_moons_mlp": Network(
        "tf_metassl.models.two_moons_mlp:two_moons_mlp",
        image_size=1,
        has_batch_norm=False,
    ),
    "cnn13": _cnn13("plain", 0.5),
    "cnn13_mean_teacher": _cnn13("mean_teacher", 0.5),
    "cnn13_vat": _cnn13("vat", 0.5),
    "cnn13_fast_swa": _cnn13("fast_swa", 0.5),
    "cnn13_ict": _cnn13("ict", 0.0),
    "cnn13_semi_meta": _cnn13("semi_meta", 0.5),
    "cnn13_fixmatch": _cnn13("fixmatch", 0.0),
    "resnet_50": _resnet(50),
    "resnet_152": _resnet(152),
    # Tan and Le's compound scaling: width, depth, resolution, dropout.
    "efficientnet_b0": _efficientnet(1.0, 1.0, 224, 0.2),
    "efficientnet_b1": _efficientnet(1.0, 1.1, 240, 0.2),
    "efficientnet_b2": _efficientnet(1.1, 1.2, 260, 0.3),
    "efficientnet_b3": _efficientnet(1.2, 1.4, 300, 0.3),
    "efficientnet_b4": _efficientnet(1.4, 1.8, 380, 0.4),
    "efficientnet_b5": _efficientnet(1.6, 2.2, 456, 0.4),
    "efficientnet_b6": _efficientnet(1.8, 2.6, 528, 0.5),
    "efficientnet_b7": _efficientnet(2.0, 3.1, 600, 0.5),
    "efficientnet_lite0": Network(
        "tf_metassl.models.efficientnet_lite:efficientnet_lite0",
        dropout=0.2,
        image_size=224,
        smallest=32,
        scaling=_IMAGENET,
    ),
    "efficientnet_l2": _efficientnet(4.3, 5.3, 512, 0.5),
    # Meta Pseudo Labels reports 390 million parameters, and its code a width
    # of 5.0, which gives 317 million. This width gives 390 at the depth of B6.
    "efficientnet_b6_wide": _efficientnet(5.55, 2.6, 512, 0.5),
    # Groups x filters of a group.
    "resnext_101_32x4d": _bottlenecks((3, 4, 23, 3), 32, 4),
    "resnext_101_64x4d": _bottlenecks((3, 4, 23, 3), 64, 4),
    "resnext_101_32x16d": _bottlenecks((3, 4, 23, 3), 32, 16),
    "resnext_101_32x48d": _bottlenecks((3, 4, 23, 3), 32, 48),
    "senet_154": _bottlenecks((3, 8, 36, 3), 64, 4, 0.2, senet=True),
    "densenet_264": Network(
        "tf_metassl.models.applications:densenet_264",
        image_size=224,
        smallest=32,
    ),
    "inception_v4": Network(
        "tf_metassl.models.inception_v4:inception_v4",
        dropout=0.2,
        image_size=299,
        smallest=75,
    ),
    "polynet": Network(
        "tf_metassl.models.polynet:polynet",
        dropout=0.2,
        image_size=331,
        smallest=75,
    ),
    "pnasnet_5": _searched("pnasnet_5", (4, 3, 3), 216, 96, 331),
    # Normal cells of a stack and filters, N and F of the papers.
    "amoebanet_a": _searched("amoebanet_a", (6, 6, 6), 190, 32, 331),
    "amoebanet_b": _searched("amoebanet_b", (6, 6, 6), 512, 32, 480),
    "amoebanet_c": _searched("amoebanet_c", (6, 6, 6), 228, 32, 331),
    # Depth and factor on the filters.
    "bit_50_1": _bit((3, 4, 6, 3), 1, 224),
    "bit_152_4": _bit((3, 8, 36, 3), 4, 480),
    "vit_b16": _vit(16, 768, 12, 12),
    "vit_l16": _vit(16, 1024, 24, 16),
    "vit_h14": _vit(14, 1280, 32, 16),
}

# Families and what a user brings, as they are shown in help and errors.
FURTHER = (
    "wrn_D_K, wrn_D_K_mpl or wrn_D_K_fixmatch for a wide residual network of "
    "depth D and width K such as wrn_28_2, keras:NAME for one of "
    "keras.applications such as keras:MobileNetV2, or module:function for a "
    "network of your own"
)


# Network for own images of up to this size, of any size, and both as text. The
# operations of a wide residual network grow with its input, which is nowhere
# reduced early: at 224 pixels, wrn_28_2 needs 21 GFLOP per image.
_SMALL, _LARGE, _SMALL_SIZE = "wrn_28_2", "resnet_50", 64
BY_SIZE_TEXT = f"{_SMALL} up to {_SMALL_SIZE} pixels and {_LARGE} above"


def for_size(image_shape):
    """The name of the default network for own images.

    Args:
        image_shape: height, width, channels.
    """
    return _SMALL if min(image_shape[:2]) <= _SMALL_SIZE else _LARGE


def find(name):
    """The `Network` called `name`; imports nothing.

    Raises:
        ValueError: if there is none.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if match := re.fullmatch(r"wrn_(\d+)_(\d+)(?:_(mpl|fixmatch))?", name):
        depth, width, variant = match.groups(default="plain")
        return Network(
            "tf_metassl.models.wide_resnet:wide_resnet",
            {"depth": int(depth), "width": int(width), "variant": variant},
        )
    if match := re.fullmatch(rf"{KERAS_PREFIX}(\w+)", name):
        return Network(
            "tf_metassl.models.applications:application",
            {"name": match[1]},
            image_size=224,
            smallest=32,
            scaling=_AS_THEY_ARE,
        )
    if re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        return Network(name, is_own=True)
    raise ValueError(
        f"--model={name}: must be one of {', '.join(NETWORKS)}, {FURTHER}."
    )


def with_dropblock():
    """The names of the networks that can be built with DropBlock, a list."""
    return [name for name, row in NETWORKS.items() if row.takes_dropblock]


def build(
    name,
    image_shape,
    num_classes,
    *,
    dropout=None,
    dropblock=0.0,
    synchronized=False,
    mean=None,
    std=None,
    whitening=None,
    network_name=None,
):
    """Builds the network called `name`.

    Args:
        name: see `NETWORKS` and `FURTHER`.
        image_shape: height, width, channels.
        num_classes: C.
        dropout: rate before the last layer, in cnn13 after its two poolings;
            0 adds no layer, None takes the network's own.
        dropblock: final rate of DropBlock; 0 adds no layer.
        synchronized: batch statistics over all replicas.
        mean: of each channel, on a scale of 0...1, to be subtracted from the
            pixels; None scales pixels to -1...1.
        std: of each channel, to divide by then.
        whitening: mean and matrix over all pixels in place of these two, see
            `tf_metassl.models.layers.Whitening`.
        network_name: name of the Keras model; None takes `name`.

    Returns:
        A built Keras model, `[N, H, W, C]` uint8 or floats in 0...255 ->
        logits `[N, C]` in full precision.

    Raises:
        ValueError: if the name is unknown, the depth impossible or the images
            too small; or if a network of the user's own is not as described
            in `tf_metassl.models.custom`.
    """
    found = find(name)
    if dropout is None:
        dropout = found.dropout
    further = dict(found.options)
    if dropblock:
        if not found.takes_dropblock:
            raise ValueError(
                f"--model={name} has no DropBlock: leave --dropblock at 0, or "
                f"use --model={', '.join(with_dropblock())}."
            )
        further["dropblock"] = dropblock
    # Keras is imported here, so that listing the networks does without.
    import keras

    from tf_metassl.models import custom, layers

    if found.is_own:
        if dropout or mean is not None or whitening is not None:
            raise ValueError(
                f"--model={name}: a network of your own has its dropout and "
                "the scaling of its pixels inside: leave --dropout at 0 and "
                "--normalization at unit."
            )
        network = custom.load(name, image_shape, num_classes)
        network = layers.with_moving_statistics(network)
        if synchronized:
            layers.synchronize(network)
    else:
        if min(image_shape[:2]) < found.smallest:
            raise ValueError(
                f"--model={name} needs images of at least {found.smallest}x"
                f"{found.smallest} pixels, got {image_shape[0]}x"
                f"{image_shape[1]}: change --model or --image_size."
            )
        if found.scaling is not None:
            mean, std = _own_scaling(name, found, image_shape, mean, whitening)
        module, function = found.function.split(":")
        function = getattr(importlib.import_module(module), function)
        pixels, scaled = layers.image_input(image_shape, mean, std, whitening)
        logits = function(
            scaled,
            num_classes,
            dropout=dropout,
            synchronized=synchronized,
            **further,
        )
        network = keras.Model(pixels, logits)
    network.name = network_name or name.replace(":", ".")
    return network


def _own_scaling(name, network, image_shape, mean, whitening):
    """Mean and standard deviation of a network that has its own.

    Raises:
        ValueError: if others are asked for, or the images have no color.
    """
    if mean is not None or whitening is not None:
        raise ValueError(
            f"--model={name} has the scaling of its pixels inside: leave "
            "--normalization at unit."
        )
    if image_shape[2] != len(network.scaling[0]):
        raise ValueError(
            f"--model={name} needs color images, got {image_shape[2]} "
            "channels: use --channels=3."
        )
    return network.scaling


def features(network):
    """A network and what its last layer sees, for further heads.

    Args:
        network: what `build` returned, or its averaged copy.

    Returns:
        A Keras model that shares all layers, images -> (features `[N, F]`,
        after pooling and dropout and in the precision of the layers; logits
        `[N, C]`).

    Raises:
        ValueError: if a network of the user's own has no layer called logits.
    """
    import keras

    if not any(layer.name == "logits" for layer in network.layers):
        raise ValueError(
            "This method has a further head on the network's features, or "
            "--cache_features stores them: call the last dense layer of your "
            "network (--model) `logits`."
        )
    return keras.Model(
        network.inputs[0],
        (network.get_layer("logits").input, network.outputs[0]),
        name=f"{network.name}_features",
    )


def at_size(network, size):
    """A network that takes images of another size.

    Args:
        network: a functional Keras model of images; its layers are shared.
        size: height and width.

    Returns:
        A Keras model with the same layers and variables, and the same outputs;
        `network` itself if it is of this size.

    Raises:
        ValueError: if a layer needs the size that the network was built for,
            as position embeddings and flattened features do.
    """
    import keras

    shape = network.input_shape[1:]
    if tuple(size) == shape[:2]:
        return network
    pixels = keras.Input((*size, shape[2]), dtype=network.inputs[0].dtype)
    try:
        resized = keras.models.clone_model(
            network, input_tensors=pixels, clone_function=lambda layer: layer
        )
    except Exception as error:
        raise ValueError(
            f"The network was built for images of {shape[0]}x{shape[1]} pixels "
            f"and cannot take {size[0]}x{size[1]}: {error}"
        ) from error
    resized.name = f"{network.name}_{size[0]}x{size[1]}"
    return resized
