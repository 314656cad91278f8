"""Image files for the tests of the user's own images."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from tf_metassl.data import sources
from tf_metassl.data.options import DataOptions


def picture(seed=0, height=8, width=8, channels=3):
    """Smooth, so that a JPEG of it looks like it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (2, 2, channels), np.uint8)
    big = Image.fromarray(small.squeeze()).resize((width, height), 2)
    return np.asarray(big).reshape(height, width, channels)


def encoded(image, kind="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze())
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_classes(place, names=("cat", "dog"), count=5, start=0, **shape):
    for c, name in enumerate(names):
        for i in range(count):
            image = picture(start + 100 * c + i, **shape)
            write(place / name / f"{i}.png", encoded(image))


def write_place(place):
    """Labeled, unlabeled and test images of two classes."""
    write_classes(place / "labeled", count=5)
    write_classes(place / "test", count=2, start=1000)
    write_classes(place / "unlabeled/deep", count=3, start=2000)


def load(place, dataset="folder", run_dir=None, **options):
    dirs = {
        f"{name}_dir": str(place / name)
        for name in ("labeled", "unlabeled", "validation", "test")
        if (place / name).exists() and dataset == "folder"
    }
    options = {"cache_dir": str(place / ".cache"), **dirs, **options}
    return sources.load(dataset, DataOptions(**options), run_dir)


def bad_images(run_dir):
    """`bad_images.csv`: path -> reason."""
    with open(run_dir / "bad_images.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "reason"]
    return dict(rows[1:])


def fails(place, message, **options):
    with pytest.raises(ValueError, match=message):
        load(place, **options)
