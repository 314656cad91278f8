"""Unlabeled pools with images of classes that are not to be learned.

Source: Oliver et al., "Realistic Evaluation of Deep Semi-Supervised Learning
Algorithms", arXiv 1804.09170, section 4.4. Some classes of a dataset have
labels; images of the others are mixed into the unlabeled pool.
"""

import dataclasses

import numpy as np

from tf_metassl.contract import FOREIGN
from tf_metassl.data.store import Images, Source


def with_known_classes(source: Source, num_classes: int) -> Source:
    """Makes all images but those of the first classes foreign.

    Args:
        source: a `Source`.
        num_classes: how many classes stay.

    Returns:
        A `Source` whose training images of other classes have the label
        `FOREIGN`, and that has no other test and validation images of them.

    Raises:
        ValueError: if there are not more classes.
    """
    names = source.info.class_names
    if not 2 <= num_classes < len(names):
        raise ValueError(
            f"--known_classes={num_classes}: {source.info.name} has "
            f"{len(names)} classes, of which at least 2 have to be known and "
            "one has to be left."
        )
    labels = source.train.labels
    is_foreign = labels >= num_classes
    relabeled = np.where(is_foreign, FOREIGN, labels).astype(labels.dtype)

    def known(rows: np.ndarray | None) -> np.ndarray | None:
        return None if rows is None else rows[~is_foreign[rows]]

    return dataclasses.replace(
        source,
        info=dataclasses.replace(source.info, class_names=names[:num_classes]),
        train=dataclasses.replace(source.train, labels=relabeled),
        test=_of_classes(source.test, num_classes),
        labeled_rows=known(source.labeled_rows),
        validation_rows=known(source.validation_rows),
    )


def _of_classes(images: Images, num_classes: int) -> Images:
    return images.take(np.flatnonzero(images.labels < num_classes))


def mixed_pool(
    labels: np.ndarray,
    unlabeled: np.ndarray,
    labeled: np.ndarray,
    *,
    foreign_share: float,
    seed: int,
) -> np.ndarray:
    """Chooses an unlabeled pool with a given share of foreign images.

    Pools of all shares have the same size, so that they differ in what is in
    them alone.

    Args:
        labels: `[N]` integers; `FOREIGN` for foreign images.
        unlabeled: rows to choose from.
        labeled: rows that are never chosen: a pool that is wholly foreign has
            no image of a known class.
        foreign_share: 0 ... 1.
        seed: of the choice.

    Returns:
        Sorted rows.

    Raises:
        ValueError: if there is no image to choose of one kind.
    """
    candidates = np.setdiff1d(unlabeled, labeled)
    is_foreign = labels[candidates] == FOREIGN
    foreign, known = candidates[is_foreign], candidates[~is_foreign]
    size = min(len(foreign), len(known))
    if not size:
        raise ValueError(
            "--known_classes: there is no unlabeled image of "
            + ("the other classes." if len(known) else "the known classes.")
        )
    rng = np.random.default_rng([seed, 1804])
    num_foreign = round(foreign_share * size)
    chosen = [
        rng.permutation(foreign)[:num_foreign],
        rng.permutation(known)[: size - num_foreign],
    ]
    return np.sort(np.concatenate(chosen))
