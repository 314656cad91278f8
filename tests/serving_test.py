"""Exports: what they answer, and what happens if they fail."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import IMAGE_SHAPE, tiny_network
from tf_metassl.errors import ExportError, WriteError
from tf_metassl.run import serving

NAMES = ("cat", "dog", "eel")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, *IMAGE_SHAPE), np.uint8)


def test_the_signature(tmp_path, images):
    network = tiny_network()
    folder = tmp_path / "export" / "1"
    serving.export_saved_model(network, NAMES, folder, examples=images)
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    # Any number of images.
    for count in (1, 5):
        served = serve(image=tf.constant(images[:count]))
        logits = network(images[:count], training=False)
        np.testing.assert_allclose(
            served["probabilities"], tf.nn.softmax(logits), atol=1e-5
        )
        rows = np.argmax(logits, -1)
        np.testing.assert_array_equal(served["class_id"], rows)
        assert served["class_id"].dtype == tf.int32
        names = [name.decode() for name in served["class_name"].numpy()]
        assert names == [NAMES[row] for row in rows]


def test_an_export_replaces_an_older_one(tmp_path, images):
    for filters in (3, 4):
        network = tiny_network(filters=filters)
        serving.export_saved_model(
            network, NAMES, tmp_path / "1", examples=images
        )
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
    serving.check_saved_model(tmp_path / "1", network, images)
    with pytest.raises(ExportError, match="differs from the network"):
        serving.check_saved_model(tmp_path / "1", tiny_network("b"), images)


@pytest.mark.parametrize(
    "failure, error, words",
    [
        (OSError(28, "No space left on device"), WriteError, "No space left"),
        (
            tf.errors.ResourceExhaustedError(None, None, "disk is full"),
            WriteError,
            "disk is full.*--output",
        ),
        (ExportError("The SavedModel differs"), ExportError, "differs"),
    ],
)
def test_an_export_that_fails_leaves_the_older_one(
    tmp_path, images, monkeypatch, failure, error, words
):
    network = tiny_network()
    folder = tmp_path / "1"
    serving.export_saved_model(network, NAMES, folder, examples=images)

    def fail(*_, **__):
        raise failure

    if error is ExportError:
        monkeypatch.setattr(serving, "check_saved_model", fail)
    else:
        monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(error, match=words):
        serving.export_saved_model(network, NAMES, folder, examples=images)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    serving.check_saved_model(folder, network, images)
