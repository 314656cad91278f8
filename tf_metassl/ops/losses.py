"""Losses of a batch: one value per example, `[N]`, without reduction."""

import tensorflow as tf

from tf_metassl.ops.checks import check_rank, check_same_shape, known_size


def smooth_labels(labels: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """Mixes a distribution over classes with the uniform one.

    Args:
        labels: `[N, C]` distributions over classes.
        label_smoothing: a in (1 - a) * label + a / C; 0 changes nothing.

    Returns:
        `[N, C]`, same dtype.

    Source: Szegedy et al., arXiv 1512.00567, section 7.
    """
    check_rank("labels", labels, 2)
    if not label_smoothing:
        return labels
    num_classes = known_size("labels", labels, -1)
    return (1.0 - label_smoothing) * labels + label_smoothing / num_classes


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy between target distributions and predicted logits.

    Args:
        labels: `[N, C]` distributions over classes, soft or one-hot.
        logits: `[N, C]` of the same dtype.

    Returns:
        `[N]`: -sum_c labels_c log softmax(logits)_c. Gradients flow to both
        arguments; stop the gradient of a pseudo-label where it is made.

    Raises:
        ValueError: if the arguments are not two matrices of one shape.
    """
    check_rank("logits", logits, 2)
    check_same_shape(labels=labels, logits=logits)
    # Not the fused op: its gradient has no forward-mode rule and stops second
    # derivatives with respect to `labels`, which the differentiable soft labels
    # of Meta Pseudo Labels need.
    return -tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=-1)


def squared_error(targets: tf.Tensor, probs: tf.Tensor) -> tf.Tensor:
    """Squared difference of two distributions, averaged over the classes.

    Args:
        targets: `[N, C]` probabilities.
        probs: `[N, C]` probabilities of the same dtype.

    Returns:
        `[N]`: 1/C sum_c (target_c - prob_c)^2. Gradients flow to both
        arguments.

    Raises:
        ValueError: if the arguments are not two matrices of one shape.

    Source: the consistency loss of Laine and Aila, arXiv 1610.02242.
    """
    check_rank("probs", probs, 2)
    check_same_shape(targets=targets, probs=probs)
    return tf.reduce_mean((targets - probs) ** 2, axis=-1)


def entropy(logits: tf.Tensor) -> tf.Tensor:
    """Entropy of the predicted distribution.

    Args:
        logits: `[N, C]`.

    Returns:
        `[N]`: -sum_c p_c log p_c with p = softmax(logits).

    Source: Grandvalet and Bengio, NIPS 2004.
    """
    check_rank("logits", logits, 2)
    return cross_entropy(tf.nn.softmax(logits), logits)


def kl_divergence(target_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """KL divergence from a target distribution to a predicted one.

    Args:
        target_logits: `[N, C]`; stop their gradient if they are a target.
        logits: `[N, C]` of the same dtype.

    Returns:
        `[N]`: sum_c p_c (log p_c - log q_c) with p = softmax(target_logits)
        and q = softmax(logits).
    """
    target = tf.nn.softmax(target_logits)
    return cross_entropy(target, logits) - cross_entropy(target, target_logits)


def consistency_cross_entropy(
    target_logits: tf.Tensor,
    logits: tf.Tensor,
    *,
    temperature: float,
    threshold: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The unlabeled loss of UDA: sharpened, thresholded cross-entropy.

    Args:
        target_logits: `[N, C]` logits of the weak view; no gradient flows to
            them.
        logits: `[N, C]` logits of the strong view.
        temperature: divides the target logits; 1 changes nothing.
        threshold: examples whose sharpened confidence is below it get loss 0;
            0 keeps all.

    Returns:
        `(loss, confidence_mask)`, two `[N]` tensors. Rejected examples have
        loss 0; include them in the mean over `[N]`.

    Source: Xie et al., arXiv 1904.12848; the mask on the sharpened
    probabilities follows the released code of Meta Pseudo Labels.
    """
    check_rank("target_logits", target_logits, 2)
    target = tf.stop_gradient(tf.nn.softmax(target_logits / temperature))
    confidence = tf.reduce_max(target, axis=-1)
    confidence_mask = tf.cast(confidence >= threshold, logits.dtype)
    return confidence_mask * cross_entropy(target, logits), confidence_mask
