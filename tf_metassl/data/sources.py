"""Where images come from: dataset name -> `Source`."""

import functools

import numpy as np

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import folder, tfds_sources
from tf_metassl.data.options import DataOptions
from tf_metassl.data.splits import balanced_subset
from tf_metassl.data.store import Images, Source

__all__ = ["SOURCES", "Images", "Source", "digits", "load", "two_moons"]


def digits(options=None, run_dir=None):
    """scikit-learn's handwritten digits: 1,797 gray 8x8 images, 10 classes.

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


def two_moons(options=None, run_dir=None):
    """Two interleaved half circles: the toy of Meta Pseudo Labels.

    A point is an image of one pixel with two channels: -1.5...2.5 and
    -1.75...2.25 in x and y become 0...255. 2,000 points to learn from, labeled
    or not, 200 to validate and 1,000 to test, the same for every seed.

    Args:
        options: not used.
        run_dir: not used.

    Returns:
        A `Source`.
    """
    del options, run_dir
    from sklearn.datasets import make_moons

    points, labels = make_moons(4000, noise=0.1, random_state=0)
    pixels = np.round((points - (-1.5, -1.75)) * (255 / 4))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    # One point per grid cell, so that no point is in two splits.
    _, first = np.unique(pixels, axis=0, return_index=True)
    rows = np.sort(first)[:3200]
    pixels = pixels[rows, np.newaxis, np.newaxis]
    labels = labels[rows].astype(np.int32)
    return Source(
        info=DatasetInfo(
            name="two_moons",
            class_names=("upper", "lower"),
            image_shape=(1, 1, 2),
        ),
        train=Images(pixels[:2200], labels[:2200]),
        test=Images(pixels[2200:], labels[2200:]),
        weak_policy="jitter",
        strong_policy="jitter_points",
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
    "two_moons": two_moons,
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
