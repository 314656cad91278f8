"""Pixel statistics with which a network's first layer scales its input.

They are computed once, from all training images, labeled or not.
"""

import io
import pathlib
import zipfile

import numpy as np
from absl import logging

from tf_metassl import files
from tf_metassl.data.datasets import DATASETS

# Whitening multiplies with a matrix of the square of this many numbers.
LARGEST_WHITENED = 4096
_CHUNK = 4096


def _chunks(images):
    """Pixels in 0...1, `[n, H * W * C]` float64 at a time."""
    for start in range(0, len(images), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(images)))
        pixels = images.read(rows)
        yield pixels.reshape(len(pixels), -1) / 255.0


def channel_statistics(images):
    """Mean and standard deviation of each channel.

    Args:
        images: a `tf_metassl.data.store.Images`.

    Returns:
        `mean [C]` and `std [C]` float64, on a scale of 0...1.

    Raises:
        ValueError: if a channel has the same value everywhere.
    """
    channels = images.shape[2]
    count, total, squares = 0, 0.0, 0.0
    for chunk in _chunks(images):
        pixels = chunk.reshape(-1, channels)
        count += len(pixels)
        total = total + pixels.sum(0)
        squares = squares + (pixels**2).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    if not std.min() > 1e-6:
        raise ValueError(
            "--normalization=mean_std: a channel of the training images has "
            "the same value everywhere; use --normalization=unit."
        )
    return mean, std


def whitening(images, epsilon=1e-5):
    """ZCA: the linear map that makes all pixels uncorrelated.

    (x - mean) U diag(1 / sqrt(eigenvalue + epsilon)) U^T, with eigenvectors
    and eigenvalues of the covariance of pixels in 0...1; the epsilon of the
    code of Temporal Ensembling (arXiv 1610.02242). Papers whiten images before
    they augment them; here the network whitens the augmented images.

    Args:
        images: a `tf_metassl.data.store.Images`.
        epsilon: added to the eigenvalues.

    Returns:
        `mean [D]` and `matrix [D, D]` float32, D = H * W * C.

    Raises:
        ValueError: if D is too large.
    """
    size = int(np.prod(images.shape))
    if size > LARGEST_WHITENED:
        raise ValueError(
            f"--normalization=zca needs a {size} x {size} matrix for images of "
            f" {'x'.join(map(str, images.shape))}, more than "
            f"{LARGEST_WHITENED} x {LARGEST_WHITENED}: lower --image_size or "
            "use --normalization=mean_std."
        )
    total = sum(chunk.sum(0) for chunk in _chunks(images))
    mean = total / len(images)
    covariance = np.zeros([size, size])
    for chunk in _chunks(images):
        centered = chunk - mean
        covariance += centered.T @ centered
    values, vectors = np.linalg.eigh(covariance / len(images))
    scale = 1.0 / np.sqrt(np.maximum(values, 0.0) + epsilon)
    matrix = (vectors * scale) @ vectors.T
    return mean.astype(np.float32), matrix.astype(np.float32)


def _read(path, names):
    """The arrays in an `.npz` file; None if it is damaged."""
    try:
        with np.load(path) as file:
            return [file[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        logging.warning(
            "%s is damaged; it is computed again from the training images.",
            path,
        )
        return None


def scaling(kind, dataset, images, path=None):
    """Returns the arguments of `tf_metassl.models.build` that scale pixels.

    Args:
        kind: value of `--normalization`.
        dataset: name of the dataset.
        images: its training images, a `tf_metassl.data.store.Images`; None if
            they are not at hand.
        path: `.npz` file of computed values; it is read if it exists, else
            written. None: neither.

    Returns:
        A dict, empty for `unit`.

    Raises:
        ValueError: if it has to be computed and there are no images.
    """
    if kind == "unit":
        return {}
    known = dataset in DATASETS and DATASETS[dataset].pixel_statistics
    if kind == "mean_std" and known:
        mean, std = known
        return {"mean": mean, "std": std}
    names = ("mean", "std") if kind == "mean_std" else ("mean", "matrix")
    path = path and pathlib.Path(path)
    values = _read(path, names) if path and path.exists() else None
    if values is None and images is None:
        raise ValueError(
            f"{path} is missing or damaged, and the training images are "
            "needed to compute it again: run the training command again."
        )
    if values is None:
        compute = channel_statistics if kind == "mean_std" else whitening
        values = compute(images)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            archive = io.BytesIO()
            np.savez(archive, **dict(zip(names, values, strict=True)))
            files.write_bytes(path, archive.getbuffer())
    if kind == "mean_std":
        mean, std = (tuple(map(float, value)) for value in values)
        return {"mean": mean, "std": std}
    return {"whitening": tuple(values)}
