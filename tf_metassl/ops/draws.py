"""Random numbers that are the same with and without XLA.

TensorFlow's stateless generators give the same bits everywhere if their
algorithm is named, but XLA makes other floats of them. So floats are made here.
"""

import math

import tensorflow as tf


def uniform(shape, seed):
    """Uniform in [0, 1), multiples of 2^-24.

    Args:
        shape: list of ints.
        seed: `[2]` integers.

    Returns:
        float32 of that shape.
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


def normal(shape, seed):
    """Standard normal, by Box and Muller; at most 5.8 in size.

    Args:
        shape: list of ints.
        seed: `[2]` integers.

    Returns:
        float32 of that shape.
    """
    radius, angle = tf.unstack(uniform([2, *shape], seed))
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - radius))
    return radius * tf.cos(2.0 * math.pi * angle)


def fold(seed, number):
    """A seed `[2]` int64 of another seed and an integer."""
    return tf.random.experimental.stateless_fold_in(
        tf.cast(seed, tf.int64),
        tf.cast(number, tf.int64),
        alg=tf.random.Algorithm.PHILOX,
    )
