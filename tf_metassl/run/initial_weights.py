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
    """The layers before the last one of the network that is named.

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
    if name == "imagenet":
        return pretrained.imagenet_layers(config.model)
    path = pathlib.Path(os.path.expanduser(name))
    if path.is_dir():
        return _of_run(name, path)
    return pretrained.file_layers(path)


def _of_run(name: str, run_dir: pathlib.Path) -> list[keras.Layer]:
    """The layers of the exported network of a run."""
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
    return pretrained.body_layers(network)
