"""The classifiers of keras.applications: `--model=keras:NAME`."""

import re

import keras

# The public functions of keras.applications fix the blocks.
from keras.src.applications import densenet

from tf_metassl.errors import ConfigError
from tf_metassl.models.layers import (
    classifier,
    fan_out_uniform,
    synchronize,
    with_moving_statistics,
)


def _found(name):
    """The function of a network, and the one that prepares its pixels.

    Raises:
        ValueError: if there is no such network.
    """
    known = {}
    for family in vars(keras.applications).values():
        prepare = getattr(family, "preprocess_input", None)
        for key, value in vars(family).items() if prepare else ():
            if key[:1].isupper() and callable(value):
                known[key] = value, prepare
    if name not in known:
        raise ValueError(
            f"--model=keras:{name}: keras.applications has "
            f"{', '.join(sorted(known))}."
        )
    return known[name]


def application(images, num_classes, *, name, dropout, synchronized):
    """A network of keras.applications with its own scaling of pixels.

    Args:
        images: pixels in 0...255, a Keras tensor `[N, H, W, 3]`.
        num_classes: C.
        name: of a class of keras.applications, such as `MobileNetV2`.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.

    Raises:
        ValueError: if there is no such network, or the images are too small
            for it.
    """
    function, prepare = _found(name)
    body = function(
        include_top=False, weights=None, input_shape=images.shape[1:]
    )
    body = with_moving_statistics(body)
    if synchronized:
        synchronize(body)
    return classifier(
        body(prepare(images)),
        num_classes,
        dropout,
        kernel_initializer=fan_out_uniform(),
    )


def densenet_264(images, num_classes, *, dropout, synchronized):
    """keras.applications' DenseNet with the blocks of DenseNet-264.

    Source: Huang et al., arXiv 1608.06993, table 1. 33,337,704 parameters for
    1,000 classes, as counted for torch's network of these blocks; the paper's
    figure 3 has about 34 million.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`, at least 32x32.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    body = densenet.DenseNet(
        [6, 12, 64, 48],
        include_top=False,
        weights=None,
        input_shape=images.shape[1:],
        name="densenet",
    )
    body = with_moving_statistics(body)
    if synchronized:
        synchronize(body)
    return classifier(body(images), num_classes, dropout)


def imagenet_body(name):
    """The network with its weights for ImageNet, without the last layer.

    Args:
        name: of a class of keras.applications.

    Returns:
        A Keras model.

    Raises:
        ConfigError: if the weights are not on this machine and cannot be
            downloaded.
    """
    function, _ = _found(name)
    try:
        return function(
            include_top=False, weights="imagenet", input_shape=(224, 224, 3)
        )
    except Exception as error:
        file = re.search(r"/([\w.-]+\.h5)", str(error))
        if file is None:
            raise
        raise ConfigError(
            f"--init_weights=imagenet: {file[1]} could not be downloaded. Put "
            "that file, from a machine with a connection, into "
            "~/.keras/models/ of this one."
        ) from error
