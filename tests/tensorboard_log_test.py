"""Events that TensorBoard can read."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.helpers import tiny_network
from tf_metassl.errors import WriteError
from tf_metassl.run import tensorboard_log
from tf_metassl.run.panels import Mistake, Panels, Pool


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
        (step, tag)
        for step in (3, 6)
        for tag in ("loss", f"weights/{kernel.path}")
    ]


def test_counts_are_a_histogram(tmp_path):
    log = tensorboard_log.TensorBoardLog(tmp_path, ("train",))
    edges, counts = np.array([0, 0.5, 1]), np.array([3, 4])
    log.write(1, {}, [], [("example_weight", edges, counts)])
    (file,) = (tmp_path / "tensorboard" / "train").glob("events.*")
    *_, event = tf.compat.v1.train.summary_iterator(str(file))
    (value,) = event.summary.value
    assert value.tag == "example_weight"
    assert value.metadata.plugin_data.plugin_name == "histograms"
    bars = tf.make_ndarray(value.tensor)
    np.testing.assert_array_equal(bars, [[0, 0.5, 3], [0.5, 1, 4]])


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


def test_a_finished_run_is_a_row_of_hparams(tmp_path):
    settings = {"algo": "uda", "learning_rate": 0.1, "remat": False, "x": None}
    png = tmp_path / "confusion_matrix.png"
    for accuracy in (0.25, 0.5):  # The second run of the command replaces it.
        tensorboard_log.write_result(
            tmp_path, settings, {"test_accuracy": accuracy}, png, Panels()
        )
    folder = tmp_path / "tensorboard" / "result"
    (file,) = folder.glob("events.*")
    found = {
        value.tag: value
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert tf.make_ndarray(found["result/test_accuracy"].tensor) == 0.5
    start = found["_hparams_/session_start_info"].metadata.plugin_data
    data = plugin_data_pb2.HParamsPluginData.FromString(start.content)
    hparams = data.session_start_info.hparams
    assert hparams["algo"].string_value == "uda"
    assert hparams["learning_rate"].number_value == 0.1
    assert hparams["remat"].bool_value is False and "x" not in hparams
    assert "result/confusion_matrix" not in found
    png.write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy())
    tensorboard_log.write_result(tmp_path, settings, {}, png, Panels())
    assert (0, "result/confusion_matrix") in events(folder)


def test_confidences_and_mistakes_of_a_finished_run(tmp_path):
    dark, light = np.zeros((8, 6, 1), np.uint8), np.full((8, 6, 1), 255)
    panels = Panels(
        mistakes=[
            Mistake(pixels.astype(np.uint8), "a", "b", 0.9)
            for pixels in (dark, light)
        ],
        pool=Pool(np.array([0.25, 0.75]), [], np.zeros(20, int), []),
    )
    png = tmp_path / "none.png"
    tensorboard_log.write_result(tmp_path, {}, {}, png, panels)
    folder = tmp_path / "tensorboard" / "result"
    assert {(0, "result/confidence"), (0, "result/mistakes")} <= set(
        events(folder)
    )
    (file,) = folder.glob("events.*")
    found = {
        value.tag: tf.make_ndarray(value.tensor)
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag.startswith("result/")
    }
    assert found["result/confidence"][:, 2].sum() == 2
    # Side by side, and eight times as large.
    picture = tf.io.decode_png(found["result/mistakes"][2]).numpy()
    assert picture.shape == (64, 96, 1)
    assert picture[:, :48].max() == 0 and picture[:, 48:].min() == 255


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("a file is in the way")
    batch = {"labeled": {"weak": tf.zeros([2, 4, 4, 3], tf.uint8)}}
    for write in (
        lambda: tensorboard_log.write_view_images(tmp_path, batch),
        lambda: tensorboard_log.TensorBoardLog(tmp_path, ("train",)),
    ):
        with pytest.raises(WriteError, match="log of TensorBoard cannot be"):
            write()


def test_a_full_disk_at_the_view_images_is_a_message(tmp_path, monkeypatch):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "disk is full")

    monkeypatch.setattr(tf.summary, "image", full)
    batch = {"labeled": {"weak": np.zeros([2, 4, 4, 3], np.uint8)}}
    batch = tf.nest.map_structure(tf.constant, batch)
    with pytest.raises(WriteError, match="disk is full.*free space"):
        tensorboard_log.write_view_images(tmp_path, batch)
