"""The kernel form of batch norm equals the composed one."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import batch_norm

EPSILON = 1e-3


def composed(x, scale, offset):
    """Batch norm from TensorFlow's elementwise operations, float64."""
    # Not `tf.nn.moments`: it stops a gradient that is 0 the first time and not
    # the second.
    mean = tf.reduce_mean(x, axis=[0, 1, 2])
    variance = tf.reduce_mean(tf.square(x - mean), axis=[0, 1, 2])
    return (x - mean) * tf.math.rsqrt(variance + EPSILON) * scale + offset


def fused(x, scale, offset):
    y, _, _ = batch_norm.batch_norm(x, scale, offset, EPSILON)
    return y


def arrays(dtype, scale=None):
    """x, scale, offset, and weights for a scalar function of the output."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.5, 2.0, (4, 3, 5, 6))
    values = (
        x,
        np.full(6, scale) if scale is not None else rng.normal(1, 0.5, 6),
        rng.normal(size=6),
        rng.normal(size=x.shape),
    )
    return [tf.constant(v, dtype) for v in values]


def first(function, dtype, scale=None):
    x, gamma, beta, weight = arrays(dtype, scale)
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        # Not linear, so that the second derivative has terms of both kinds.
        value = tf.reduce_sum(weight * tf.tanh(function(x, gamma, beta)))
    return [value, *tape.gradient(value, [x, gamma, beta])]


def second(function, dtype, scale=None):
    """The gradient of an inner product of the gradients with random tensors."""
    x, gamma, beta, weight = arrays(dtype, scale)
    sources = [x, gamma, beta]
    rng = np.random.default_rng(1)
    directions = [tf.constant(rng.normal(size=s.shape), dtype) for s in sources]
    with tf.GradientTape() as outer:
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(sources)
            value = tf.reduce_sum(weight * tf.tanh(function(*sources)))
        gradients = inner.gradient(value, sources)
        product = tf.add_n(
            [
                tf.reduce_sum(d * g)
                for d, g in zip(directions, gradients, strict=True)
            ]
        )
    return outer.gradient(product, sources)


def forward(function, dtype, scale=None):
    x, gamma, beta, _ = arrays(dtype, scale)
    sources = [x, gamma, beta]
    rng = np.random.default_rng(1)
    tangents = [tf.constant(rng.normal(size=s.shape), dtype) for s in sources]
    with tf.autodiff.ForwardAccumulator(sources, tangents) as accumulator:
        y = function(*sources)
    return [accumulator.jvp(y)]


@pytest.mark.parametrize("graph", (False, True))
@pytest.mark.parametrize("scale", (None, 0.0))
@pytest.mark.parametrize("derivative", (first, second, forward))
def test_derivatives_equal_those_of_the_composed_form(derivative, scale, graph):
    def of_kernel():
        return derivative(fused, tf.float32, scale)

    actual = tf.function(of_kernel)() if graph else of_kernel()
    expected = derivative(composed, tf.float64, scale)
    for a, b in zip(actual, expected, strict=True):
        size = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(size, 1))


def test_statistics_are_those_of_numpy():
    x, gamma, beta, _ = arrays(tf.float32)
    _, mean, variance = batch_norm.batch_norm(x, gamma, beta, EPSILON)
    np.testing.assert_allclose(mean, np.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, np.var(x, (0, 1, 2)), rtol=1e-5)


def test_one_value_a_feature_has_no_variance():
    x = tf.constant([[[[3.0, -2.0]]]])
    y, mean, variance = batch_norm.batch_norm(
        x, tf.ones([2]), tf.constant([0.5, 1.0]), EPSILON
    )
    np.testing.assert_allclose(y[0, 0, 0], [0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(mean, [3.0, -2.0])
    np.testing.assert_allclose(variance, [0.0, 0.0])


@pytest.mark.parametrize("dtype", (tf.bfloat16, tf.float16))
def test_half_precision_keeps_statistics_in_float32(dtype):
    x, gamma, beta, _ = arrays(tf.float32)
    y, mean, variance = batch_norm.batch_norm(
        tf.cast(x, dtype), gamma, beta, EPSILON
    )
    assert y.dtype == dtype
    assert mean.dtype == variance.dtype == tf.float32
    np.testing.assert_allclose(
        tf.cast(y, tf.float32), composed(x, gamma, beta), atol=0.1
    )
