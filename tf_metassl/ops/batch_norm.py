"""Batch norm as one TensorFlow kernel that can be differentiated twice.

Keras 3 composes batch norm from moments and elementwise operations, which read
and write the feature map about ten times in a step. TensorFlow has a kernel for
it and one for its gradient, but composes the derivatives of the latter. Here
they are written out, so that nested tapes and forward mode use the kernels,
too.
"""

import typing

import tensorflow as tf

from tf_metassl.ops import replicas

try:
    # `tf.custom_gradient` is no way to say this: inside a `tf.function`,
    # forward mode does not see it.
    from tensorflow.python.eager import record
except ImportError:  # It is no public name; without it nothing is available.
    record = None

_DTYPES = (tf.float32, tf.bfloat16, tf.float16)


def is_available(x):
    """Whether the kernel takes feature maps such as `x`."""
    return record is not None and x.shape.rank == 4 and x.dtype in _DTYPES


def global_moments(x, axes):
    """Mean and variance over the global batch, with one sum over replicas.

    Args:
        x: a feature map in full precision; every replica has as many rows.
        axes: all but that of the features.

    Returns:
        Mean and variance, `[F]`, with derivatives in reverse and in forward
        mode (`tf_metassl.ops.replicas.ForwardMode`).
    """
    count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)  # No sum: a constant.
    sums = [tf.reduce_sum(x, axes), tf.reduce_sum(tf.square(x), axes)]
    sums = replicas.sum_with_tangent(tf.stack(sums))
    mean, square = tf.unstack(sums / (count * replicas.count()))
    return mean, tf.maximum(square - tf.square(mean), 0.0)


class _Batch(typing.NamedTuple):
    """A feature map, its statistics, and the kernel of its gradient.

    Attributes:
        x: `[N, H, W, F]`.
        scale: `[F]` float32.
        mean: `[F]` float32.
        inverse_std: `[F]` float32, (variance + epsilon)^-1/2.
        count: N * H * W, a float32 scalar.
        kernel: function of `dy` like `x` and `scale [F]` that returns the
            gradients of x, scale and offset.
    """

    x: tf.Tensor
    scale: tf.Tensor
    mean: tf.Tensor
    inverse_std: tf.Tensor
    count: tf.Tensor
    kernel: typing.Callable


def batch_norm(x, scale, offset, epsilon):
    """Normalizes a feature map with the statistics of the batch.

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithm 1.

    Args:
        x: `[N, H, W, F]` float32, bfloat16 or float16.
        scale: `[F]` float32, gamma.
        offset: `[F]` float32, beta.
        epsilon: added to the variance.

    Returns:
        The normalized map, shape and dtype of `x`, and mean and variance of
        the batch, `[F]` float32. Gradients flow through the map alone, which
        has first and second derivatives in reverse mode, and first ones in
        forward mode.
    """
    x, scale, offset = map(tf.convert_to_tensor, (x, scale, offset))
    with record.stop_recording():
        y, mean, variance, *reserved = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=[],
            variance=[],
            epsilon=epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(x) // tf.size(scale), tf.float32)
        variance *= (count - 1.0) / count  # The kernel divides by count - 1.

        def kernel(dy, scale):
            return tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy,
                x=x,
                scale=scale,
                reserve_space_1=reserved[0],
                reserve_space_2=reserved[1],
                reserve_space_3=reserved[2],
                epsilon=epsilon,
                is_training=True,
            )[:3]

        inverse_std = tf.math.rsqrt(variance + epsilon)
        batch = _Batch(x, scale, mean, inverse_std, count, kernel)
    record.record_operation(
        "batch_norm", [y], [x, scale, offset], lambda dy: _gradient(dy, batch)
    )
    return y, mean, variance


def _gradient(dy, batch):
    """The gradients of x, scale and offset, differentiable by dy, x, scale."""
    with record.stop_recording():
        gradients = batch.kernel(dy, batch.scale)
    record.record_operation(
        "batch_norm_gradient",
        list(gradients),
        [dy, batch.x, batch.scale],
        lambda u, a, b: _second_gradient(u, a, b, dy, gradients[1], batch),
    )
    return gradients


def _second_gradient(u, a, b, dy, dscale, batch):
    """The gradient of sum(u dx + a dscale + b doffset) by dy, x and scale.

    With xhat = (x - mean) r, r = (variance + epsilon)^-1/2 and means <> over
    the batch, batch norm's gradient is
    dx = scale r (dy - <dy> - xhat <dy xhat>), dscale = sum dy xhat,
    doffset = sum dy. The projection in brackets is symmetric, so that the
    kernel also computes it for u, and for the derivative by xhat.
    """
    x, r = tf.cast(batch.x, tf.float32), batch.inverse_std
    wide_u, wide_dy = tf.cast(u, tf.float32), tf.cast(dy, tf.float32)
    ones = tf.ones_like(batch.scale)

    # In forward mode u, a and b are the tangents, and this is the result.
    du, u_xhat, _ = batch.kernel(u, batch.scale)
    by_dy = tf.cast(du, tf.float32) + x * (a * r) + (b - a * r * batch.mean)

    unscaled = tf.cast(batch.kernel(dy, ones)[0], tf.float32)
    by_scale = tf.reduce_sum(wide_u * unscaled, axis=[0, 1, 2])

    share = batch.scale * r / batch.count
    by_xhat = a * wide_dy - share * (wide_u * dscale + wide_dy * u_xhat)
    by_x = tf.cast(batch.kernel(tf.cast(by_xhat, u.dtype), ones)[0], tf.float32)
    # r depends on x as well: d r / d x = -r^2 xhat / count.
    by_x -= share * by_scale * (x - batch.mean) * r
    return tf.cast(by_dy, dy.dtype), tf.cast(by_x, dy.dtype), by_scale
