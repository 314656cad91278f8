"""Writes digits and small pictures of clothes as one dataset of 20 classes.

    python tools/mixed_corpora.py --data_dir=DIR --out=pools

With `--array_file=pools/digits_and_clothes.npz --known_classes=10`, the digits
are learned, and `--foreign_share` of the unlabeled pool are clothes: images of
another corpus, for the table `pools` of tools/reproduce_table.py. The digits
and their test images are those of `--dataset=digits`; the clothes are images of
Fashion-MNIST, as many, which DIR holds as tensorflow-datasets prepares it, at 8
x 8 pixels.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tf_metassl.data import sources  # noqa: E402
from tf_metassl.data.options import DataOptions  # noqa: E402

SIDE = 8


def small(images):
    """`[N, H, W, 1]` uint8 -> `[N, SIDE, SIDE, 1]`, each pixel a mean."""
    return np.stack(
        [
            np.asarray(
                Image.fromarray(image[..., 0]).resize(
                    (SIDE, SIDE), Image.Resampling.BOX
                )
            )
            for image in images
        ]
    )[..., np.newaxis]


def mixed(digits, clothes):
    """The arrays of both corpora, with the classes of `clothes` as 10 to 19.

    Args:
        digits: a `Source` of `[N, SIDE, SIDE, 1]` images.
        clothes: a `Source` of larger gray images.

    Returns:
        Name -> array, as `--array_file` reads them: the training images of
        both, as many of each, and the test images of the digits.
    """
    count = len(digits.train.labels)
    order = np.random.default_rng(0).permutation(len(clothes.train.labels))
    chosen = np.sort(order[:count])
    names = [*digits.info.class_names, *clothes.info.class_names]
    return {
        "x_train": np.concatenate(
            [digits.train.images, small(clothes.train.images[chosen])]
        ),
        "y_train": np.concatenate(
            [digits.train.labels, 10 + clothes.train.labels[chosen]]
        ),
        "x_test": digits.test.images,
        "y_test": digits.test.labels,
        "class_names": np.array(names),
    }


def main(_):
    """Loads both corpora and writes the file."""
    options = DataOptions(data_dir=flags.FLAGS.data_dir)
    arrays = mixed(
        sources.load("digits", options), sources.load("fashion_mnist", options)
    )
    folder = pathlib.Path(flags.FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "digits_and_clothes.npz", **arrays)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "Folder of tensorflow-datasets.")
    flags.DEFINE_string("out", "pools", "Folder of the file.")
    app.run(main)
