"""Random numbers of a training step, the same with and without XLA.

TensorFlow's stateless generators give the same bits everywhere if their
algorithm is named, but XLA converts these bits to floats differently. So the
conversion is done here. The data pipeline, which XLA never compiles, draws with
`tf_metassl.data.host_draws` instead.
"""

import math
from collections.abc import Sequence

import tensorflow as tf


def uniform(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-24.

    Args:
        shape: list of ints.
        seed: `[2]` integers.

    Returns:
        float32 tensor of that shape.
    """
    bits = tf.random.stateless_uniform(
        shape,
        seed,
        minval=0,
        maxval=2**24,
        dtype=tf.int32,
        alg=tf.random.Algorithm.PHILOX,
    )
    return tf.cast(bits, tf.float32) * 2.0**-24


def normal(shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers by the method of Box and Muller.

    Args:
        shape: list of ints.
        seed: `[2]` integers.

    Returns:
        float32 tensor of that shape; absolute values are at most 5.8.
    """
    radius, angle = tf.unstack(uniform([2, *shape], seed))
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - radius))
    return radius * tf.cos(2.0 * math.pi * angle)


def fold_step(seed: tf.Tensor, step: tf.Tensor | int) -> tf.Tensor:
    """Derives the seed of one training step.

    Args:
        seed: `[2]` integers.
        step: scalar integer, the training step.

    Returns:
        A seed `[2]` int64.
    """
    # The type stubs lack `tf.random.experimental`.
    return tf.random.experimental.stateless_fold_in(  # type: ignore[attr-defined]
        tf.cast(seed, tf.int64),
        tf.cast(step, tf.int64),
        alg=tf.random.Algorithm.PHILOX,
    )
