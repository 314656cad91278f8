"""Pseudo-labels: targets made from predictions, without gradient."""

import tensorflow as tf

from tf_metassl.ops.checks import check_rank, known_size


def soft(logits: tf.Tensor) -> tf.Tensor:
    """The predicted distribution itself.

    Args:
        logits: `[N, C]`.

    Returns:
        `[N, C]` probabilities without gradient.
    """
    check_rank("logits", logits, 2)
    return tf.stop_gradient(tf.nn.softmax(logits))


def one_hot(logits: tf.Tensor) -> tf.Tensor:
    """The most likely class as a one-hot distribution.

    Source: Lee, "Pseudo-Label", ICML workshop 2013, equation 14.

    Args:
        logits: `[N, C]`.

    Returns:
        `[N, C]`, same dtype, without gradient.
    """
    check_rank("logits", logits, 2)
    label = tf.argmax(logits, axis=-1)
    return tf.one_hot(label, logits.shape[-1], dtype=logits.dtype)


def sampled(logits: tf.Tensor, label_draw: tf.Tensor) -> tf.Tensor:
    """A class sampled from the predicted distribution, one-hot.

    The draw is part of the batch, so that the sample depends on the step and
    the example only, not on the number of replicas or on earlier draws.

    Source: Pham et al., arXiv 2003.10580, Algorithm 1 (y_u ~ P(.|x_u)).

    Args:
        logits: `[N, C]`.
        label_draw: `[N]` uniform in [0, 1); inverted through the cumulative
            distribution.

    Returns:
        `[N, C]` one-hot, dtype of the logits, without gradient.
    """
    check_rank("logits", logits, 2)
    check_rank("label_draw", label_draw, 1)
    cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)
    draw = tf.cast(label_draw, cumulative.dtype)[:, tf.newaxis]
    below = tf.cast(cumulative <= draw, tf.int32)
    # Rounding may leave the last cumulative value just under 1.
    num_classes = known_size("logits", logits, -1)
    label = tf.minimum(tf.reduce_sum(below, axis=-1), num_classes - 1)
    return tf.one_hot(label, num_classes, dtype=logits.dtype)


def sharpened(probs: tf.Tensor, temperature: float) -> tf.Tensor:
    """Probabilities to the power of 1 / temperature, normalized.

    Source: Berthelot et al., arXiv 1905.02249, equation 7.

    Args:
        probs: `[N, C]` probabilities.
        temperature: 1 changes nothing; toward 0 the result is one-hot.

    Returns:
        `[N, C]`, same dtype, without gradient.
    """
    check_rank("probs", probs, 2)
    # Powers of small probabilities underflow, logarithms do not.
    log_probs = tf.math.log(tf.maximum(probs, 1e-30))
    return soft(log_probs / temperature)


def aligned(
    probs: tf.Tensor, *, target: tf.Tensor, current: tf.Tensor
) -> tf.Tensor:
    """Distribution alignment: predictions scaled toward a class distribution.

    Source: Berthelot et al., arXiv 1911.09785, section 3.1.

    Args:
        probs: `[N, C]` probabilities.
        target: `[C]`, the desired distribution of the classes.
        current: `[C]`, the running mean of the predictions.

    Returns:
        `[N, C]`: probs * target / current with rows that sum to 1; same dtype,
        without gradient.
    """
    check_rank("probs", probs, 2)
    check_rank("target", target, 1)
    check_rank("current", current, 1)
    ratio = (target + 1e-6) / (current + 1e-6)
    scaled = probs * tf.cast(ratio, probs.dtype)
    return tf.stop_gradient(
        scaled / tf.reduce_sum(scaled, axis=-1, keepdims=True)
    )


def on_simplex(values: tf.Tensor) -> tf.Tensor:
    """The nearest distribution to each row, in the Euclidean distance.

    Source: Duchi et al., "Efficient Projections onto the l1-Ball", ICML 2008,
    figure 1.

    Args:
        values: `[N, C]` numbers.

    Returns:
        `[N, C]`, same dtype, max(value - t, 0) with the t of each row for which
        it sums to 1; without gradient.
    """
    check_rank("values", values, 2)
    num_classes = known_size("values", values, -1)
    descending = tf.sort(values, axis=-1, direction="DESCENDING")
    excess = tf.cumsum(descending, axis=-1) - 1.0
    count = tf.range(1, num_classes + 1)
    # t, if so many of the largest values stay positive.
    shift = excess / tf.cast(count, values.dtype)
    num_positive = tf.reduce_sum(
        tf.cast(descending > shift, tf.int32), axis=-1, keepdims=True
    )
    is_last = tf.cast(count == num_positive, values.dtype)
    shift = tf.reduce_sum(is_last * shift, axis=-1, keepdims=True)
    return tf.stop_gradient(tf.nn.relu(values - shift))
