"""The distance of two gradients, and its derivative by labels.

Source: Jackson and Schulman, arXiv 1902.02336, of which the abstract alone was
at hand.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_metassl.meta import functional
from tf_metassl.ops import replicas
from tf_metassl.ops.checks import check_rank
from tf_metassl.ops.losses import cross_entropy


class Alignment(NamedTuple):
    """How far apart two gradients are, and how labels change that.

    Attributes:
        distance: scalar, the squared distance of the gradients.
        label: `[U, C]`, the labels of the images of this replica.
        derivative: `[U, C]`, d distance / d label at them. None of the three
            has a gradient.
        logits: `[U, C]`, the predictions at the parameters; differentiable.
    """

    distance: tf.Tensor
    label: tf.Tensor
    derivative: tf.Tensor
    logits: tf.Tensor


def alignment(
    logits_at: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    label_of: Callable[[tf.Tensor], tf.Tensor],
    params: Sequence[tf.Tensor],
    labeled_gradient: Sequence[tf.Tensor],
) -> Alignment:
    """The squared distance of the unlabeled from the labeled gradient.

    The unlabeled gradient is that of the mean cross-entropy over the global
    batch. The derivative is exact: the outer tape differentiates it by the
    labels.

    Args:
        logits_at: `params -> [U, C]`, the predictions for the unlabeled images
            of this replica, differentiable twice.
        label_of: `[U, C]` logits -> `[U, C]`, the labels at which the
            derivative is taken.
        params: list of tensors, the current parameters.
        labeled_gradient: list of tensors, the gradient of the mean labeled
            loss, summed over replicas.

    Returns:
        An `Alignment`.
    """
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(params)
            logits = logits_at(params)
            check_rank("logits_at(params)", logits, 2)
            label = tf.stop_gradient(label_of(logits))
            outer.watch(label)
            loss = replicas.share_of_mean(cross_entropy(label, logits))
        unlabeled_gradient = replicas.sum_over_replicas(
            functional.gradient(inner, loss, params)
        )
        distance = tf.add_n(
            [
                tf.reduce_sum((a - tf.stop_gradient(b)) ** 2)
                for a, b in zip(
                    unlabeled_gradient, labeled_gradient, strict=True
                )
            ]
        )
        # Every replica computes this distance, and the gradient of a sum over
        # replicas is a sum over replicas.
        share = distance / replicas.count()
    derivative = outer.gradient(share, label)
    # Never `IndexedSlices`, which the type stubs allow: no row is gathered.
    return Alignment(
        tf.stop_gradient(distance),
        label,
        tf.stop_gradient(derivative),
        logits,
    )
