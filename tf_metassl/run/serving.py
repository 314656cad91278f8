"""Exports as SavedModels, which are checked against the network.

Serving one needs TensorFlow alone, not this package.
"""

import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

from tf_metassl import files
from tf_metassl.errors import ExportError, WriteError, error_text


def export_saved_model(network, class_names, folder, *, examples):
    """Writes `network` as a SavedModel with named inputs and outputs.

    Signature `serving_default`: `image` uint8 `[N, H, W, C]` ->
    `probabilities` float32 `[N, classes]`, `class_id` int32 `[N]`,
    `class_name` string `[N]`. Scaling of pixels is part of the network.

    Args:
        network: images in 0...255 -> logits.
        class_names: one per class.
        folder: where to write. It appears when the export is complete and
            checked, and replaces an existing folder.
        examples: `[N, H, W, C]` uint8, on which the export is compared with
            the network.

    Raises:
        ExportError: if the probabilities differ by more than 1e-5.
        WriteError: if the export cannot be written. An export that was there
            before is unchanged.
    """
    names = tf.constant(list(class_names))

    @tf.function
    def serve(image):
        logits = network(image, training=False)
        class_id = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return {
            "probabilities": tf.nn.softmax(tf.cast(logits, tf.float32)),
            "class_id": class_id,
            "class_name": tf.gather(names, class_id),
        }

    image = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8, "image")
    folder = pathlib.Path(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serving_default", serve, [image])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive.write_out(str(aside), verbose=False)
        check_saved_model(aside, network, examples)
        files.replace_folder(aside, folder)
    except (OSError, tf.errors.OpError) as error:
        raise WriteError(
            f"The export {folder} cannot be written: {error_text(error)}. The "
            "checkpoints are intact. Free some disk space, or choose another "
            "folder with python -m tf_metassl.export --output=..."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_saved_model(folder, network, examples, tolerance=1e-5):
    """Raises ExportError unless the SavedModel equals `network`.

    Args:
        folder: a SavedModel written by `export_saved_model`.
        network: images in 0...255 -> logits.
        examples: `[N, H, W, C]` uint8.
        tolerance: largest difference of a probability.
    """
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    actual = served(image=tf.constant(examples))["probabilities"]
    logits = network(examples, training=False)
    expected = tf.nn.softmax(tf.cast(logits, tf.float32))
    difference = float(np.max(np.abs(actual - expected)))
    if not difference <= tolerance:
        raise ExportError(
            f"The SavedModel in {folder} differs from the network by "
            f"{difference:.2g} in a probability; {tolerance:.0e} is allowed."
        )
