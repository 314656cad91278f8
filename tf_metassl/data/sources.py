"""Loads a dataset by its name."""

import importlib

from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.options import DataOptions
from tf_metassl.data.store import Images, Source

__all__ = ["Images", "Source", "load"]


def load(name, options=None, run_dir=None):
    """Loads a dataset.

    Args:
        name: a key of `tf_metassl.data.datasets.DATASETS`.
        options: a `DataOptions`, or anything with its fields; None for the
            defaults.
        run_dir: folder in which unusable image files are listed; None: they
            are not listed.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the images are missing or cannot be used; the message
            names the flag to change.
    """
    dataset = DATASETS[name]
    module, function = dataset.loader.split(":")
    loader = getattr(importlib.import_module(module), function)
    return loader(name, dataset, options or DataOptions(), run_dir)
