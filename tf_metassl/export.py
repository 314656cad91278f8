"""python -m tf_metassl.export --run_dir=...: a SavedModel that serves."""

import os
import pathlib
import shutil


def export_saved_model(network, class_names, folder):
    """Writes `network` as a SavedModel with named inputs and outputs.

    Signature `serving_default` (and `serve`): `image` uint8 `[N, H, W, C]` ->
    `probabilities` float32 `[N, classes]`, `class_id` int32 `[N]`,
    `class_name` string `[N]`. It needs TensorFlow alone to be loaded.

    Args:
        network: images in 0...255 -> logits.
        class_names: one per class.
        folder: where to write; it appears when it is complete, and replaces
            what was there.
    """
    import keras
    import tensorflow as tf

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
    archive.write_out(str(aside), verbose=False)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)
