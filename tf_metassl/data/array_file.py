"""Images in one file of arrays: `.npz`, or the idx files of MNIST."""

import gzip
import pathlib
import zipfile

import numpy as np

from tf_metassl.data import arrays
from tf_metassl.errors import ConfigError

# Part -> the names that its images and labels may have.
_NAMES = {
    "labeled": (("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_UNLABELED = ("x_unlabeled", "unlabeled_images")
_CLASS_NAMES = "class_names"
# Part -> the beginnings of the names of its idx files.
_IDX = {"labeled": ("train",), "test": ("t10k", "test")}
# The code of a type in an idx file -> the type; images and labels have the
# first.
_IDX_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
}


def load(name, dataset, options, run_dir=None):
    """Loads `--array_file`.

    Args:
        name: of the dataset.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
        options: with `array_file` and `test_fraction`.
        run_dir: not used.

    Returns:
        A `Source`.

    Raises:
        ConfigError: if the file cannot be read or its arrays cannot be used.
    """
    del name, run_dir
    if not options.array_file:
        raise ConfigError(
            "--dataset=array_file needs --array_file, an .npz file or a folder "
            "of idx files."
        )
    path = pathlib.Path(options.array_file).expanduser()
    try:
        found = _of_idx(path) if path.is_dir() else _of_npz(path)
    except ConfigError as error:
        raise ConfigError(f"--array_file={path}: {error}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"--array_file={path} cannot be read: {error}. Expected an .npz "
            "file without pickled objects, or a folder of idx files."
        ) from error
    try:
        return arrays.source(
            dataset, **found, test_fraction=options.test_fraction
        )
    except ConfigError as error:
        raise ConfigError(f"--array_file={path}: {error}") from error


def _of_npz(path):
    """The arguments of `arrays.source` from an `.npz` file."""
    file = np.load(path, allow_pickle=False)
    if isinstance(file, np.ndarray):
        raise ConfigError("expected several arrays, as np.savez writes.")
    with file:
        found = {}
        known = {_CLASS_NAMES, *_UNLABELED}
        for part, names in _NAMES.items():
            for images, labels in names:
                known |= {images, labels}
                if images in file.files and labels in file.files:
                    # Labels may be a column.
                    column = file[labels]
                    flat = column.reshape(-1) if column.ndim == 2 else column
                    found[part] = file[images], flat
        for name in _UNLABELED:
            if name in file.files:
                found["unlabeled"] = file[name]
        if _CLASS_NAMES in file.files:
            found[_CLASS_NAMES] = [str(text) for text in file[_CLASS_NAMES]]
        unknown = sorted(set(file.files) - known)
    if "labeled" not in found or unknown:
        raise ConfigError(
            "expected x_train and y_train, or train_images and train_labels, "
            "and perhaps x_val, y_val, x_test, y_test, x_unlabeled and "
            "class_names"
            + (f"; got {', '.join(unknown)} as well." if unknown else ".")
        )
    return found


def _of_idx(folder):
    """The arguments of `arrays.source` from a folder of idx files."""
    found = {}
    for part, beginnings in _IDX.items():
        pair = []
        for kind in ("images", "labels"):
            paths = sorted(
                path
                for beginning in beginnings
                for path in folder.glob(f"{beginning}*{kind}*idx*")
            )
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                raise ConfigError(f"expected one file of {kind}, got {names}.")
            pair += [read_idx(path) for path in paths]
        if len(pair) == 2:
            found[part] = tuple(pair)
    if "labeled" not in found:
        raise ConfigError(
            "expected files such as train-images-idx3-ubyte and "
            "train-labels-idx1-ubyte, perhaps with .gz, in this folder."
        )
    return found


def read_idx(path):
    """The array of an idx file, the format of MNIST.

    Args:
        path: of the file, perhaps compressed by gzip (`.gz`).

    Raises:
        ConfigError: if it is no such file.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        data = file.read()
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise ConfigError(f"{path.name} is no idx file of integers.")
    start = 4 + 4 * data[3]
    shape = np.frombuffer(data[4:start], ">u4").astype(np.int64)
    values = np.frombuffer(data[start:], _IDX_TYPES[data[2]])
    if len(shape) != data[3] or values.size != np.prod(shape):
        raise ConfigError(
            f"{path.name} has {values.size} numbers; its header says "
            f"{' x '.join(map(str, shape))}. Get the file again."
        )
    return values.astype(values.dtype.newbyteorder("=")).reshape(shape)
