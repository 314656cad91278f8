"""Which training images are labeled, unlabeled or held out for validation."""

import dataclasses
import hashlib

import numpy as np

from tf_metassl.data.sources import balanced_subset


@dataclasses.dataclass(frozen=True)
class Splits:
    """Rows of a source's training images.

    Attributes:
        labeled: rows whose labels the training may read.
        unlabeled: rows that are used without their labels.
        validation: rows held out to choose settings and checkpoints.
    """

    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: np.ndarray

    @property
    def fingerprint(self):
        """A short hash of the three lists of rows."""
        digest = hashlib.sha256()
        for rows in (self.labeled, self.unlabeled, self.validation):
            digest.update(np.asarray(rows, np.int64).tobytes() + b"|")
        return digest.hexdigest()[:16]


def split(labels, *, num_labeled, num_validation, split_seed, labeled_inside):
    """Splits training rows, class-balanced, the same for the same seed.

    The validation rows do not depend on `split_seed`, so that runs which
    differ in it are chosen by the same images.

    Args:
        labels: `[N]` true labels, -1 where unknown.
        num_labeled: how many rows are labeled.
        num_validation: how many rows are held out.
        split_seed: which rows are labeled.
        labeled_inside: whether the labeled rows are in the unlabeled pool too.

    Returns:
        `Splits`, each sorted.

    Raises:
        ValueError: if there are fewer labels than asked for, or than classes,
            or if no unlabeled image is left.
    """
    num_classes = len(np.unique(labels[labels >= 0]))
    if num_labeled < num_classes:
        raise ValueError(
            f"--num_labeled={num_labeled} gives some of the {num_classes} "
            "classes no label: raise --num_labeled."
        )
    if num_labeled + num_validation > np.count_nonzero(labels >= 0):
        raise ValueError(
            f"--num_labeled={num_labeled} and --num_validation="
            f"{num_validation} together exceed the "
            f"{np.count_nonzero(labels >= 0)} labeled training images: lower "
            "one of them."
        )
    order = np.random.default_rng(2007).permutation(len(labels))
    validation = balanced_subset(labels, order, num_validation)
    pool = np.setdiff1d(np.arange(len(labels)), validation)
    order = np.random.default_rng([split_seed, 2394]).permutation(pool)
    labeled = balanced_subset(labels, order, num_labeled)
    unlabeled = pool if labeled_inside else np.setdiff1d(pool, labeled)
    if not len(unlabeled):
        raise ValueError(
            "No unlabeled image is left: lower --num_labeled or "
            "--num_validation, or set --labeled_inside_unlabeled."
        )
    return Splits(np.sort(labeled), np.sort(unlabeled), np.sort(validation))
