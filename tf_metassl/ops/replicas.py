"""Means, sums and rows over the replicas that share a global batch.

Call these functions where a training step runs: inside
`tf.distribute.Strategy.run`, where they reduce over the replicas of that
strategy, or without a strategy, where there is one replica. With one replica
they add no communication.
"""

import contextlib
import threading
import typing
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from tf_metassl.ops.checks import known_size

# What is summed keeps its structure.
Values = typing.TypeVar("Values", tf.Tensor, list[tf.Tensor])


def count() -> int:
    """The number of replicas that share the global batch, an int."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id() -> tf.Tensor | int:
    """The place of this replica in 0...count() - 1, an integer scalar."""
    if count() == 1:
        return 0
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def share_of_mean(values: tf.Tensor) -> tf.Tensor:
    """This replica's share of a mean over the global batch.

    Args:
        values: `[N]`, one value per example of this replica.

    Returns:
        A scalar, same dtype. Its sum over replicas is the mean over all
        examples. Gradients flow to `values`.
    """
    return tf.reduce_mean(values) / count()


def global_mean(values: tf.Tensor) -> tf.Tensor:
    """The mean over the global batch.

    Args:
        values: `[N, ...]`, the rows of this replica.

    Returns:
        `[...]`, same dtype, equal on every replica.
    """
    return sum_over_replicas(tf.reduce_mean(values, axis=0)) / count()


def sum_over_replicas(values: Values) -> Values:
    """Adds up what the replicas hold.

    Args:
        values: a tensor or a list of tensors of the same shapes on every
            replica.

    Returns:
        The same structure, equal on every replica; `values` itself with one
        replica. The gradient is the sum of the gradients of all replicas.
    """
    if count() == 1:
        return values
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


# Replicas are threads, and so is what records tangents.
_forward = threading.local()


class ForwardMode:
    """A forward-mode derivative that goes through `sum_with_tangent`.

    TensorFlow loses tangents in a sum over replicas, because the threads of
    the replicas do not compute it. Here, the tangent of a sum is summed beside
    it, and given to the sum as the derivative by a further input, a 0 whose
    own tangent is 1.

    Attributes:
        accumulator: the `tf.autodiff.ForwardAccumulator`.
    """

    def __init__(
        self, primals: Sequence[tf.Tensor], tangents: Sequence[tf.Tensor]
    ):
        self._zero = tf.zeros([], primals[0].dtype)
        # The type stubs allow one tensor here, no list.
        self.accumulator = tf.autodiff.ForwardAccumulator(
            [*primals, self._zero],  # type: ignore[arg-type]
            [*tangents, tf.ones_like(self._zero)],  # type: ignore[arg-type]
        )

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records what this thread computes in the block."""
        _forward.mode = self
        try:
            with self.accumulator:
                yield
        finally:
            _forward.mode = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Records nothing in the block; gradient tapes still do."""
        self.accumulator.__exit__(None, None, None)
        try:
            yield
        finally:
            self.accumulator.__enter__()

    def jvp(self, values: tf.Tensor) -> tf.Tensor:
        """The derivative of `values` along the tangents; 0 if there is none."""
        # A derivative of None, which the type stubs allow, is excluded.
        return self.accumulator.jvp(values, tf.UnconnectedGradients.ZERO)  # type: ignore[return-value]


def sum_with_tangent(values: tf.Tensor) -> tf.Tensor:
    """`sum_over_replicas`, differentiable inside `ForwardMode` as well.

    Args:
        values: a tensor of the same shape on every replica.

    Returns:
        The same shape and dtype, equal on every replica.
    """
    mode = getattr(_forward, "mode", None)
    if mode is None or count() == 1:
        return sum_over_replicas(values)
    tangent = mode.jvp(values)
    # Or TensorFlow would add its own derivative, two more sums that are wrong.
    with mode.paused():
        total, slope = sum_over_replicas([values, tangent])
    zero = tf.cast(mode._zero, slope.dtype)
    return total + zero * tf.stop_gradient(slope)


def all_rows(values: tf.Tensor) -> tf.Tensor:
    """Concatenates the rows of all replicas in the order of the global batch.

    Args:
        values: `[N, ...]`, the rows of this replica.

    Returns:
        `[N * count(), ...]`, same dtype, equal on every replica; `values`
        itself with one replica. The gradient is the sum of the gradients of
        all replicas, for their losses that are shares of one mean.
    """
    if count() == 1:
        return values
    # A sum, because it exists under every strategy and XLA; integers of any
    # size stay exact in their own type.
    is_own = tf.one_hot(replica_id(), count(), dtype=values.dtype)
    is_own = tf.reshape(is_own, [-1, *[1] * values.shape.rank])
    total = sum_over_replicas(is_own * values[None])
    return tf.reshape(total, [-1, *values.shape[1:]])


def enqueue(queue: keras.Variable, rows: tf.Tensor) -> None:
    """Replaces the oldest rows of a queue by those of the global batch.

    Args:
        queue: variable `[K, ...]`, the oldest row first.
        rows: `[N, ...]`, those of this replica.
    """
    old = tf.convert_to_tensor(queue.value)
    longer = tf.concat([old, all_rows(rows)], axis=0)
    queue.assign(longer[-known_size("queue", old, 0) :])


def write_rows(
    table: keras.Variable, index: tf.Tensor, values: tf.Tensor
) -> None:
    """Assigns rows of a table, such that it stays equal on every replica.

    Args:
        table: Keras variable `[M, ...]`.
        index: `[N]` int64, the rows of the table that this replica writes. If
            a row occurs twice in the global batch, which happens where an
            epoch ends inside a batch, its first value is written.
        values: `[N, ...]` of the table's dtype.
    """
    index, values = all_rows(index), all_rows(values)
    size = known_size("index", index, 0)
    place = tf.range(size)
    same = index[:, tf.newaxis] == index
    first = tf.reduce_min(tf.where(same, place, size), axis=1)
    # Equal rows get equal values, so that the order of writing does not matter.
    table.assign(
        tf.tensor_scatter_nd_update(
            tf.convert_to_tensor(table.value),
            index[:, tf.newaxis],
            tf.gather(values, first),
        )
    )
