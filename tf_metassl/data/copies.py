"""Pairs of images with equal or nearly equal pixels. Imports no TensorFlow."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_metassl.data import patience

# Two images are nearly equal if their thumbnails' cosine similarity is that of
# copies wherever the images come from,
_SURE = 0.995
# or if it is at least this, and the distance at most this share of that to the
# image's neighbor of this rank: digits are more similar than photos. Among
# 3,781 photos of clothes this names 2 pairs, one of them of the same photo, and
# of 400 copies at least 99 % of those that were recompressed (JPEG, quality
# 10), reduced to 60 % or brightened by 20 %, and 90 % of those cropped by 2 %.
_SIMILAR, _SHARE, _NEIGHBOR = 0.9, 0.4, 10
# Numbers in a block of similarities.
_BLOCK = 2**25


class Pair(NamedTuple):
    """Two images that are copies of each other.

    Attributes:
        first: number of an image.
        second: number of a later one.
        similarity: cosine similarity of the thumbnails, 1 for equal pixels.
        exact: whether all pixels are equal.
    """

    first: int
    second: int
    similarity: float
    exact: bool


def find(
    hashes: np.ndarray,
    thumbnails: np.ndarray,
    parts: Sequence[tuple[int, int]],
) -> list[Pair]:
    """The pairs of copies, by blocks of the matrix of similarities.

    An image is paired with one earlier image of each part: one with equal
    pixels, else the most similar one if it is nearly equal.

    Args:
        hashes: `[N]` uint64, equal for equal pixels.
        thumbnails: `[M, F]` float32 of the first `M <= N` images, see
            `features.thumbnails`; the others are compared by their hashes
            alone.
        parts: first number and end of each part; together they are all images.

    Returns:
        The pairs in the order of the later image.
    """
    found = {}
    for number, part in enumerate(parts):
        for first, second in _equal(hashes, *part):
            found[second, number] = Pair(first, second, 1.0, True)
    for pair, number in _nearly_equal(thumbnails, parts):
        found.setdefault((pair.second, number), pair)
    return [found[key] for key in sorted(found)]


def _equal(hashes: np.ndarray, start: int, end: int) -> list[tuple[int, int]]:
    """Later images and the first of `start` ... `end - 1` that they equal."""
    if start == end:
        return []
    values, at = np.unique(hashes[start:end], return_index=True)
    place = np.searchsorted(values, hashes).clip(max=len(values) - 1)
    first = start + at[place]
    later = (values[place] == hashes) & (first < np.arange(len(hashes)))
    second = np.flatnonzero(later)
    return list(zip(first[second].tolist(), second.tolist(), strict=True))


def _nearly_equal(
    thumbnails: np.ndarray, parts: Sequence[tuple[int, int]]
) -> list[tuple[Pair, int]]:
    """The pairs, and the number of the part that their first image is in."""
    total = len(thumbnails)
    rank = min(_NEIGHBOR, total - 1)
    if rank < 1:
        return []
    found = []
    progress = patience.Counter("Comparing images", total)
    step = max(_BLOCK // total, 1)
    for start in range(0, total, step):
        rows = np.arange(start, min(start + step, total))
        similar = thumbnails[rows] @ thumbnails.T
        similar[rows - start, rows] = -1
        radius = _distance(-np.partition(-similar, rank - 1, 1)[:, rank - 1])
        similar[np.arange(total) >= rows[:, None]] = -1
        for number, (begin, end) in enumerate(parts):
            among = similar[:, begin : min(end, total)]
            if not among.shape[1]:
                continue
            best = among.argmax(axis=1)
            value = among[rows - start, best]
            near = (value >= _SIMILAR) & (_distance(value) <= _SHARE * radius)
            for k in np.flatnonzero(near | (value >= _SURE)):
                pair = Pair(
                    begin + int(best[k]),
                    int(rows[k]),
                    min(float(value[k]), 1.0),
                    False,
                )
                found.append((pair, number))
        progress.advance(len(rows))
    return found


def _distance(similarity: np.ndarray) -> np.ndarray:
    """The distance of two vectors of norm 1."""
    return np.sqrt(np.maximum(2 - 2 * similarity, 0))
