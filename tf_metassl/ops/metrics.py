"""Metrics that are exact on any number of replicas."""

import math

import keras
import numpy as np
import tensorflow as tf


def macro_f1(confusion):
    """The unweighted mean of the F1 scores of the classes that are present.

    Args:
        confusion: `[C, C]` counts, rows are true classes.

    Returns:
        A float; 1 for perfect predictions, 0 if there are no images. Classes
        without an image do not count.
    """
    confusion = np.asarray(confusion, np.float64)
    support = confusion.sum(1)
    present = support > 0
    f1 = 2 * np.diag(confusion)[present]
    f1 /= (confusion.sum(0) + support)[present]
    return float(f1.mean()) if len(f1) else 0.0


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
        predicted = tf.one_hot(tf.argmax(logits, axis=-1), self.num_classes)
        true = tf.one_hot(label, self.num_classes)
        mask = tf.cast(mask, true.dtype)[:, tf.newaxis]
        # A matrix product, because bincount has no lowering for every device.
        counts = tf.matmul(true * mask, predicted, transpose_a=True)
        self.counts.assign_add(counts)

    def result(self):
        """`{<name>_accuracy, <name>_macro_f1}` as float32 scalars."""
        counts = tf.convert_to_tensor(self.counts)
        correct = tf.linalg.diag_part(counts)
        support = tf.reduce_sum(counts, 1)
        total = tf.reduce_sum(counts, 0) + support
        # Without an image of a class there is nothing to be right about.
        f1 = tf.math.divide_no_nan(2 * correct, total)
        num_present = tf.math.count_nonzero(support, dtype=f1.dtype)
        accuracy = tf.math.divide_no_nan(
            tf.reduce_sum(correct), tf.reduce_sum(counts)
        )
        return {
            f"{self.name}_accuracy": accuracy,
            f"{self.name}_macro_f1": tf.math.divide_no_nan(
                tf.reduce_sum(f1), num_present
            ),
        }

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}


def is_correct(label, scores):
    """Whether the true class has the largest score.

    Args:
        label: `[N]` integer true classes.
        scores: `[N, C]`, such as logits or probabilities.

    Returns:
        `[N]` float32 of 0 and 1.
    """
    predicted = tf.argmax(scores, axis=-1, output_type=tf.int32)
    return tf.cast(predicted == tf.cast(label, tf.int32), tf.float32)


def in_top_5(label, logits):
    """Whether the true class is among the five most likely ones.

    Args:
        label: `[N]` integer true classes.
        logits: `[N, C]`, C at least 5.

    Returns:
        `[N]` float32 of 0 and 1.
    """
    likeliest = tf.math.top_k(logits, k=5).indices
    correct = likeliest == tf.cast(label, tf.int32)[:, tf.newaxis]
    return tf.cast(tf.reduce_any(correct, axis=-1), tf.float32)


@keras.saving.register_keras_serializable("tf_metassl")
class ClassEntropy(keras.metrics.Metric):
    """Entropy of the classes that labels fall into, in units of log C.

    1 if all classes are equally frequent, 0 if there is only one.
    """

    def __init__(self, num_classes, name="class_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.counts = self.add_variable(
            (num_classes,), initializer="zeros", name="counts"
        )

    def update_state(self, scores):
        """Counts the largest of each row of `scores [N, C]`."""
        label = tf.argmax(scores, axis=-1, output_type=tf.int32)
        one_hot = tf.one_hot(label, self.num_classes)
        self.counts.assign_add(tf.reduce_sum(one_hot, axis=0))

    def result(self):
        """A float32 scalar in [0, 1]; 0 before the first update."""
        counts = tf.convert_to_tensor(self.counts)
        share = tf.math.divide_no_nan(counts, tf.reduce_sum(counts))
        # Not the negative, which is -0 for a single class.
        entropy = 0.0 - tf.reduce_sum(tf.math.xlogy(share, share))
        return entropy / max(math.log(self.num_classes), 1e-9)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("tf_metassl")
class Histogram(keras.metrics.Metric):
    """Counts of values in intervals of equal width.

    Values outside of all intervals count in the first or the last one. There
    is no `result`, because counts are no scalars.

    Args:
        low: where the first interval begins.
        high: where the last one ends.
        size: number of intervals.
        name: of the metric.
        **kwargs: of `keras.metrics.Metric`.
    """

    def __init__(self, low, high, size, name="histogram", **kwargs):
        super().__init__(name=name, **kwargs)
        self.low, self.high, self.size = low, high, size
        self.counts = self.add_variable(
            (size,), initializer="zeros", name="counts"
        )

    @property
    def edges(self):
        """Where the intervals begin, and where the last one ends."""
        return np.linspace(self.low, self.high, self.size + 1)

    def update_state(self, values):
        """Counts `values [N]`, floats."""
        position = (values - self.low) / (self.high - self.low) * self.size
        index = tf.clip_by_value(tf.cast(position, tf.int32), 0, self.size - 1)
        self.counts.assign_add(
            tf.reduce_sum(tf.one_hot(index, self.size), axis=0)
        )

    def result(self):
        """An empty dict, see the class."""
        return {}

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        return {
            **config,
            "low": self.low,
            "high": self.high,
            "size": self.size,
        }


