"""Picture files of any origin, decoded as those of a training are."""

import dataclasses
import glob
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tf_metassl.data import image_ops, patience
from tf_metassl.data.decode import FULL_RANGE
from tf_metassl.data.folder import reader
from tf_metassl.data.image_files import ImageFile, walk
from tf_metassl.data.options import DataOptions
from tf_metassl.errors import UserError

_CHUNK = 256
_NOTHING = np.zeros((0, 0, 0), np.uint8)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a picture becomes the input of a network.

    Attributes:
        image_shape: height, width and channels of the input.
        stored_size: height and width to which pictures are resized before the
            center is cut out; 0: pictures must have the size of the input.
        max_value: see `--max_value`.
        resize: see `--resize`.
    """

    image_shape: tuple[int, int, int]
    stored_size: int
    max_value: int = FULL_RANGE
    resize: str = "shorter_side"

    def options(self) -> DataOptions:
        """The settings with which training decodes a file in this way."""
        return DataOptions(
            image_size=self.stored_size,
            channels=self.image_shape[2],
            max_value=self.max_value,
            resize=self.resize,
        )


class Picture(NamedTuple):
    """A file, and its pixels or why there are none.

    Attributes:
        path: of the file.
        pixels: `[H, W, C]` uint8; empty with a problem.
        problem: empty if there are pixels.
    """

    path: pathlib.Path
    pixels: np.ndarray
    problem: str = ""


def find(places: Sequence[str]) -> list[pathlib.Path]:
    """The files that a user names.

    Args:
        places: files, folders, whose files are taken in the order of their
            names with those of sub-folders, and patterns with `*`.

    Returns:
        The files, in the order of the places.

    Raises:
        UserError: if a place does not exist or has no file.
    """
    found: list[pathlib.Path] = []
    for place in places:
        path = pathlib.Path(place).expanduser()
        paths = [path]
        if not path.exists() and glob.has_magic(place):
            paths = [pathlib.Path(p) for p in sorted(glob.glob(str(path)))]
        elif not path.exists():
            raise UserError(f"--images={place}: no such file or folder.")
        files = [
            file
            for path in paths
            for file in (walk(path) if path.is_dir() else [path])
        ]
        if not files:
            raise UserError(f"--images={place}: there is no file.")
        found += files
    return found


def read(
    paths: Sequence[pathlib.Path], decoding: Decoding
) -> Iterator[list[Picture]]:
    """Decodes files in several threads, in order.

    Args:
        paths: of the files.
        decoding: a `Decoding`.

    Yields:
        Lists of up to 256 `Picture`s.
    """
    options = decoding.options()
    progress = patience.Counter("Images", len(paths))
    with reader(options) as (read_file, pool):

        def picture(path: pathlib.Path) -> Picture:
            pixels = read_file(ImageFile(path, str(path), -1, "test"))
            if isinstance(pixels, str):
                return Picture(path, _NOTHING, pixels)
            return _cut(Picture(path, pixels), decoding)

        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            yield list(pool.map(picture, chunk))
            progress.advance(len(chunk))


def _cut(picture: Picture, decoding: Decoding) -> Picture:
    """The center of the picture, in the size of the network's input."""
    height, width, _ = decoding.image_shape
    size = picture.pixels.shape[:2]
    if size == (height, width):
        return picture
    if not decoding.stored_size:
        return Picture(
            picture.path,
            _NOTHING,
            f"{size[0]}x{size[1]} pixels, and the network takes "
            f"{height}x{width}",
        )
    center = image_ops.center_crop(picture.pixels[np.newaxis], height, width)
    return picture._replace(pixels=center[0])
