"""Labels of ImageNet-ReaL: a set of classes for each test image.

Source: Beyer et al., arXiv 2006.07159. A prediction is right if it is among the
image's classes; images without a class do not count.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from tf_metassl.errors import ConfigError

Labels = list[list[int]]


def read(path: str, num_images: int, num_classes: int) -> Labels:
    """Reads a file such as the published `real.json`.

    Args:
        path: a JSON list with a list of classes for each test image, in the
            order of the test images; for ImageNet that of the file names, as
            published.
        num_images: of the test split.
        num_classes: C.

    Returns:
        The classes of each image.

    Raises:
        ConfigError: if it cannot be read, or belongs to other images.
    """
    where = f"--real_labels={path}"
    try:
        found = json.loads(pathlib.Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {error}.") from error
    if not isinstance(found, list) or len(found) != num_images:
        count = f"{len(found)}" if isinstance(found, list) else "no list"
        raise ConfigError(
            f"{where}: expected a list with an entry for each of {num_images} "
            f"test images, got {count}."
        )
    for row, labels in enumerate(found):
        fits = isinstance(labels, list) and all(
            type(label) is int and 0 <= label < num_classes for label in labels
        )
        if not fits:
            raise ConfigError(
                f"{where}: entry {row} is {str(labels)[:60]}; expected a list "
                f"of classes in 0...{num_classes - 1}, empty if there is none."
            )
    if not any(found):
        raise ConfigError(f"{where}: no image has a label.")
    return found


def precision(labels: Labels, predicted: Sequence[int] | np.ndarray) -> float:
    """The share of the predictions that is among the labels.

    Args:
        labels: the classes of each image; images without any do not count.
        predicted: `[N]` integers, one for each image.
    """
    right = [
        int(guess) in of
        for of, guess in zip(labels, predicted, strict=True)
        if of
    ]
    return float(np.mean(right))
