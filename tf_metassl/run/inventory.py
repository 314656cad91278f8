"""All images of a training, one after another, and where they are from."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np

from tf_metassl.config import Config
from tf_metassl.data import image_files, patience
from tf_metassl.data.features import Features
from tf_metassl.data.splits import Splits
from tf_metassl.data.store import Images, Source

# In the order in which copies are named: an image that measures comes first.
SPLITS = ("test", "validation", "labeled", "unlabeled")
# Images that are described at a time.
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Inventory:
    """All images of a training, one after another.

    Attributes:
        source: the `Source` that they are from.
        split: `[N]` index into `SPLITS`, ascending.
        row: `[N]` row in the source's test images, or in its training images.
        label: `[N]` label that a training may read or is measured by; -1 for
            unlabeled images.
        folders: function of the name of a split and of whether the label is
            known; returns the folders in which a file may be.
    """

    source: Source
    split: np.ndarray
    row: np.ndarray
    label: np.ndarray
    folders: Callable[[str, bool], Sequence[str]]

    def __len__(self) -> int:
        return len(self.row)

    def images_of(self, split: str) -> Images:
        """The images that the rows of a split number."""
        return self.source.test if split == "test" else self.source.train

    def part(self, split: str) -> tuple[int, int]:
        """The number of the first image of a split, and the end."""
        start, end = np.searchsorted(
            self.split, [SPLITS.index(split), SPLITS.index(split) + 1]
        )
        return int(start), int(end)

    def read(self, index: np.ndarray) -> np.ndarray:
        """The pixels of images, `[n, H, W, C]` uint8."""
        shape = (len(index), *self.source.train.shape)
        pixels = np.zeros(shape, np.uint8)
        for number, split in enumerate(SPLITS):
            here = np.flatnonzero(self.split[index] == number)
            if len(here):
                rows = self.row[index[here]]
                pixels[here] = self.images_of(split).read(rows)
        return pixels

    def hashes(self) -> np.ndarray:
        """`[N]` uint64, equal for equal pixels."""
        parts = [
            self.images_of(split).content_hashes(self.row[slice(*part)])
            for split, part in ((s, self.part(s)) for s in SPLITS)
        ]
        return np.concatenate(parts)

    def described(self, index: np.ndarray, describe: Features) -> np.ndarray:
        """`[n, F]` rows of `describe`, which sees some images at a time."""
        progress = patience.Counter("Looking at images", len(index))
        found = []
        for start in range(0, max(len(index), 1), _CHUNK):
            chunk = index[start : start + _CHUNK]
            found.append(describe(self.read(chunk)))
            progress.advance(len(chunk))
        return np.concatenate(found)

    def path(self, number: int) -> str:
        """The file of an image, or the name it has; empty if it has none."""
        split, row = SPLITS[self.split[number]], self.row[number]
        images = self.images_of(split)
        if images.ids is None:
            return ""
        name = images.ids[row].decode("utf-8", "surrogateescape")
        for place in self.folders(split, images.labels[row] >= 0):
            path = os.path.join(place, name)
            if os.path.exists(path):
                return path
        return name

    def name(self, number: int) -> str:
        """The path of an image, or its row."""
        row = self.row[number]
        of = "test" if self.split[number] == 0 else "training"
        return self.path(number) or f"row {row} of the {of} images"

    def class_name(self, label: int) -> str:
        """The name of a class; empty for -1."""
        return self.source.info.class_names[label] if label >= 0 else ""


def of_source(config: Config, source: Source, rows: Splits) -> Inventory:
    """Lists all images, each once.

    Args:
        config: a `Config`, which says where files are.
        source: the `Source`.
        rows: the `Splits` of its training images.
    """
    parts = {
        "test": np.arange(len(source.test)),
        "validation": rows.validation,
        "labeled": rows.labeled,
        "unlabeled": np.setdiff1d(rows.unlabeled, rows.labeled),
    }
    labels = [
        np.full(len(of), -1)
        if split == "unlabeled"
        else (source.test if split == "test" else source.train).labels[of]
        for split, of in parts.items()
    ]
    sizes = [len(parts[split]) for split in SPLITS]

    config, _ = image_files.recognized(config)
    unlabeled = ""
    if config.unlabeled_dir:
        unlabeled = str(image_files.unlabeled_folders(config)[0])

    def folders(split: str, known: bool) -> Sequence[str]:
        if config.manifest:
            return [os.path.dirname(config.manifest)]
        own = {
            "test": [config.test_dir],
            "validation": [config.validation_dir],
            "unlabeled": [] if known else [unlabeled],
        }
        return [p for p in (*own.get(split, ()), config.labeled_dir) if p]

    return Inventory(
        source,
        np.repeat(np.arange(len(SPLITS)), sizes),
        np.concatenate([parts[split] for split in SPLITS]).astype(np.int64),
        np.concatenate(labels).astype(np.int64),
        folders,
    )
