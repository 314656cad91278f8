"""Exports as SavedModels, which are checked against the network.

Serving one needs TensorFlow alone, not this package.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tf_metassl import files
from tf_metassl.data import graph_decode, image_ops, spelling
from tf_metassl.data.pictures import Decoding
from tf_metassl.errors import ConfigError, ExportError, WriteError, error_text
from tf_metassl.run import formats
from tf_metassl.run.calibration import Calibration

# What a SavedModel of ours consists of, and what it gives; `confidence` and the
# last folder came later.
_EXPORTED = {
    "saved_model.pb",
    "fingerprint.pb",
    "variables",
    "assets",
    "assets.extra",
}
_OUTPUTS = {"probabilities", "class_id", "class_name"}
# What the signature does not say, beside the SavedModel.
METADATA = pathlib.Path("assets.extra", "tf_metassl.json")
# Requests that TensorFlow Serving answers before it serves a model.
_WARMUP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")
# Where a `tf.train.Example` has the bytes of its image.
_FEATURE = "image/encoded"
_CLASS_NAMES = pathlib.Path("assets.extra", "class_names.txt")


def export_run(experiment, algorithm, folder, calibration, names=()):
    """Exports the deployable network of a run, see `export_saved_model`.

    Args:
        experiment: the `Experiment`.
        algorithm: that of the last stage, restored.
        folder: where to write the SavedModel; files of other formats are
            written beside it, see `formats.export`.
        calibration: the `Calibration` of the network.
        names: of formats, whose answers are timed; empty: the SavedModel.

    Returns:
        A `formats.Written` for each of `names`.
    """
    return export_network(
        experiment.whole(algorithm.deployable_model),
        experiment.source.info.class_names,
        folder,
        names,
        examples=experiment.examples,
        decoding=experiment.decoding,
        calibration=calibration,
    )


def export_network(
    network, class_names, folder, names=(), *, examples, **options
):
    """Exports a network, in several formats if they are named.

    Args:
        network: from pixels in 0...255 to logits.
        class_names: one per class.
        folder: see `export_run`.
        names: see `export_run`.
        examples: uint8 `[N, H, W, C]`, on which the files are checked.
        **options: `decoding` and `calibration`, see `export_saved_model`.

    Returns:
        A `formats.Written` for each of `names`.
    """
    formats.check_available(names)
    with contextlib.ExitStack() as stack:
        saved_model = folder = pathlib.Path(folder)
        if names and formats.SAVED_MODEL not in names:
            aside = stack.enter_context(tempfile.TemporaryDirectory())
            saved_model = pathlib.Path(aside, "1")
        export_saved_model(
            network, class_names, saved_model, examples=examples, **options
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        temperature = options["calibration"].temperature
        exported = formats.Exported(
            network, class_names, temperature, saved_model
        )
        return formats.export(names, exported, examples, folder)


def export_saved_model(
    network, class_names, folder, *, examples, decoding=None, calibration=None
):
    """Writes `network` as a SavedModel with named inputs and outputs.

    Signature `serving_default`: `image` uint8 `[N, H, W, C]` ->
    `probabilities` float32 `[N, classes]`, `class_id` int32 `[N]`,
    `class_name` string `[N]`, `confidence` float32 `[N]`, the calibrated
    probability of the class. Scaling of pixels is part of the network.

    Signature `image_bytes`: strings `[N]`, the bytes of JPEG, PNG, GIF, BMP or
    WebP files, which are decoded, turned upright, resized and cut as in
    training -> the same outputs. Signature `tf_example`: `tf.train.Example`s
    with the bytes in the feature `image/encoded` -> the same outputs.

    `assets.extra/` has the names of the classes, how pictures are decoded, and
    a request of each signature with which TensorFlow Serving warms up.

    Args:
        network: images in 0...255 -> logits.
        class_names: one per class.
        folder: where to write. It appears when the export is complete and
            checked, and replaces an earlier export.
        examples: `[N, H, W, C]` uint8, on which the export is compared with
            the network.
        decoding: a `pictures.Decoding`; None: pictures are used as they are.
        calibration: a `Calibration`; None for one that changes nothing.

    Raises:
        ConfigError: if `folder` holds anything else than an export, or another
            process writes it.
        ExportError: if the probabilities differ by more than 1e-5.
        WriteError: if the export cannot be written. An export that was there
            before is unchanged.
    """
    folder = pathlib.Path(folder)
    check_replaceable(folder)
    shape = tuple(network.input_shape[1:])
    decoding = decoding or Decoding(shape, stored_size=0)
    calibration = calibration or Calibration()

    exported = formats.Exported(
        network, class_names, calibration.temperature, folder
    )

    def serve(image):
        answers = exported.answers(image)
        names = tf.constant(list(class_names))
        answers["class_name"] = tf.gather(names, answers["class_id"])
        return answers

    # A signature calls the one before it: the file holds the network once.
    signatures = {
        "serving_default": _traced(
            serve, tf.TensorSpec([None, *shape], tf.uint8, "image")
        )
    }

    def serve_bytes(image_bytes):
        images = graph_decode.decoder(decoding)(image_bytes)
        return signatures["serving_default"](images)

    def serve_examples(examples):
        feature = {_FEATURE: tf.io.FixedLenFeature([], tf.string)}
        parsed = tf.io.parse_example(examples, feature)
        return signatures["image_bytes"](parsed[_FEATURE])

    if shape[2] in (1, 3):
        for name, function in (
            ("image_bytes", serve_bytes),
            ("tf_example", serve_examples),
        ):
            spec = tf.TensorSpec([None], tf.string, name)
            signatures[name] = _traced(function, spec)
    # Not by Keras' ExportArchive, which writes each variable twice.
    module = tf.Module()
    module.network_variables = [v.value for v in network.variables]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _aside(folder) as aside:
            tf.saved_model.save(module, str(aside), signatures)
            _write_metadata(aside, class_names, decoding, calibration)
            _write_warmup(aside, examples[:1])
            check_saved_model(aside, network, examples, decoding)
            check_replaceable(folder)
            files.replace_folder(aside, folder)
    except (OSError, tf.errors.OpError) as error:
        raise WriteError(
            f"The export {folder} cannot be written: {error_text(error)}. The "
            "checkpoints are intact. Free some disk space, or choose another "
            "folder with tf-metassl export --output=..."
        ) from error


def _traced(function, spec):
    """The graph of a function of one tensor; it has no control flow."""
    return tf.function(function, autograph=False).get_concrete_function(spec)


def _write_metadata(folder, class_names, decoding, calibration):
    """Writes what a client needs beside the signature."""
    (folder / METADATA).parent.mkdir(exist_ok=True)
    values = {
        "class_names": list(class_names),
        "decoding": dataclasses.asdict(decoding),
        "calibration": dataclasses.asdict(calibration),
    }
    files.write_text(folder / METADATA, json.dumps(values, indent=2) + "\n")
    lines = "".join(f"{spelling.one_line(name)}\n" for name in class_names)
    files.write_text(folder / _CLASS_NAMES, lines)


def _write_warmup(folder, image):
    """Writes a request for each signature, as TensorFlow Serving reads them.

    Args:
        folder: of the SavedModel.
        image: `[1, H, W, C]` uint8.
    """
    requests = {"serving_default": {"image": image}}
    if image.shape[3] in (1, 3):
        encoded = tf.io.encode_png(image[0]).numpy()
        feature = tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[encoded])
        )
        features = tf.train.Features(feature={_FEATURE: feature})
        example = tf.train.Example(features=features).SerializeToString()
        requests["image_bytes"] = {"image_bytes": np.array([encoded], object)}
        requests["tf_example"] = {"tf_example": np.array([example], object)}
    with tf.io.TFRecordWriter(str(folder / _WARMUP)) as writer:
        for signature, inputs in requests.items():
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature, inputs):
    """A `tensorflow.serving.PredictionLog` with a PredictRequest, as bytes.

    The four messages are put together by hand: the package that has their
    classes, tensorflow-serving-api, asks for tensorflow beside tensorflow-cpu.

    Args:
        signature: name.
        inputs: name -> array.
    """
    # Field numbers of tensorflow_serving/apis/*.proto.
    request = _field(1, _field(1, b"default") + _field(3, signature.encode()))
    for name, array in inputs.items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number, data):
    """A length-delimited field of a protocol buffer, as bytes."""
    length, rest = bytearray(), len(data)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    length.append(rest)
    return bytes([number << 3 | 2]) + bytes(length) + data


@contextlib.contextmanager
def _aside(folder):
    """The hidden name under which an export of `folder` is written.

    What a process that was killed has left under that name is removed.

    Raises:
        ConfigError: if another process writes an export of `folder`.
    """
    aside = folder.with_name(f".{folder.name}.aside")
    lock = folder.with_name(f".{folder.name}.lock")
    with files.locked(lock) as held:
        if not held:
            raise ConfigError(
                f"{folder} is being written by {files.holder(lock)}. Wait for "
                "it to end, or export to another folder."
                f"{files.advice(lock)}"
            )
        try:
            shutil.rmtree(aside, ignore_errors=True)
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            lock.unlink(missing_ok=True)


def check_replaceable(folder):
    """Raises ConfigError unless `folder` is absent, empty or an export.

    An export is recognized by its outputs. Whatever else is in the folder was
    not written here and must not be lost.
    """
    folder = pathlib.Path(folder)
    if not folder.exists() and not folder.is_symlink():
        return
    problem = "it is not a folder"
    if folder.is_dir() and not folder.is_symlink():
        names = {path.name for path in folder.iterdir()}
        if not names:
            return
        foreign = sorted(names - _EXPORTED)
        if not foreign and _outputs(folder) >= _OUTPUTS:
            return
        problem = "it holds no export of this program"
        if foreign:
            problem = f"it holds {', '.join(foreign[:3])}" + (
                f" and {len(foreign) - 3} more files" * (len(foreign) > 3)
            )
    raise ConfigError(
        f"The folder {folder} cannot be replaced by an export: {problem}. "
        "Nothing in it has been changed. Export to a new folder, or remove "
        "this one yourself."
    )


def _outputs(folder):
    """The names of the outputs of a SavedModel; empty if it is none."""
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / "saved_model.pb").read_bytes())
        signatures = model.meta_graphs[0].signature_def
        return set(signatures["serving_default"].outputs)
    except (OSError, DecodeError, IndexError):
        return set()


def check_saved_model(folder, network, examples, decoding=None, tolerance=1e-5):
    """Raises ExportError unless the SavedModel equals `network`.

    Args:
        folder: a SavedModel written by `export_saved_model`.
        network: images in 0...255 -> logits.
        examples: `[N, H, W, C]` uint8.
        decoding: a `pictures.Decoding`; with it, encoded images are compared,
            too, if the SavedModel takes them.
        tolerance: largest difference of a probability.
    """
    loaded = tf.saved_model.load(str(folder))
    images = tf.constant(examples)
    served = loaded.signatures["serving_default"](image=images)
    pairs = [(served, images)]
    if decoding and "image_bytes" in loaded.signatures:
        side = decoding.stored_size or examples.shape[1]
        width = decoding.stored_size or examples.shape[2]
        shape = (2, side, width, examples.shape[3])
        stored = np.resize(examples, shape)
        encoded = tf.stack([tf.io.encode_png(image) for image in stored])
        served = loaded.signatures["image_bytes"](image_bytes=encoded)
        size = examples.shape[1:3]
        pairs.append((served, image_ops.center_crop(stored, *size)))
    difference = 0.0
    for served, images in pairs:
        logits = network(images, training=False)
        expected = tf.nn.softmax(tf.cast(logits, tf.float32))
        gap = np.max(np.abs(served["probabilities"] - expected))
        difference = max(difference, float(gap))
    if not difference <= tolerance:
        raise ExportError(
            f"The SavedModel in {folder} differs from the network by "
            f"{difference:.2g} in a probability; {tolerance:.0e} is allowed."
        )
