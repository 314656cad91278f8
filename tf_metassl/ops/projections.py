"""Losses and measures of projections, for self-supervised methods."""

import tensorflow as tf

from tf_metassl.ops import replicas
from tf_metassl.ops.checks import check_rank, check_same_shape, known_size

# Added to a logit that is not to count; exp of it is 0 in every precision.
_NEVER = -1e9


def normalized(projections: tf.Tensor) -> tf.Tensor:
    """Scales rows to length 1; a row of zeros stays. `[N, D]` -> `[N, D]`."""
    return tf.math.l2_normalize(projections, axis=-1, epsilon=1e-12)


def nt_xent(
    first: tf.Tensor, second: tf.Tensor, temperature: float
) -> tf.Tensor:
    """The normalized, temperature-scaled cross-entropy of SimCLR.

    Each view of an image has to be told from all other views in the global
    batch by the other view of the same image. A view is not compared with
    itself.

    Args:
        first: `[N, D]`, the projections of one view of this replica's images.
        second: `[N, D]`, those of another view of the same images.
        temperature: divides the cosines.

    Returns:
        `[N]`, the mean over both views of an image, same dtype. Gradients flow
        to both arguments, also from the losses of other replicas.

    Source: Chen et al., arXiv 2002.05709, equation 1.
    """
    check_rank("first", first, 2)
    check_same_shape(first=first, second=second)
    size = known_size("first", first, 0)
    first, second = normalized(first), normalized(second)
    all_first = replicas.all_rows(first)
    all_second = replicas.all_rows(second)
    own = tf.range(size) + replicas.replica_id() * size
    is_own = tf.one_hot(own, size * replicas.count(), dtype=first.dtype)

    def losses(anchors, all_anchors, all_positives):
        others = tf.matmul(anchors, all_positives, transpose_b=True)
        same_view = tf.matmul(anchors, all_anchors, transpose_b=True)
        logits = tf.concat(
            [others / temperature, same_view / temperature + _NEVER * is_own],
            axis=1,
        )
        positive = tf.reduce_sum(others * is_own, axis=1) / temperature
        return tf.reduce_logsumexp(logits, axis=1) - positive

    return 0.5 * (
        losses(first, all_first, all_second)
        + losses(second, all_second, all_first)
    )


def info_nce(
    queries: tf.Tensor,
    keys: tf.Tensor,
    negatives: tf.Tensor,
    temperature: float,
) -> tf.Tensor:
    """Cross-entropy of the key of an image among the keys of others.

    Args:
        queries: `[N, D]` projections.
        keys: `[N, D]`, row i belongs to the image of query i.
        negatives: `[K, D]`, keys of other images, of length 1.
        temperature: divides the cosines.

    Returns:
        `[N]`, same dtype. No gradient flows to keys and negatives.

    Source: He et al., arXiv 1911.05722, equation 1.
    """
    check_same_shape(queries=queries, keys=keys)
    queries = normalized(queries)
    keys = tf.stop_gradient(normalized(keys))
    negatives = tf.stop_gradient(negatives)
    positive = tf.reduce_sum(queries * keys, axis=1, keepdims=True)
    others = tf.matmul(queries, negatives, transpose_b=True)
    logits = tf.concat([positive, others], axis=1) / temperature
    return tf.reduce_logsumexp(logits, axis=1) - logits[:, 0]


def cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The cosine of the angle between rows.

    Args:
        first: `[N, D]`.
        second: `[N, D]`.

    Returns:
        `[N]` in -1...1, same dtype. Gradients flow to both arguments.
    """
    check_same_shape(first=first, second=second)
    return tf.reduce_sum(normalized(first) * normalized(second), axis=1)


def cosine_distance(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """The squared distance of normalized rows, 2 - 2 cos.

    Args:
        predictions: `[N, D]`.
        targets: `[N, D]`.

    Returns:
        `[N]` in 0...4, same dtype. No gradient flows to the targets.

    Source: Grill et al., arXiv 2006.07733, equation 2.
    """
    check_same_shape(predictions=predictions, targets=targets)
    return 2.0 - 2.0 * cosine(predictions, tf.stop_gradient(targets))


def spread(projections: tf.Tensor) -> tf.Tensor:
    """How far normalized projections are from a single direction.

    Args:
        projections: `[N, D]`, the rows of this replica.

    Returns:
        A scalar, equal on every replica: the standard deviation over the
        global batch of each coordinate, the mean over coordinates, times the
        root of D. It is 0 if all rows have one direction, and about 1 for
        random directions. Without gradient.

    Source: Chen and He, arXiv 2011.10566, section 4.1.
    """
    rows = tf.stop_gradient(normalized(projections))
    mean = replicas.global_mean(rows)
    variance = replicas.global_mean(tf.square(rows - mean))
    size = tf.cast(tf.shape(rows)[1], rows.dtype)
    return tf.reduce_mean(tf.sqrt(variance)) * tf.sqrt(size)
