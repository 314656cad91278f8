"""Exports: what they answer, and what happens if they fail."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tests.helpers import IMAGE_SHAPE, tiny_network
from tests.image_folders import encoded, picture, write
from tf_metassl import files
from tf_metassl.data.pictures import Decoding
from tf_metassl.errors import ConfigError, ExportError, WriteError
from tf_metassl.run import classifier, serving
from tf_metassl.run.calibration import Calibration

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


def test_a_folder_with_anything_else_is_not_replaced(tmp_path, images):
    network = tiny_network()

    def export(folder):
        serving.export_saved_model(network, NAMES, folder, examples=images)

    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"documents cannot .* thesis\.txt"):
        export(documents)
    assert (documents / "thesis.txt").read_text() == "years of work"

    export(tmp_path / "1")
    (tmp_path / "1" / "notes.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"it holds notes\.md"):
        export(tmp_path / "1")
    assert (tmp_path / "1" / "notes.md").exists()

    class Doubled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([])])
        def __call__(self, x):
            return {"y": 2 * x}

    tf.saved_model.save(Doubled(), tmp_path / "other")
    with pytest.raises(ConfigError, match="it holds no export"):
        export(tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="it is not a folder"):
        export(tmp_path / "file")

    (tmp_path / "empty").mkdir()
    export(tmp_path / "empty")
    serving.check_saved_model(tmp_path / "empty", network, images)


def test_what_a_killed_export_left_is_removed(tmp_path, images):
    left = tmp_path / ".1.aside"
    left.mkdir()
    (left / "saved_model.pb").write_text("half")
    serving.export_saved_model(
        tiny_network(), NAMES, tmp_path / "1", examples=images
    )
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_two_processes_do_not_write_one_export(tmp_path, images):
    with files.locked(tmp_path / ".1.lock"):
        with pytest.raises(ConfigError, match="is being written by process"):
            serving.export_saved_model(
                tiny_network(), NAMES, tmp_path / "1", examples=images
            )
    assert not (tmp_path / "1").exists()


def test_encoded_images_are_served_as_predict_decodes_them(tmp_path):
    """Turned upright, resized, cut and as gray as in training."""
    height, width, channels = IMAGE_SHAPE
    decoding = Decoding(IMAGE_SHAPE, height + 2)
    network = tiny_network()
    examples = np.zeros((2, *IMAGE_SHAPE), np.uint8)
    folder = tmp_path / "1"
    serving.export_saved_model(
        network,
        NAMES,
        folder,
        examples=examples,
        decoding=decoding,
        calibration=Calibration(temperature=2.0),
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a.png": encoded(picture(1, 20, 31)),
        "b.jpg": encoded(picture(2, 40, 19), "JPEG", exif=exif.tobytes()),
        "c.png": encoded(picture(3, 14, 14, 1)),
    }
    for name, data in files.items():
        write(tmp_path / "in" / name, data)
    data = list(files.values())
    loaded = tf.saved_model.load(folder)
    served = loaded.signatures["image_bytes"](image_bytes=tf.constant(data))
    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[one])
                    )
                }
            )
        ).SerializeToString()
        for one in data
    ]
    parsed = loaded.signatures["tf_example"](tf_example=tf.constant(examples))
    found = classifier.from_saved_model(folder)
    paths = sorted((tmp_path / "in").iterdir())
    for row, p in enumerate(found.predict(paths)):
        for outputs in (served, parsed):
            np.testing.assert_allclose(
                outputs["probabilities"][row], p.probs, atol=1e-6
            )
            np.testing.assert_allclose(
                outputs["confidence"][row], p.calibrated.max(), atol=1e-5
            )
    # The temperature flattens.
    assert np.all(
        served["confidence"] < tf.reduce_max(served["probabilities"], -1)
    )
    # Three signatures, one network with its one convolution.
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((folder / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    nodes = [
        *graph.node,
        *(n for f in graph.library.function for n in f.node_def),
    ]
    assert sum(node.op == "Conv2D" for node in nodes) == 1


def test_names_and_decoding_are_beside_the_model(tmp_path, images):
    folder = tmp_path / "1"
    serving.export_saved_model(
        tiny_network(), ("cat", "a\tb", "eel"), folder, examples=images
    )
    lines = (folder / "assets.extra" / "class_names.txt").read_text()
    assert lines == "cat\na\\tb\neel\n"
    found = classifier.from_saved_model(folder)
    assert found.class_names == ("cat", "a\tb", "eel")
    assert found.decoding == Decoding(IMAGE_SHAPE, 0)
