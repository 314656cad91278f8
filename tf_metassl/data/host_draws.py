"""Random numbers of the data pipeline.

The pipeline runs in `tf.data` on the host and is never compiled by XLA, so it
uses TensorFlow's stateless generators as they are. A training step, which may
be compiled, draws with `tf_metassl.ops.draws` instead.

A seed is a tensor `[2]` of integers; the same seed gives the same numbers.
"""

import zlib

import tensorflow as tf


def fold_in(seed, *items):
    """Derives a seed from another one and from names or integers.

    Args:
        seed: `[2]` int32.
        *items: strings, ints or scalar int tensors, folded in one by one.

    Returns:
        A seed `[2]` int32.
    """
    for item in items:
        if isinstance(item, str):
            item = zlib.crc32(item.encode()) & 0x7FFFFFFF
        seed = tf.random.experimental.stateless_fold_in(
            seed, tf.cast(item, tf.int32)
        )
    return seed


def split(seed, num):
    """Derives several independent seeds from one.

    Args:
        seed: `[2]` integers.
        num: how many seeds to return.

    Returns:
        A list of `num` seeds `[2]`.

    Raises:
        ValueError: if `seed` has another shape or type.
    """
    seed = tf.convert_to_tensor(seed)
    if seed.shape != [2] or not seed.dtype.is_integer:
        raise ValueError(
            f"seed: expected integers [2], got {seed.dtype.name} {seed.shape}."
        )
    return tf.unstack(tf.random.split(seed, num))


def uniform(shape, seed, low=0.0, high=1.0):
    """Uniform numbers in [low, high).

    Args:
        shape: of the result; its sizes may be scalar tensors.
        seed: `[2]` int32.
        low: smallest number.
        high: bound, not included.

    Returns:
        float32 tensor.
    """
    return tf.random.stateless_uniform(shape, seed, low, high)


def integers(shape, seed, low, high):
    """Uniform integers in low ... high, both ends included.

    Args:
        shape: of the result; its sizes may be scalar tensors.
        seed: `[2]` int32.
        low: smallest integer.
        high: largest integer.

    Returns:
        int32 tensor.
    """
    return tf.random.stateless_uniform(shape, seed, low, high + 1, tf.int32)


def normal(shape, seed, stddev):
    """Normal numbers with mean 0.

    Args:
        shape: of the result; its sizes may be scalar tensors.
        seed: `[2]` int32.
        stddev: their standard deviation.

    Returns:
        float32 tensor.
    """
    return tf.random.stateless_normal(shape, seed, 0.0, stddev)
