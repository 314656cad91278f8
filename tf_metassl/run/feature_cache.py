"""Features of frozen layers, computed once in place of at every step.

With `--freeze=backbone` everything before the last layer is a fixed function of
an image. With `--cache_features=V` its values on the image, on V weak views and
on V strong views are kept, and the networks that methods train and average are
the last layer alone. What is exported is whole again, see `whole`.

Stored features are images `[2 V + 1, 1, F]` to the rest of the program: a
column of the V weak views, the image itself and the V strong views, of which
`CachedViews` draws one and the evaluation uses the middle.
"""

import dataclasses
import functools
import hashlib
import pathlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_metassl import files, models
from tf_metassl.data import options as options_lib
from tf_metassl.data import patience, pipeline, store
from tf_metassl.data.cached_views import CachedViews
from tf_metassl.errors import ConfigError
from tf_metassl.models import pretrained

# Where a run keeps the frozen layers.
WEIGHTS = "backbone.weights.h5"
_BATCH = 256
# The stored views are the same for every seed, so that runs can share them.
_SEED = 0


def augmentation(num_views):
    """The `pipeline.Augmentation` that draws from `num_views` of each kind."""
    return pipeline.Augmentation(
        CachedViews(0, num_views), CachedViews(num_views + 1, num_views)
    )


def head(network, dropout, name):
    """A new last layer as a network of its own.

    Args:
        network: a whole network, whose last layer is called `logits`.
        dropout: rate before the layer; 0 for none.
        name: of the new network.

    Returns:
        A Keras model, features `[N, 1, 1, F]` -> logits `[N, C]`.
    """
    last = network.get_layer("logits")
    inputs = keras.Input((1, 1, last.input.shape[-1]), name="features")
    x = layers.Flatten()(inputs)
    if dropout:
        x = layers.Dropout(dropout)(x)
    logits = type(last).from_config(last.get_config())(x)
    return keras.Model(inputs, logits, name=name)


def whole(network, trained):
    """The frozen layers of a network and a trained `head`, one after the other.

    Args:
        network: the whole network.
        trained: a `head`.

    Returns:
        A Keras model, images -> logits, which shares all layers.
    """
    x = network.get_layer("logits").input
    # The first two layers take features as images.
    for layer in trained.layers[2:]:
        x = layer(x)
    return keras.Model(network.inputs[0], x, name=trained.name)


def load(config, source, network):
    """The features of a dataset; computes them unless they are stored.

    Args:
        config: a `Config`.
        source: the `Source` of the images.
        network: a whole network, whose last layer is called `logits`.

    Returns:
        A `Source` with features in place of images.

    Raises:
        ConfigError: if they cannot be stored.
    """
    policies = pipeline.augmentation(source, config)
    num_views = config.cache_features
    info, parts = source.info, {"train": num_views, "test": 0}
    settings = {
        "network": config.model,
        "weights": _digest(network),
        "precision": config.precision,
        "size": list(info.image_shape),
        "num_views": num_views,
        "views": dataclasses.asdict(policies),
        "version": 1,
    }
    apply = tf.function(
        functools.partial(models.features(network), training=False),
        autograph=False,
    )

    def build(folder):
        for name, views in parts.items():
            images = getattr(source, name)
            with open(folder / f"{name}.f32", "wb") as file:
                for block in _blocks(images, views, policies, info, apply):
                    file.write(block.tobytes())

    try:
        folder = store.cached(
            options_lib.cache_folder(config),
            info.name,
            settings=settings,
            fingerprint=_fingerprint(source),
            build=build,
            doing="Computing the features",
            result="features",
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    size = network.get_layer("logits").input.shape[-1]
    read = {
        name: dataclasses.replace(
            getattr(source, name),
            pixels=_read(
                folder / f"{name}.f32",
                (len(getattr(source, name)), 2 * views + 1, 1, size),
                config.cache_gib,
            ),
            rows=None,
        )
        for name, views in parts.items()
    }
    shape = dataclasses.replace(info, image_shape=(1, 1, size))
    return dataclasses.replace(source, info=shape, **read)


def without_images(source, network):
    """A `Source` of features for a run that is neither trained nor evaluated.

    Args:
        source: a `Source` of images.
        network: see `load`.
    """
    size = network.get_layer("logits").input.shape[-1]
    pixels = np.broadcast_to(np.float32(0), (len(source.train), 1, 1, size))
    images = dataclasses.replace(source.train, pixels=pixels)
    info = dataclasses.replace(source.info, image_shape=(1, 1, size))
    return dataclasses.replace(source, info=info, train=images, test=images)


def save_backbone(network, run_dir):
    """Writes the weights of the whole network into a run, once."""
    path = pathlib.Path(run_dir) / WEIGHTS
    if not path.exists():
        aside = path.with_name(f".{WEIGHTS}")
        network.save_weights(aside)
        files.sync(aside)
        aside.replace(path)


def load_backbone(network, run_dir):
    """Reads what `save_backbone` has written.

    Raises:
        ConfigError: if it is not there or damaged.
    """
    path = pathlib.Path(run_dir) / WEIGHTS
    try:
        network.load_weights(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}, the frozen layers of the run, cannot be read: {error}"
        ) from error


def _blocks(images, num_views, policies, info, apply):
    """Yields the features `[n, R, 1, F]` of all images, block by block."""
    size = info.image_shape[:2]
    progress = patience.Counter("Features of images", len(images))
    for start in range(0, len(images), _BATCH):
        index = np.arange(start, min(start + _BATCH, len(images)))
        pixels = images.gather(index)

        def of(kind, number, pixels=pixels, start=start):
            seed = tf.constant([_SEED, start * 128 + number], tf.int32)
            rows = slice(0, len(pixels))
            seen, _ = pipeline.view_of(
                pixels, kind, seed, len(pixels), rows, policies, size
            )
            return tf.cast(apply(seen)[0], tf.float32).numpy()

        columns = [
            *(of("weak", v) for v in range(num_views)),
            of("clean", 0),
            *(of("strong", v) for v in range(num_views)),
        ]
        yield np.stack(columns, axis=1)[:, :, np.newaxis]
        progress.advance(len(index))


def _read(path, shape, cache_gib):
    if np.prod(shape) * 4 <= cache_gib * 2**30:
        return np.fromfile(path, np.float32).reshape(shape)
    return np.memmap(path, np.float32, "r", shape=shape)


def _digest(network):
    """A hash of all weights but those of the last layer."""
    result = hashlib.sha256()
    for layer in pretrained.body_layers(network):
        for value in layer.get_weights():
            result.update(np.ascontiguousarray(value).tobytes())
    return result.hexdigest()[:16]


def _fingerprint(source):
    """A hash of the pixels of all images."""
    result = hashlib.sha256()
    for images in (source.train, source.test):
        hashes = images.content_hashes(np.arange(len(images)))
        result.update(np.ascontiguousarray(hashes).tobytes())
    return result.hexdigest()[:16]
