"""Exports beside the SavedModel: ONNX, LiteRT and Keras files.

Each file is compared with the network before it appears under its name.
"""

import contextlib
import functools
import importlib.util
import json
import math
import os
import pathlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_metassl import config, files
from tf_metassl.errors import ConfigError, ExportError, WriteError, error_text
from tf_metassl.models import layers

SAVED_MODEL = "saved_model"
# What ONNX Runtime, OpenVINO and tf2onnx all know.
_OPSET = 17
_TOLERANCE = 1e-4
# Neither a protocol buffer nor a flat buffer is larger.
_PROTOBUF = 2**31
# Images at a time for which the time of an answer is measured.
BATCHES = (1, 32)
_REPEATS = 9

# From uint8 images `[N, H, W, C]` to probabilities `[N, classes]`.
Predict = Callable[[np.ndarray], np.ndarray]


class Exported(NamedTuple):
    """What is exported.

    Attributes:
        network: images in 0...255 -> logits.
        class_names: one per class.
        temperature: of the confidence.
        saved_model: folder of its SavedModel.
    """

    network: keras.Model
    class_names: Sequence[str]
    temperature: float
    saved_model: pathlib.Path

    def answers(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images `[N, H, W, C]` -> what an export answers, name -> `[N, ...]`.

        The names of the classes, which not every format has, are not in it.
        """
        logits = tf.cast(self.network(image, training=False), tf.float32)
        calibrated = tf.nn.softmax(logits / self.temperature)
        return {
            "probabilities": tf.nn.softmax(logits),
            "class_id": tf.argmax(logits, axis=-1, output_type=tf.int32),
            "confidence": tf.reduce_max(calibrated, axis=-1),
        }


class Format(NamedTuple):
    """A file format.

    Attributes:
        suffix: added to the name of the SavedModel's folder.
        packages: module -> package, what writing and checking need.
        write: function of an `Exported` and the path of the file.
        load: path -> `Predict`.
        most_bytes: that the weights may take; 0: any number.
    """

    suffix: str
    packages: dict[str, str]
    write: Callable[..., None]
    load: Callable[[pathlib.Path], Predict]
    most_bytes: int = 0


class Written(NamedTuple):
    """A file that was written and checked.

    Attributes:
        name: of the format.
        path: of the file or folder.
        size: in bytes.
        seconds: number of images at a time -> median seconds of an answer.
    """

    name: str
    path: pathlib.Path
    size: int
    seconds: dict[int, float]


def check_available(names: Sequence[str]) -> None:
    """Raises ConfigError if a package that a format needs is missing.

    Args:
        names: of formats; none is allowed.
    """
    config.check_formats(names)
    for name in names:
        if name == SAVED_MODEL:
            continue
        missing = [
            package
            for module, package in FORMATS[name].packages.items()
            if importlib.util.find_spec(module) is None
        ]
        if missing:
            raise ConfigError(
                f"--formats={name} needs {' and '.join(missing)}, which "
                f"{'is' if len(missing) == 1 else 'are'} not installed. Run: "
                f"pip install {' '.join(missing)}"
            )


def export(
    names: Sequence[str],
    exported: Exported,
    examples: np.ndarray,
    output: pathlib.Path,
) -> list[Written]:
    """Writes a network in further formats, as `1.onnx` for the output `1`.

    The ONNX and LiteRT files take `image`, uint8 `[N, H, W, C]`, and give
    `probabilities`, `class_id` and `confidence` as the SavedModel does. The
    Keras file is the network, images -> logits `[N, classes]`.

    Args:
        names: of formats; `saved_model` is measured alone.
        exported: an `Exported`, whose SavedModel has been written.
        examples: `[N, H, W, C]` uint8, on which the files are compared with
            the network.
        output: path of the files without their suffix; its folder exists.

    Raises:
        ConfigError: if a package is missing.
        ExportError: if the network cannot be converted, or a probability
            differs by more than 1e-4.
        WriteError: if a file cannot be written.
    """
    check_available(names)
    _check_size(names, exported.network)
    written = []
    for name in names:
        if name == SAVED_MODEL:
            path = exported.saved_model
            predict = load_saved_model(path)
        else:
            path = output.with_name(output.name + FORMATS[name].suffix)
            try:
                predict = _write(name, exported, examples, path)
            except OSError as error:
                raise WriteError(
                    f"{path} cannot be written: {error_text(error)}. The "
                    "checkpoints are intact. Free some disk space, or choose "
                    "another folder with --output=..."
                ) from error
        written.append(_measure(name, path, predict, examples))
    return written


def _check_size(names: Sequence[str], network: keras.Model) -> None:
    """Raises ExportError if a format cannot hold the weights.

    Before anything is converted, which would take minutes and much memory.
    """
    size = sum(math.prod(v.shape) * v.value.dtype.size for v in network.weights)
    for name in names:
        most = FORMATS[name].most_bytes if name in FORMATS else 0
        if most and size >= most:
            raise ExportError(
                f"A file of --formats={name} holds at most "
                f"{most / 2**30:.3g} GiB, and the weights of the network take "
                f"{size / 2**30:.3g} GiB. Use --formats=saved_model,keras."
            )


def _write(
    name: str, exported: Exported, examples: np.ndarray, path: pathlib.Path
) -> Predict:
    """Writes a file after it was compared with the network."""
    form = FORMATS[name]
    expected = exported.answers(tf.constant(examples))["probabilities"]
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", dir=path.parent
    ) as aside:
        file = pathlib.Path(aside, path.name)
        try:
            form.write(exported, file)
            found = form.load(file)(examples)
        except (OSError, ExportError):
            raise
        except Exception as error:
            # Converters raise errors of many classes of their own.
            raise ExportError(
                f"The network cannot be converted to --formats={name}: "
                f"{type(error).__name__}: {error}. Leave this format out, or "
                "replace the layer that the error names."
            ) from error
        difference = np.abs(found - expected).max()
        if not difference <= _TOLERANCE:
            raise ExportError(
                f"The {name} file of the network differs from it by "
                f"{difference:.2g} in a probability; {_TOLERANCE:.0e} is "
                f"allowed. {path} has not been written."
            )
        files.write_bytes(path, file.read_bytes())
    return form.load(path)


def _measure(
    name: str, path: pathlib.Path, predict: Predict, examples: np.ndarray
) -> Written:
    """The size of an export and how long it takes to answer."""
    seconds = {}
    for count in BATCHES:
        images = np.resize(examples, (count, *examples.shape[1:]))
        predict(images)  # Traces and allocates.
        times = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            predict(images)
            times.append(time.perf_counter() - start)
        seconds[count] = float(np.median(times))
    parts = path.rglob("*") if path.is_dir() else [path]
    size = sum(part.stat().st_size for part in parts if part.is_file())
    return Written(name, path, size, seconds)


def load_saved_model(folder: pathlib.Path) -> Predict:
    """A SavedModel's `serving_default` as a function of arrays."""
    loaded = tf.saved_model.load(str(folder))

    def predict(images: np.ndarray) -> np.ndarray:
        serve = loaded.signatures["serving_default"]
        return serve(image=tf.constant(images))["probabilities"].numpy()

    return predict


# ONNX.


@contextlib.contextmanager
def _plain_grouped_convolutions(network: keras.Model) -> Iterator[None]:
    """Keras calls XLA programs for them, which tf2onnx cannot read."""

    def convolve(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.convolution(
            inputs,
            kernel,
            strides=layer.strides,
            padding=layer.padding.upper(),
            dilations=layer.dilation_rate,
        )

    changed = [
        layer
        for layer in network._flatten_layers()
        if getattr(layer, "groups", 1) > 1 and hasattr(layer, "convolution_op")
    ]
    for layer in changed:
        layer.convolution_op = functools.partial(convolve, layer)
    try:
        yield
    finally:
        for layer in changed:
            del layer.convolution_op


def _convert_erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """erfc(x) as 1 - erf(x), which ONNX has: TensorFlow's GELU needs it."""
    del name, args
    from tf2onnx import utils

    (output,) = node.output
    node.type = "Erf"
    dtype = utils.map_onnx_to_numpy_type(context.get_dtype(output))
    one = context.make_const(utils.make_name("one"), np.ones([], dtype))
    difference = context.make_node(
        "Sub",
        [one.output[0], output],
        shapes=[context.get_shape(output)],
        dtypes=[context.get_dtype(output)],
    )
    context.insert_node_on_output(difference, output)


def _write_onnx(exported: Exported, path: pathlib.Path) -> None:
    """Converts `serving_default` without the names, which are metadata."""
    import onnx
    import tf2onnx

    # Else it copies the graph with all weights before each of its optimizers,
    # to have it back if one fails: EfficientNet-B5 took 10 GB.
    os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")
    # Not by Keras' exporter, which makes inputs of constants.
    spec = tf.TensorSpec(
        [None, *exported.network.input_shape[1:]], tf.uint8, "image"
    )
    with _plain_grouped_convolutions(exported.network):
        model, _ = tf2onnx.convert.from_function(
            tf.function(exported.answers, autograph=False),
            input_signature=[spec],
            opset=_OPSET,
            custom_op_handlers={"Erfc": (_convert_erfc, [])},
        )
    inputs = [value.name for value in model.graph.input]
    if inputs != ["image"]:
        raise ExportError(
            f"The ONNX file would need the inputs {', '.join(inputs)}; `image` "
            "alone was expected. Export another format."
        )
    names = json.dumps(list(exported.class_names))
    onnx.helper.set_model_props(model, {"class_names": names})
    onnx.save(model, str(path))


def load_onnx(path: pathlib.Path) -> Predict:
    """An ONNX file as a function of arrays, by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities"], {"image": images})[0]


# LiteRT.


def _write_litert(exported: Exported, path: pathlib.Path) -> None:
    """Converts `serving_default` of the SavedModel."""
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(exported.saved_model), signature_keys=["serving_default"]
    )
    path.write_bytes(converter.convert())


def load_litert(path: pathlib.Path) -> Predict:
    """A LiteRT file as a function of arrays."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return lambda images: runner(image=images)["probabilities"]


# Keras.


def _write_keras(exported: Exported, path: pathlib.Path) -> None:
    """Saves a copy of the network that can be trained further."""
    layers.with_keras_batch_norm(exported.network).save(path)


def load_keras(path: pathlib.Path) -> Predict:
    """A Keras file as a function of arrays."""
    with warnings.catch_warnings():
        # About the optimizer, which a network alone does not have.
        warnings.simplefilter("ignore")
        network = keras.saving.load_model(path, compile=False)

    @tf.function(autograph=False)
    def probabilities(images: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(network(images, training=False), tf.float32)
        return tf.nn.softmax(logits)

    return lambda images: probabilities(tf.constant(images)).numpy()


FORMATS = {
    "onnx": Format(
        ".onnx",
        {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
        _write_onnx,
        load_onnx,
        _PROTOBUF,
    ),
    "litert": Format(
        ".tflite",
        {"ai_edge_litert": "ai-edge-litert"},
        _write_litert,
        load_litert,
        _PROTOBUF,
    ),
    "keras": Format(".keras", {}, _write_keras, load_keras),
}
NAMES = (SAVED_MODEL, *FORMATS)
