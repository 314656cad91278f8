"""Vectors that describe images, without a trained network.

A pretrained network can take the place of `features`: whatever maps images
`[N, H, W, C]` to rows `[N, F]`. Imports no TensorFlow.
"""

from collections.abc import Callable

import numpy as np

# Images `[N, H, W, C]` uint8 -> `[N, F]` float32.
Features = Callable[[np.ndarray], np.ndarray]

# Pixels on a side of the thumbnails that copies are found by.
_THUMBNAIL = 16
# Pixels on a side of the picture that edges are taken from, cells on a side
# that they are counted in, and directions that are told apart.
_EDGES, _CELLS, _DIRECTIONS = 32, 8, 8
_COLORS = 8
# Contrast, as a norm of a thumbnail, below which an image is empty.
_FLAT = 1e-3


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Averages the pixels of areas.

    Args:
        images: `[N, H, W, C]` numbers.
        size: largest height and width of the result. Smaller sides are kept.

    Returns:
        `[N, min(H, size), min(W, size), C]` float32.
    """
    rows, columns = (_areas(n, min(n, size)) for n in images.shape[1:3])
    images = np.asarray(images, np.float32)
    images = np.moveaxis(np.tensordot(rows, images, (1, 1)), 0, 1)
    return np.moveaxis(np.tensordot(columns, images, (1, 2)), 0, 2)


def _areas(before: int, after: int) -> np.ndarray:
    """`[after, before]` weights that average `before / after` pixels each."""
    edges = np.linspace(0, before, after + 1)
    left = np.arange(before)
    shared = np.minimum(edges[1:, None], left + 1) - np.maximum(
        edges[:-1, None], left
    )
    return (np.maximum(shared, 0) * after / before).astype(np.float32)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Small gray images without brightness and contrast.

    The product of two rows is the cosine similarity of the images.

    Args:
        images: `[N, H, W, C]` uint8.

    Returns:
        `[N, F]` float32, F at most 256. Rows have the norm 1; those of images
        of one color are 0.
    """
    gray = resized(images, _THUMBNAIL).mean(-1).reshape(len(images), -1)
    return _normalized(gray - gray.mean(1, keepdims=True))


def _normalized(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > _FLAT, rows / np.maximum(norms, _FLAT), 0)


def features(images: np.ndarray) -> np.ndarray:
    """Colors, and directions of edges, in the cells of a grid.

    The edges are histograms of oriented gradients (Dalal and Triggs, 2005),
    normalized over the whole image.

    Args:
        images: `[N, H, W, C]` uint8.

    Returns:
        `[N, F]` float32.
    """
    colors = resized(images, _COLORS).reshape(len(images), -1) / 255
    gray = resized(images, _EDGES).mean(-1)
    return np.concatenate([colors, _edges(gray)], axis=1)


def _edges(gray: np.ndarray) -> np.ndarray:
    """`[N, H, W]` -> `[N, F]`, square roots of shares of the gradients."""
    number, height, width = gray.shape
    if min(height, width) < 2:
        return np.zeros((number, 0), np.float32)
    down, right = np.gradient(gray, axis=(1, 2))
    strength = np.hypot(down, right)
    # Opposite directions are the same edge.
    position = np.arctan2(down, right) / np.pi % 1 * _DIRECTIONS
    lower = np.floor(position)
    found = np.zeros((*gray.shape, _DIRECTIONS), np.float32)
    for k in range(_DIRECTIONS):
        share = (lower % _DIRECTIONS == k) * (1 - position + lower)
        share += ((lower + 1) % _DIRECTIONS == k) * (position - lower)
        found[..., k] = strength * share
    cells = resized(found, _CELLS).reshape(number, -1)
    total = cells.sum(axis=1, keepdims=True)
    return np.sqrt(cells / np.maximum(total, _FLAT))
