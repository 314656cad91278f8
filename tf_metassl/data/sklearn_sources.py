"""Small datasets that scikit-learn has or makes; nothing is downloaded."""

import numpy as np

from tf_metassl.contract import DatasetInfo
from tf_metassl.data.splits import balanced_subset
from tf_metassl.data.store import Images, Source


def digits(name, dataset, options, run_dir=None):
    """Loads scikit-learn's handwritten digits: 1,797 gray 8x8 images.

    There are 10 classes. The pixel values 0...16 become 0...255. The test set
    is a class-balanced subset of 397 images, the same for every seed.

    Args:
        name: of the dataset.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
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
            name=name,
            class_names=tuple(str(name) for name in raw.target_names),
            image_shape=(8, 8, 1),
        ),
        train=Images(images[train], labels[train]),
        test=Images(images[test], labels[test]),
        weak_policy=dataset.weak_policy,
        strong_policy=dataset.strong_policy,
    )


def two_moons(name, dataset, options, run_dir=None):
    """Makes two interleaved half circles, the toy of Meta Pseudo Labels.

    A point is an image of one pixel with two channels: -1.5...2.5 in x and
    -1.75...2.25 in y become 0...255. There are 2,200 points to train and
    validate with and 1,000 to test with, the same for every seed.

    Args:
        name: of the dataset.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
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
            name=name,
            class_names=("upper", "lower"),
            image_shape=(1, 1, 2),
        ),
        train=Images(pixels[:2200], labels[:2200]),
        test=Images(pixels[2200:], labels[2200:]),
        weak_policy=dataset.weak_policy,
        strong_policy=dataset.strong_policy,
    )
