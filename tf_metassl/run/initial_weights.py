"""What `--init_weights` names: layers whose weights a run starts from."""

import os
import pathlib

import keras

from tf_metassl.config import Config
from tf_metassl.errors import ConfigError
from tf_metassl.models import pretrained
from tf_metassl.run import run_directory, stage
from tf_metassl.run.build import build_without_images


def load(config: Config) -> list[keras.Layer] | None:
    """The layers of the network that is named, that the new ones start from.

    Without `--init_last_layer` these are the layers before the last one.
    Building the network of another run changes Keras' random seed.

    Args:
        config: a `Config`.

    Returns:
        Layers with weights, in order; None without `--init_weights`.

    Raises:
        ConfigError: if there is no such network.
        CheckpointError: if the run has not been finished.
    """
    name = config.init_weights
    if not name:
        return None
    whole = config.init_last_layer
    if name == "imagenet":
        if whole:
            raise ConfigError(
                "--init_last_layer: the last layer of --init_weights=imagenet "
                "has other classes. Leave it out."
            )
        return pretrained.imagenet_layers(config.model)
    path = pathlib.Path(os.path.expanduser(name))
    if path.is_dir():
        return _of_run(name, path, whole)
    return pretrained.file_layers(path, whole)


def _of_run(name: str, run_dir: pathlib.Path, whole: bool) -> list[keras.Layer]:
    """The layers of the exported network of a run, see `load`."""
    if not run_directory.is_run(run_dir):
        raise ConfigError(
            f"--init_weights={name}: this folder is not that of a run."
        )
    config = run_directory.load_config(run_dir)
    built = build_without_images(config, run_dir)
    if built is None:
        raise ConfigError(
            f"--init_weights={name}: the run was started by a version that did "
            "not record its images. Export it as .keras and give that file."
        )
    *_, (_, algorithm) = stage.restored_stages(built, run_dir)
    network = built.whole(algorithm.deployable_model)
    return pretrained.layers_of(network, whole)
