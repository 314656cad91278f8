"""Groups of images, such as those of one patient, that must not be divided."""

import numpy as np


def choose(
    groups: np.ndarray,
    labels: np.ndarray,
    wanted: np.ndarray,
    order: np.ndarray,
) -> np.ndarray:
    """Whole groups that have about as many images of each class as wanted.

    The groups are taken in turn. One is chosen if that brings the numbers of
    images closer to what is wanted, summed over the classes, and leaves every
    class an image. The numbers are missed by about half a group of each class.

    Args:
        groups: `[N]` integers, the group of each image.
        labels: `[N]` integers, negative where unknown: such images go with
            their group and do not count.
        wanted: `[C]` numbers of images of each class.
        order: the groups to choose from.

    Returns:
        `[N]` bool, true for the images of the chosen groups.
    """
    known = labels >= 0
    left = np.bincount(labels[known], minlength=len(wanted))
    lacking = np.asarray(wanted).astype(np.int64)
    by_group = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_group], order)
    ends = np.searchsorted(groups[by_group], order, side="right")
    chosen = []
    for group, start, end in zip(order, starts, ends, strict=True):
        own = labels[by_group[start:end]]
        classes, counts = np.unique(own[own >= 0], return_counts=True)
        before = np.abs(lacking[classes]).sum()
        after = np.abs(lacking[classes] - counts).sum()
        if after < before and np.all(left[classes] > counts):
            lacking[classes] -= counts
            left[classes] -= counts
            chosen.append(group)
    return np.isin(groups, chosen)


def check_share(chosen: int, wanted: int, part: str, remedy: str) -> None:
    """Checks that whole groups come to about as many images as wanted.

    Args:
        chosen: how many images they have.
        wanted: how many were asked for.
        part: what the images are for, such as `validation`.
        remedy: what the user can do.

    Raises:
        ValueError: if it is less than half or more than one and a half times
            as many.
    """
    if not wanted / 2 <= chosen <= 1.5 * wanted:
        raise ValueError(
            f"--group_by: {wanted} {part} images were asked for, and whole "
            f"groups come to {chosen}, because the groups are too large or "
            f"hold all images of a class. {remedy}"
        )
