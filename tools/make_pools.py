"""Writes the datasets that the table `pools` of tools/reproduce_table.py needs.

    python tools/make_pools.py --data_dir=DIR --out=pools

The images are those of --dataset=digits, and of CIFAR-10 and Fashion-MNIST,
which DIR holds as tensorflow-datasets prepares them. Each file is an
`--array_file` whose first classes are learned, `--known_classes`, so that
`--foreign_share` of the unlabeled pool can be of the others:

- digits_and_clothes.npz: the digits, and as many images of Fashion-MNIST, at 8
  x 8 pixels.
- animals_first.npz: CIFAR-10 at 16 x 16 pixels, its six animals first.

With --human_labels=FILE, the archive of CIFAR-10N (arXiv 2110.12088), there is
also

- human_labels.npz: CIFAR-10 at 16 x 16 pixels; the labels of its training
  images are `cifar10n_worse_label`, two in five of which are wrong.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tf_metassl.data import sources  # noqa: E402
from tf_metassl.data.options import DataOptions  # noqa: E402

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
HUMAN = "cifar10n_worse_label"


def small(images, side):
    """`[N, H, W, C]` uint8 -> `[N, side, side, C]`, each pixel a mean."""

    def resized(image):
        # Pillow's gray images have no axis of channels.
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        return image.resize((side, side), Image.Resampling.BOX)

    shape = (len(images), side, side, images.shape[3])
    return np.stack([np.asarray(resized(i)) for i in images]).reshape(shape)


def mixed(digits, clothes):
    """The arrays of both corpora, with the classes of `clothes` as 10 to 19.

    Args:
        digits: a `Source` of small gray images.
        clothes: a `Source` of larger gray images.

    Returns:
        Name -> array, as `--array_file` reads them: the training images of
        both, as many of each, and the test images of the digits.
    """
    count = len(digits.train.labels)
    order = np.random.default_rng(0).permutation(len(clothes.train.labels))
    chosen = np.sort(order[:count])
    side = digits.info.image_shape[0]
    return {
        "x_train": np.concatenate(
            [digits.train.images, small(clothes.train.images[chosen], side)]
        ),
        "y_train": np.concatenate(
            [digits.train.labels, 10 + clothes.train.labels[chosen]]
        ),
        "x_test": digits.test.images,
        "y_test": digits.test.labels,
        "class_names": np.array(
            [*digits.info.class_names, *clothes.info.class_names]
        ),
    }


def reordered(source, first, side):
    """The arrays of a corpus, with other indices for its classes.

    Args:
        source: a `Source`.
        first: names of the classes that have the indices 0, 1, ...
        side: height and width of the images.

    Returns:
        Name -> array, as of `mixed`.
    """
    names = source.info.class_names
    names = [*first, *(name for name in names if name not in first)]
    index = np.array([names.index(name) for name in source.info.class_names])
    return {
        "x_train": small(source.train.images, side),
        "y_train": index[source.train.labels],
        "x_test": small(source.test.images, side),
        "y_test": index[source.test.labels],
        "class_names": np.array(names),
    }


def relabeled(arrays, labels):
    """The same arrays with the training labels that people have given.

    Args:
        arrays: of `reordered`.
        labels: `[N]` the labels, in the order of CIFAR-10's own files, which
            is also that of `tf_metassl`.

    Raises:
        ValueError: if most labels are wrong, as with another order.
    """
    found = labels.astype(arrays["y_train"].dtype)
    agree = np.mean(found == arrays["y_train"])
    if agree < 0.5:
        raise ValueError(
            f"{agree:.0%} of the labels of people are right; expected 60 %. "
            "They are not in the order of the images."
        )
    return {**arrays, "y_train": found}


def main(_):
    """Loads the corpora and writes the files."""
    values = flags.FLAGS
    options = DataOptions(data_dir=values.data_dir)
    cifar_10 = sources.load("cifar10", options)
    found = {
        "digits_and_clothes": mixed(
            sources.load("digits", options),
            sources.load("fashion_mnist", options),
        ),
        "animals_first": reordered(cifar_10, ANIMALS, 16),
    }
    if values.human_labels:
        found["human_labels"] = relabeled(
            reordered(cifar_10, (), 16),
            np.load(values.human_labels)[HUMAN],
        )
    folder = pathlib.Path(values.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in found.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "Folder of tensorflow-datasets.")
    flags.DEFINE_string("human_labels", "", "The archive of CIFAR-10N.")
    flags.DEFINE_string("out", "pools", "Folder of the files.")
    app.run(main)
