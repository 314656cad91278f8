"""Losses and measures of projections, for self-supervised methods."""

import numpy as np
import tensorflow as tf

from tf_metassl.ops import replicas
from tf_metassl.ops.checks import check_rank, check_same_shape, known_size

# Added to a logit that is not to count; exp of it is 0 in every precision.
NEVER = -1e9


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
            [others / temperature, same_view / temperature + NEVER * is_own],
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


def random_directions(shape: tuple[int, int], seed: int) -> np.ndarray:
    """`[N, D]` rows of length 1, float64, the same in every process."""
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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


def noise_contrast(
    rows: tf.Tensor,
    entries: tf.Tensor,
    negatives: tf.Tensor,
    is_own: tf.Tensor,
    temperature: float,
) -> tf.Tensor:
    """The noise-contrastive loss of projections against a memory bank.

    With h(m, v) = exp(cos(m, v) / T) / (exp(cos(m, v) / T) + the sum of
    exp(cos(n, v) / T) over the negatives n), the loss of a projection v with
    the entry m is -log h(m, v) - the sum of log(1 - h(n, v)) over n.

    Args:
        rows: `[N, D]` projections v.
        entries: `[N, D]`, of length 1; row i is that of the image of row i.
        negatives: `[K, D]`, of length 1, those that are shared by all rows.
        is_own: `[N, K]` bool, where the negative is the row's own image; it
            is left out.
        temperature: T, divides the cosines.

    Returns:
        `[N]`, same dtype. No gradient flows to entries and negatives.

    Source: Misra and van der Maaten, arXiv 1912.01991, equations 3 and 4.
    """
    check_same_shape(rows=rows, entries=entries)
    rows = normalized(rows)
    entries, negatives = tf.stop_gradient(entries), tf.stop_gradient(negatives)
    positive = tf.reduce_sum(rows * entries, axis=1) / temperature
    others = tf.matmul(rows, negatives, transpose_b=True) / temperature
    others += NEVER * tf.cast(is_own, others.dtype)
    noise = tf.reduce_logsumexp(others, axis=1)
    of_others = tf.nn.softplus(others - noise[:, tf.newaxis])
    # Where all negatives are left out, `others - noise` is finite.
    of_others = tf.where(is_own, tf.zeros_like(others), of_others)
    return tf.nn.softplus(noise - positive) + tf.reduce_sum(of_others, axis=1)


def prototype_contrast(
    rows: tf.Tensor,
    prototypes: tf.Tensor,
    concentrations: tf.Tensor,
    assigned: tf.Tensor,
) -> tf.Tensor:
    """Cross-entropy of the prototype of an image among all prototypes.

    Args:
        rows: `[N, D]` projections.
        prototypes: `[K, D]`, of length 1.
        concentrations: `[K]`, phi; each divides the cosines with its
            prototype.
        assigned: `[N]` integers, the prototype of each row.

    Returns:
        `[N]`, same dtype. Gradients flow to `rows` only.

    Source: Li et al., arXiv 2005.04966, equation 11, the second term, with all
    prototypes instead of a sample of them.
    """
    check_rank("rows", rows, 2)
    prototypes = tf.stop_gradient(prototypes)
    concentrations = tf.stop_gradient(concentrations)
    cosines = tf.matmul(normalized(rows), prototypes, transpose_b=True)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        assigned, cosines / concentrations
    )


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
