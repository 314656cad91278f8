"""The student's feedback to the teacher in Meta Pseudo Labels.

Source: Pham, Dai, Xie, Luong, Le, arXiv 2003.10580. In all functions h > 0
means that the student's step on the pseudo-labels lowered its labeled loss, and
that the teacher makes these labels more likely.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_metassl.meta import functional
from tf_metassl.ops import replicas
from tf_metassl.ops.checks import check_rank


def taylor(
    student_loss_before: tf.Tensor, student_loss_after: tf.Tensor
) -> tf.Tensor:
    """h = CE before - CE after: equal to `dot` to first order.

    It needs no gradient. Public code computes after - before, which inverts the
    sign.

    Args:
        student_loss_before: scalar labeled loss at the old parameters.
        student_loss_after: the same function at the new parameters.

    Returns:
        A scalar without gradient.
    """
    return tf.stop_gradient(student_loss_before - student_loss_after)


def dot(
    learning_rate: tf.Tensor | float,
    labeled_gradient: Sequence[tf.Tensor],
    unlabeled_gradient: Sequence[tf.Tensor],
    *,
    keep_gradient: bool = False,
) -> tf.Tensor:
    """h = lr * <labeled gradient, unlabeled gradient> (equation 12).

    Args:
        learning_rate: the student's, scalar.
        labeled_gradient: list of tensors, gradient of the mean labeled loss
            at the updated student, summed over replicas.
        unlabeled_gradient: list of tensors, gradient of the mean pseudo-label
            loss at the old student, summed over replicas.
        keep_gradient: whether gradients flow to the arguments.

    Returns:
        A scalar, without gradient unless `keep_gradient`.
    """
    products = [
        tf.reduce_sum(a * b)
        for a, b in zip(labeled_gradient, unlabeled_gradient, strict=True)
    ]
    product = learning_rate * tf.add_n(products)
    return product if keep_gradient else tf.stop_gradient(product)


def per_example(
    learning_rate: tf.Tensor | float,
    labeled_gradient: Sequence[tf.Tensor],
    losses_at: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    params: Sequence[tf.Tensor],
    *,
    forward_mode: bool = True,
) -> tf.Tensor:
    """h_i = lr * <labeled gradient, gradient of example i's loss>.

    The expectation of 1/N sum_i h_i CE_i is that of h sum_i CE_i, without the
    noise of the products between different examples. A single forward-mode pass
    gives all N products.

    Args:
        learning_rate: the student's, scalar.
        labeled_gradient: as in `dot`.
        losses_at: `params -> [N]` pseudo-label losses of this replica.
        params: the old student's parameters, list of tensors.
        forward_mode: False differentiates the inner product with respect to
            weights of the losses, in more time. For networks with sums over
            replicas that are no `tf_metassl.ops.replicas.sum_with_tangent`.

    Returns:
        `[N]` without gradient.
    """
    if forward_mode:
        along = replicas.ForwardMode(params, labeled_gradient)
        with along.recording():
            losses = losses_at(params)
        check_rank("losses_at(params)", losses, 1)
        return tf.stop_gradient(learning_rate * along.jvp(losses))

    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(params)
            losses = losses_at(params)
            check_rank("losses_at(params)", losses, 1)
            weight = tf.ones_like(losses)
            outer.watch(weight)
            weighted_loss = tf.reduce_sum(weight * losses)
        gradient = replicas.sum_over_replicas(
            functional.gradient(inner, weighted_loss, params)
        )
        # Every replica computes this product, and the gradient of a sum over
        # replicas is a sum over replicas.
        product = dot(1.0, labeled_gradient, gradient, keep_gradient=True)
        product /= replicas.count()
    by_weight = outer.gradient(product, weight)
    # Never `IndexedSlices`, which the type stubs allow: no row is gathered.
    return tf.stop_gradient(learning_rate * by_weight)  # type: ignore[operator]


def update_baseline(
    baseline: tf.Tensor, feedback: tf.Tensor, momentum: float
) -> tf.Tensor:
    """baseline <- momentum * baseline + (1 - momentum) * feedback.

    Start it at 0 and update it before it is subtracted, as in the released
    code, except that the released code starts it at a random value.

    Args:
        baseline: scalar tensor.
        feedback: scalar tensor.
        momentum: 0.99 in the released code.

    Returns:
        The new baseline, a scalar tensor.
    """
    return momentum * baseline + (1.0 - momentum) * feedback
