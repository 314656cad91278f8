"""Networks that start from trained weights, and parts that stay as they are."""

import keras
from keras import layers

from tf_metassl import models
from tf_metassl.errors import ConfigError
from tf_metassl.models import LORA_RANK
from tf_metassl.models.layers import BatchNormalization
from tf_metassl.ops import averaging


def imagenet_layers(name):
    """The layers before the last one, with published weights for ImageNet.

    Args:
        name: of the network, `--model`.

    Returns:
        A list of layers with weights, in order.

    Raises:
        ConfigError: if there are no such weights, or they are not on this
            machine.
    """
    if name == "efficientnet_lite0":
        from tf_metassl.models import efficientnet_lite

        # The weights do not depend on the size of the images.
        network = models.build(name, (32, 32, 3), 1000)
        efficientnet_lite.load_imagenet(network)
        return body_layers(network)
    if name.startswith(models.KERAS_PREFIX):
        from tf_metassl.models import applications

        name = name.removeprefix(models.KERAS_PREFIX)
        return leaves(applications.imagenet_body(name))
    raise ConfigError(
        f"--init_weights=imagenet: there are no weights for --model={name}. "
        "Use --model=efficientnet_lite0 or keras:NAME."
    )


def file_layers(path, whole=False):
    """The layers of a network in a `.keras` file, see `layers_of`.

    Args:
        path: of the file.
        whole: whether the last layer is one of them.

    Raises:
        ConfigError: if there is none, or Keras cannot read it.
    """
    if not path.is_file():
        raise ConfigError(
            f"--init_weights={path}: there is no such file or folder. Expected "
            "imagenet, the folder of a run, or a .keras file."
        )
    try:
        network = keras.saving.load_model(path, compile=False)
        return layers_of(network, whole)
    except Exception as error:
        raise ConfigError(
            f"--init_weights={path}: Keras cannot read it ({error})."
        ) from error


def leaves(network):
    """The layers with weights, in order, also those of models inside."""
    return [layer for layer in averaging.leaves(network) if layer.weights]


def body_layers(network):
    """The layers with weights but the last one, which knows the classes."""
    return leaves(network)[:-1]


def layers_of(network, whole):
    """`leaves` of a network if `whole`, else its `body_layers`."""
    return leaves(network) if whole else body_layers(network)


def copy_layers(targets, sources, what):
    """Copies weights layer by layer.

    Args:
        targets: list of layers.
        sources: list of layers.
        what: value of `--init_weights`, for messages.

    Raises:
        ConfigError: if they are not those of one architecture.
    """
    shapes = [
        [
            [tuple(v.shape) for v in layer.weights if v.name != "num_updates"]
            for layer in group
        ]
        for group in (targets, sources)
    ]
    if shapes[0] != shapes[1]:
        different = [
            f"{layer.name} has {ours}, there {theirs}"
            for layer, ours, theirs in zip(targets, *shapes, strict=False)
            if ours != theirs
        ]
        raise ConfigError(
            f"--init_weights={what}: another architecture, {len(sources)} "
            f"layers with weights are there to start from, here {len(targets)}"
            + "".join(f"; {text}" for text in different[:1])
            + ". Use the --model, --image_size and --dropout of that network."
        )
    for target, source in zip(targets, sources, strict=True):
        values = source.get_weights()
        for variable, value in zip(target.weights, values, strict=False):
            variable.assign(value)
        if isinstance(target, BatchNormalization):
            target.settle()


def freeze(network, how, rank=LORA_RANK):
    """Keeps the layers before the last one from being trained.

    Batch norm that is frozen uses its moving averages, in training as well.

    With `fixres` the last batch norm is trained and takes the statistics of
    the batch: at another image size, what comes before the pooling is averaged
    over more or fewer places (Touvron et al., arXiv 1906.06423).

    Args:
        network: a built Keras network.
        how: `none`; `backbone`: nothing but the last layer is trained; `lora`:
            the last layer, and a product of two small matrices that is added
            to every kernel (arXiv 2106.09685); `fixres`: the last layer and
            the last batch norm.
        rank: of that product.

    Raises:
        ConfigError: if no layer can be adapted by `lora`, or there is no batch
            norm for `fixres`.
    """
    if how == "none":
        return
    if how == "fixres":
        _freeze_all_but_last_norm(network)
        return
    adapted = 0
    for layer in body_layers(network):
        takes = isinstance(layer, layers.Conv2D | layers.Dense)
        takes = takes and not isinstance(layer, layers.DepthwiseConv2D)
        if how == "backbone" or not takes:
            layer.trainable = False
            continue
        layer.enable_lora(rank)
        adapted += 1
        if layer.use_bias:
            layer.bias.trainable = False
    if how == "lora" and not adapted:
        raise ConfigError(
            "--freeze=lora: the network has no convolution or dense layer "
            "before the last one. Use --freeze=backbone."
        )


def _freeze_all_but_last_norm(network):
    norms = [
        layer
        for layer in body_layers(network)
        if isinstance(layer, BatchNormalization)
    ]
    if not norms:
        raise ConfigError(
            "--freeze=fixres: the network has no batch norm that could adapt "
            "to another image size. Use --freeze=backbone."
        )
    for layer in body_layers(network):
        layer.trainable = layer is norms[-1]
