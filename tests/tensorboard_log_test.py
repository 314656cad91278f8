"""Events that TensorBoard can read."""

import numpy as np
import tensorflow as tf

from tests.helpers import tiny_network
from tf_metassl.run import tensorboard_log


def events(folder):
    """`(step, tag)` of every value in a folder of events, in order."""
    (file,) = folder.glob("events.*")
    return [
        (event.step, value.tag)
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]


def test_every_split_has_its_scalars(tmp_path):
    log = tensorboard_log.TensorBoardLog(tmp_path, ("train", "validation"))
    kernel = tiny_network().trainable_variables[0]
    values = {"validation": {"accuracy": 0.5}, "train": {"loss": 1.0}}
    for step in (3, 6):
        log.write(step, values, [kernel])
    board = tmp_path / "tensorboard"
    assert events(board / "validation") == [(3, "accuracy"), (6, "accuracy")]
    assert events(board / "train") == [
        (step, tag) for step in (3, 6) for tag in ("loss", kernel.path)
    ]


def test_only_pictures_are_written(tmp_path):
    def images(channels):
        return tf.constant(np.zeros((4, 6, 6, channels), np.uint8))

    batch = {
        "labeled": {"weak": images(3), "label": tf.zeros([4])},
        "unlabeled": {"strong": images(1), "clean": images(2)},
    }
    tensorboard_log.write_view_images(tmp_path, batch)
    assert events(tmp_path / "tensorboard" / "train") == [
        (0, "labeled/weak"),
        (0, "unlabeled/strong"),
    ]
