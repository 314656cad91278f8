"""Metrics that are exact on any number of devices."""

import keras
import numpy as np
import tensorflow as tf


def macro_f1(confusion):
    """The unweighted mean of the classes' F1 scores.

    Args:
        confusion: `[C, C]` counts, rows are true classes.

    Returns:
        A float; a class that is neither present nor predicted counts as 0.
    """
    confusion = np.asarray(confusion, np.float64)
    hits = np.diag(confusion)
    total = confusion.sum(0) + confusion.sum(1)
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return float(f1.mean())


@keras.saving.register_keras_serializable("tf_metassl")
class ConfusionMatrix(keras.metrics.Metric):
    """Counts of (true class, predicted class), and what follows from them.

    `result` is a dict with `<name>_accuracy` and `<name>_macro_f1`; the counts
    themselves are in `counts`.
    """

    def __init__(self, num_classes, name="confusion", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.counts = self.add_variable(
            (num_classes, num_classes), initializer="zeros", name="counts"
        )

    def update_state(self, label, logits, mask):
        """Adds a batch.

        Args:
            label: `[N]` integer true classes.
            logits: `[N, C]`.
            mask: `[N]`; rows with 0 do not count.
        """
        predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
        cell = tf.cast(label, tf.int32) * self.num_classes + predicted
        # A matrix product, because bincount has no lowering for every device.
        one_hot = tf.one_hot(cell, self.num_classes**2)
        counts = tf.linalg.matvec(
            one_hot, tf.cast(mask, one_hot.dtype), transpose_a=True
        )
        self.counts.assign_add(
            tf.reshape(counts, (self.num_classes, self.num_classes))
        )

    def result(self):
        """`{<name>_accuracy, <name>_macro_f1}` as float32 scalars."""
        counts = tf.convert_to_tensor(self.counts)
        hits = tf.linalg.diag_part(counts)
        support = tf.reduce_sum(counts, 0) + tf.reduce_sum(counts, 1)
        f1 = tf.math.divide_no_nan(2 * hits, support)
        accuracy = tf.math.divide_no_nan(
            tf.reduce_sum(hits), tf.reduce_sum(counts)
        )
        return {
            f"{self.name}_accuracy": accuracy,
            f"{self.name}_macro_f1": tf.reduce_mean(f1),
        }

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}
