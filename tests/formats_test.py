"""ONNX, LiteRT and Keras files: what the programs that read them get."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import IMAGE_SHAPE, tiny_network
from tf_metassl import config, models
from tf_metassl.errors import ConfigError, ExportError, WriteError
from tf_metassl.models import layers
from tf_metassl.run import formats, serving
from tf_metassl.run.calibration import Calibration

NAMES = ("cat", "dog", "eel")


def images_of(network, count=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *network.input_shape[1:]), np.uint8)


def probabilities(network, images):
    logits = network(images, training=False)
    return tf.nn.softmax(tf.cast(logits, tf.float32)).numpy()


def written(folder, network, names, class_names=NAMES):
    """The network in formats, with a temperature of 2."""
    calibration = Calibration(2.0)
    images = images_of(network)
    serving.export_saved_model(
        network, class_names, folder, examples=images, calibration=calibration
    )
    exported = formats.Exported(network, class_names, 2.0, folder)
    return formats.export(names, exported, images, folder)


def available(*names):
    """Skips where a package of a format is missing."""
    for name in names:
        for module in formats.FORMATS[name].packages:
            pytest.importorskip(module)
    return names


def answers_of(script, *arguments):
    """What a process without this package prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ONNX_RUNTIME = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
images = np.load(sys.argv[2])
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(None, {"image": images})))
found["class_names"] = json.loads(
    session.get_modelmeta().custom_metadata_map["class_names"])
assert not {"tensorflow", "tf_metassl"} & sys.modules.keys()
print(json.dumps({k: np.asarray(v).tolist() for k, v in found.items()}))
"""
LITERT = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(sys.argv[1]).get_signature_runner("serving_default")
found = run(image=np.load(sys.argv[2]))
found["class_name"] = found["class_name"].astype(str)
assert not {"tensorflow", "tf_metassl"} & sys.modules.keys()
print(json.dumps({k: v.tolist() for k, v in found.items()}))
"""
OPENVINO = """
import json, sys
import numpy as np, openvino
# The default precision is lower where the processor has one.
model = openvino.Core().compile_model(
    sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found = model(np.load(sys.argv[2]))
print(json.dumps({k.get_any_name(): v.tolist() for k, v in found.items()}))
"""
CONSUMERS = {
    "onnxruntime": (ONNX_RUNTIME, "onnx"),
    "ai_edge_litert": (LITERT, "litert"),
    "openvino": (OPENVINO, "onnx"),
}


@pytest.mark.parametrize("name", ("onnx", "litert"))
def test_gelu_and_grouped_convolutions_are_converted(tmp_path, name):
    """By erfc, which tf2onnx does not know, and by programs of XLA."""
    pixels = keras.Input((6, 5, 1))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(8, 3, activation="gelu")(x)
    for strides in (1, 2):
        x = keras.layers.Conv2D(
            8, 3, strides=strides, padding="same", groups=4
        )(x)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    network = keras.Model(pixels, logits)
    before = probabilities(network, images_of(network))
    # What is written has been compared with the network.
    (file,) = written(tmp_path / "1", network, available(name))
    assert file.path.is_file()
    after = probabilities(network, images_of(network))
    np.testing.assert_array_equal(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_programs_without_tensorflow_get_the_same(tmp_path, consumer):
    script, name = CONSUMERS[consumer]
    pytest.importorskip(consumer)
    network = tiny_network()
    (file,) = written(tmp_path / "1", network, available(name))
    images = images_of(network, 5)
    np.save(tmp_path / "images.npy", images)
    found = answers_of(script, file.path, tmp_path / "images.npy")
    expected = probabilities(network, images)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["class_id"], expected.argmax(1))
    calibrated = expected**0.5 / (expected**0.5).sum(1, keepdims=True)
    np.testing.assert_allclose(
        found["confidence"], calibrated.max(1), atol=1e-5
    )
    if consumer == "ai_edge_litert":
        names = [NAMES[i] for i in expected.argmax(1)]
        assert found["class_name"] == names
    if consumer == "onnxruntime":
        assert tuple(found["class_names"]) == NAMES


