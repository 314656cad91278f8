"""What a run writes for TensorBoard."""

import pathlib
import shutil

import numpy as np
import tensorflow as tf

from tf_metassl.run.metrics_file import writing


class TensorBoardLog:
    """Scalars of every split, histograms of parameters and example weights.

    Args:
        run_dir: folder of the run.
        splits: names of the splits, a folder of events each.
    """

    def __init__(self, run_dir, splits):
        with writing("The log of TensorBoard"):
            self._writers = {
                split: tf.summary.create_file_writer(
                    str(_folder(run_dir, split))
                )
                for split in splits
            }

    def write(self, step, values, variables, histograms=()):
        """Writes one step and waits until it is with the file system.

        Args:
            step: step of the run.
            values: split -> name -> float.
            variables: variables whose histograms go with the split `train`.
            histograms: `(name, edges [K + 1], counts [K])` each, which go
                there, too.

        Raises:
            WriteError: if the log cannot be written.
        """
        with writing("The log of TensorBoard"):
            for split, scalars in values.items():
                with self._writers[split].as_default(step):
                    for name, value in scalars.items():
                        tf.summary.scalar(name, value)
            with self._writers["train"].as_default(step):
                for variable in variables:
                    # Sorted by name: scalars first.
                    tf.summary.histogram(
                        f"weights/{variable.path}", variable.value
                    )
                for name, edges, counts in histograms:
                    _write_histogram(name, edges, counts)
            for writer in self._writers.values():
                writer.flush()


def _write_histogram(name, edges, counts):
    """Writes counts, which `tf.summary.histogram` would make of values."""
    # Here, because it takes a moment to import.
    from tensorboard.plugins.histogram import metadata

    tf.summary.write(
        name,
        np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64),
        metadata=metadata.create_summary_metadata(name, ""),
    )


def write_view_images(run_dir, batch, num_images=16):
    """Writes the first images of every view of a batch.

    Args:
        run_dir: folder of the run.
        batch: a training batch of one replica.
        num_images: images per view, side by side.

    Raises:
        WriteError: if the log cannot be written.
    """
    with writing("The log of TensorBoard"):
        writer = tf.summary.create_file_writer(str(_folder(run_dir, "train")))
        with writer.as_default(0):
            for group, values in batch.items():
                for view, images in values.items():
                    # The points of two_moons, for example, are no pictures.
                    if images.shape.rank == 4 and images.shape[-1] in (1, 3):
                        row = np.concatenate(list(images[:num_images]), axis=1)
                        tf.summary.image(f"{group}/{view}", row[np.newaxis])
        writer.close()


def write_result(run_dir, settings, result, confusion_png, panels):
    """Writes what a finished run was, for HParams, and what came out.

    An earlier result of the run is replaced.

    Args:
        run_dir: folder of the run.
        settings: name -> value, the settings that decide its numbers.
        result: name -> number, of the exported network.
        confusion_png: path of the picture of its mistakes, which may be
            missing.
        panels: the `Panels`: confidences of the unlabeled pool and the most
            confident mistakes.

    Raises:
        WriteError: if the log cannot be written.
    """
    # Here, because it takes a moment to import.
    from tensorboard.plugins.hparams import api

    folder = _folder(run_dir, "result")
    values = {
        name: value
        for name, value in settings.items()
        if isinstance(value, (bool, int, float, str))
    }
    with writing("The log of TensorBoard"):
        shutil.rmtree(folder, ignore_errors=True)
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(0):
            api.hparams(values, trial_id=pathlib.Path(run_dir).name)
            for name, value in result.items():
                tf.summary.scalar(f"result/{name}", value)
            if confusion_png.exists():
                picture = tf.io.decode_png(confusion_png.read_bytes(), 3)
                tf.summary.image("result/confusion_matrix", picture[None])
            if panels.mistakes:
                row = _side_by_side([m.pixels for m in panels.mistakes])
                tf.summary.image("result/mistakes", row[None])
            if panels.pool:
                tf.summary.histogram(
                    "result/confidence", panels.pool.confidences
                )
        writer.close()


def _side_by_side(pictures):
    """One picture of equally large ones; tiny ones are magnified.

    Args:
        pictures: `[H, W, C]` uint8 arrays.
    """
    row = np.concatenate(pictures, axis=1)
    times = max(1, 64 // max(pictures[0].shape[:2]))
    return row.repeat(times, axis=0).repeat(times, axis=1)


def _folder(run_dir, split):
    return pathlib.Path(run_dir) / "tensorboard" / split
