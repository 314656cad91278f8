"""Where images come from: dataset name -> `Source`."""

import functools

import numpy as np

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import folder, tfds_sources
from tf_metassl.data.options import DataOptions
from tf_metassl.data.splits import balanced_subset
from tf_metassl.data.store import Images, Source

__all__ = ["SOURCES", "Images", "Source", "digits", "load"]


def digits(options=None, run_dir=None):
    """scikit-learn's handwritten digits: 1,797 grey 8x8 images, 10 classes.

    The pixel values 0...16 become 0...255. A class-balanced 397 images, the
    same for every seed, are the test set.

    Args:
        options: not used.
        run_dir: not used.

    Returns:
        A `Source`.
    """
    del options, run_dir
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = raw.target.astype(np.int32)
    order = np.random.default_rng(1797).permutation(len(labels))
    test = np.sort(balanced_subset(labels, order, 397))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Source(
        info=DatasetInfo(
            name="digits",
            class_names=tuple(str(name) for name in raw.target_names),
            image_shape=(8, 8, 1),
        ),
        train=Images(images[train], labels[train]),
        test=Images(images[test], labels[test]),
        weak_policy="affine",
        strong_policy="affine_digits",
    )


SOURCES = {
    "digits": digits,
    "cifar10": functools.partial(tfds_sources.load, "cifar10"),
    "cifar100": functools.partial(tfds_sources.load, "cifar100"),
    "svhn_cropped": functools.partial(tfds_sources.load, "svhn_cropped"),
    "stl10": functools.partial(tfds_sources.load, "stl10"),
    "fashion_mnist": functools.partial(tfds_sources.load, "fashion_mnist"),
    "mnist": functools.partial(tfds_sources.load, "mnist"),
    "imagenet2012": functools.partial(tfds_sources.load, "imagenet2012"),
    "imagenet2012_subset/10pct": functools.partial(
        tfds_sources.load, "imagenet2012_subset/10pct"
    ),
    "folder": folder.load_folder,
    "csv": folder.load_csv,
}


def load(name, options=None, run_dir=None):
    """Loads a dataset.

    Args:
        name: a key of `SOURCES`.
        options: a `DataOptions`, or anything with its fields; None for the
            defaults.
        run_dir: folder in which unusable image files are listed; None: none.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the images are not there or cannot be used; the message
            names the flag to change.
    """
    return SOURCES[name](options or DataOptions(), run_dir)