@pytest.mark.slow
def test_keras_alone_loads_the_keras_file_and_trains_it(tmp_path):
    network = models.build("wrn_10_1", (8, 8, 3), 3)
    network.trainable = False  # As an average is.
    (file,) = written(tmp_path / "1", network, ("keras",))
    images = images_of(network)
    np.save(tmp_path / "images.npy", images)
    script = """
import json, sys
import numpy as np, keras
network = keras.saving.load_model(sys.argv[1])
images = np.load(sys.argv[2])
before = network(images, training=False).numpy().tolist()
assert len(network.trainable_variables) > 10
network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True))
network.fit(images, np.arange(len(images)) % 3, verbose=0)
assert "tf_metassl" not in sys.modules
print(json.dumps(before))
"""
    found = answers_of(script, file.path, tmp_path / "images.npy")
    expected = network(images, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_with_weight_norm_comes_back(tmp_path):
    inputs = keras.Input(IMAGE_SHAPE)
    x = layers.WeightNormConv2D(4, 3, name="convolution")(inputs)
    x = layers.MeanOnlyBatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, layers.WeightNormDense(3)(x))
    for variable in network.variables:
        variable.assign(variable + 0.5)
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    for old, new in zip(network.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(old, new)


# The second one has spatial dropout, whose configuration lacks `trainable`.
@pytest.mark.parametrize(
    "name, size", [("wrn_10_1", 8), ("cnn13_semi_meta", 12)]
)
def test_the_copy_with_batch_norm_of_keras_predicts_the_same(name, size):
    network = models.build(name, (size, size, 3), 3)
    network.trainable = False
    rng = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign(np.abs(rng.normal(size=variable.shape)) + 0.1)
    copy = layers.with_keras_batch_norm(network)
    assert copy.trainable_variables
    kinds = {type(layer).__module__.split(".")[0] for layer in copy.layers}
    assert kinds == {"keras"}
    images = images_of(network)
    np.testing.assert_array_equal(
        copy(images, training=False), network(images, training=False)
    )


def test_sizes_and_times_are_told(tmp_path):
    network = tiny_network()
    saved, file = written(tmp_path / "1", network, ("saved_model", "keras"))
    assert saved.path == tmp_path / "1"
    assert file.path == tmp_path / "1.keras"
    assert file.size == file.path.stat().st_size
    assert saved.size > (saved.path / "saved_model.pb").stat().st_size
    assert file.seconds.keys() == {1, 32} and min(file.seconds.values()) > 0


def test_weights_that_no_file_holds_are_refused_before_the_work(
    tmp_path, monkeypatch
):
    network = tiny_network()

    def write(exported, path):
        raise AssertionError

    small = formats.FORMATS["onnx"]._replace(write=write, most_bytes=256)
    monkeypatch.setitem(formats.FORMATS, "onnx", small)
    monkeypatch.setattr(formats, "check_available", lambda names: None)
    assert sum(v.value.shape.num_elements() for v in network.weights) > 64
    with pytest.raises(ExportError, match="at most .* the weights .* take"):
        written(tmp_path / "1", network, ("saved_model", "onnx"))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_the_flag_knows_the_formats():
    assert formats.NAMES == config.EXPORT_FORMATS
    with pytest.raises(ConfigError, match="--formats=tflite: must be one or"):
        formats.check_available(["tflite"])


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install tf2onnx onnx onnxrunt"):
        formats.check_available(["saved_model", "onnx"])
    with pytest.raises(ConfigError, match="ai-edge-litert, which is not inst"):
        formats.check_available(["litert"])
    formats.check_available(["saved_model", "keras"])


@pytest.mark.parametrize(
    "failure, error, words",
    [
        (OSError(28, "No space left on device"), WriteError, "No space left"),
        (None, ExportError, "differs from it by"),
        (
            NotImplementedError("No Op registered for Erfc"),
            ExportError,
            "be converted to --formats=keras: NotImpl.*Erfc.* Leave this",
        ),
    ],
)
def test_a_file_that_is_wrong_does_not_replace_the_older_one(
    tmp_path, monkeypatch, failure, error, words
):
    network = tiny_network()
    (file,) = written(tmp_path / "1", network, ("keras",))
    before = file.path.read_bytes()

    def write(exported, path):
        if failure:
            raise failure
        tiny_network("other").save(path)

    wrong = formats.FORMATS["keras"]._replace(write=write)
    monkeypatch.setitem(formats.FORMATS, "keras", wrong)
    with pytest.raises(error, match=words):
        written(tmp_path / "1", network, ("keras",))
    assert file.path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"1", "1.keras"}


@pytest.mark.slow
def test_the_command_line_of_tensorflow_reads_the_savedmodel(tmp_path):
    network = tiny_network()
    written(tmp_path / "1", network, ())
    images = images_of(network)
    np.save(tmp_path / "images.npy", images)
    command = [
        sys.executable,
        *("-m", "tensorflow.python.tools.saved_model_cli", "run"),
        *("--dir", tmp_path / "1", "--tag_set", "serve"),
        *("--signature_def", "serving_default"),
        *("--inputs", f"image={tmp_path / 'images.npy'}"),
        *("--outdir", tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "probabilities.npy"),
        probabilities(network, images),
        atol=1e-5,
    )
