"""Where images come from: dataset name -> arrays in memory."""

import dataclasses

import numpy as np

from tf_metassl.contract import DatasetInfo


@dataclasses.dataclass(frozen=True)
class Images:
    """Images with random access.

    Attributes:
        images: `[N, H, W, C]` uint8, the bytes as published.
        labels: `[N]` int32; -1 where the label is unknown.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(
                "images: expected uint8 [N, H, W, C], got "
                f"{self.images.dtype} {self.images.shape}."
            )
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels: expected shape {self.images.shape[:1]}, got "
                f"{self.labels.shape}."
            )

    def __len__(self):
        return len(self.images)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset: what it is, and its images for training and for testing.

    Attributes:
        info: names and shapes.
        train: everything that training, labeled, unlabeled or validation,
            may be taken from.
        test: never touched before the final evaluation.
        weak_policy: name of the weak augmentation that suits the images.
        strong_policy: name of the strong one.
    """

    info: DatasetInfo
    train: Images
    test: Images
    weak_policy: str
    strong_policy: str


def digits():
    """scikit-learn's handwritten digits: 1,797 grey 8x8 images, 10 classes.

    The pixel values 0...16 become 0...255. A class-balanced 397 images, the
    same for every seed, are the test set.
    """
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


def balanced_subset(labels, order, size):
    """The first images of each class in `order`, as evenly as `size` allows.

    Args:
        labels: `[N]` integers; negative ones are never taken.
        order: a permutation of the rows to choose from.
        size: how many rows to return.

    Returns:
        `[size]` rows. Classes differ by at most one image while they last.

    Raises:
        ValueError: if there are fewer labeled rows than `size`.
    """
    rows = order[labels[order] >= 0]
    if len(rows) < size:
        raise ValueError(
            f"Asked for {size} labeled images, but only {len(rows)} are there."
        )
    # Rank of each row within its class; a stable sort by rank deals the
    # classes out in turns.
    rank = np.empty(len(rows), np.int64)
    for c in np.unique(labels[rows]):
        members = np.flatnonzero(labels[rows] == c)
        rank[members] = np.arange(len(members))
    return rows[np.argsort(rank, kind="stable")[:size]]


SOURCES = {"digits": digits}


def load(name):
    """Loads the dataset called `name`, one of `SOURCES`."""
    return SOURCES[name]()