class DivergenceWatch:
    """The first step after which a mean loss was not finite or too large.

    Every step notes it in the graph, so that nobody has to wait for the step.
    Each replica watches the mean over its own images. Make it in the scope of
    the strategy.

    Args:
        max_loss: bound on the mean; 0 for none.

    Attributes:
        max_loss: the bound.
    """

    def __init__(self, max_loss=0.0):
        self.max_loss = max_loss
        self._step, self._loss = (
            tf.Variable(
                tf.zeros([], dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for dtype in (tf.int64, tf.float32)
        )

    def note(self, loss, step):
        """Compares a mean loss; call it within a step.

        Args:
            loss: scalar.
            step: integer scalar, the number of finished steps, 1 or more.
        """
        loss = tf.cast(loss, tf.float32)
        is_large = loss > (self.max_loss or math.inf)
        is_wrong = ~tf.math.is_finite(loss) | is_large
        is_first = is_wrong & (self._step == 0)
        step = tf.cast(step, tf.int64)
        self._step.assign(tf.where(is_first, step, self._step))
        self._loss.assign(tf.where(is_first, loss, self._loss))

    def first(self, strategy):
        """`(step, loss)` of the first such step; None if there is none.

        Args:
            strategy: the strategy; the replicas of this worker are read.
        """
        steps, losses = (
            [float(part) for part in strategy.experimental_local_results(v)]
            for v in (self._step, self._loss)
        )
        found = [pair for pair in zip(steps, losses, strict=True) if pair[0]]
        if not found:
            return None
        step, loss = min(found, key=lambda pair: pair[0])
        return int(step), loss

    def reset(self):
        """Forgets what was noted."""
        for variable in (self._step, self._loss):
            variable.assign(tf.zeros([], variable.dtype))


def reader(metrics, strategy):
    """A function that reads the variables of `metrics` exactly.

    Each replica has its own part of a running mean, and the parts are read one
    by one: their sum is rounded differently from that of a run without
    interruption.

    Args:
        metrics: Keras metrics.
        strategy: the strategy that they were made in.

    Returns:
        A function without arguments that returns JSON-ready numbers: metric
        name -> one nested list `[replicas, ...]` per variable. Call it several
        times rather than creating it again: it is traced once.
    """

    @tf.function(autograph=False)
    def gather():
        context = tf.distribute.get_replica_context()
        return [
            [context.all_gather(v.value[tf.newaxis], 0) for v in m.variables]
            for m in metrics
        ]

    def read():
        return {
            metric.name: [
                strategy.experimental_local_results(value)[0].numpy().tolist()
                for value in values
            ]
            for metric, values in zip(
                metrics, strategy.run(gather), strict=True
            )
        }

    return read


def measured(lists):
    """The names of the metrics that have been updated.

    A mean with nothing to average reads 0, which is no measurement.

    Args:
        lists: what a `reader` of means and `ClassEntropy`s returned. The last
            variable of both counts what was added.

    Returns:
        A set.
    """
    return {name for name, values in lists.items() if np.any(values[-1])}


def from_lists(metrics, strategy, lists):
    """Restores the variables of `metrics`.

    With a different number of replicas the sums over replicas are restored.

    Args:
        metrics: Keras metrics. One that is not in `lists`, because a later
            version added it, keeps its value.
        strategy: the strategy that they were made in.
        lists: what a `reader` returned.
    """
    metrics = [metric for metric in metrics if metric.name in lists]
    size = strategy.num_replicas_in_sync

    def parts(value):
        value = np.asarray(value, np.float32)
        if len(value) != size:
            rest = np.zeros((size - 1, *value.shape[1:]), np.float32)
            value = np.concatenate([value.sum(0, keepdims=True), rest])
        return tf.constant(value)

    values = [[parts(value) for value in lists[m.name]] for m in metrics]

    def assign(values):
        context = tf.distribute.get_replica_context()
        for metric, parts in zip(metrics, values, strict=True):
            for variable, part in zip(metric.variables, parts, strict=True):
                variable.assign(part[context.replica_id_in_sync_group])

    strategy.run(assign, args=(values,))
