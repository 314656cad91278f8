"""The student's feedback to the teacher in Meta Pseudo Labels.

Pham, Dai, Xie, Luong, Le, arXiv 2003.10580. Everywhere h > 0 means that the
student's step on the pseudo-labels lowered its labeled loss, and the teacher
makes those labels more likely.
"""

import tensorflow as tf

from tf_metassl.checks import check_rank


def taylor(student_loss_before, student_loss_after):
    """h = CE before - CE after: first-order equal to `dot`, costs no gradient.

    Public code computes after - before, which inverts the sign.

    Args:
        student_loss_before: scalar labeled loss at the old parameters.
        student_loss_after: the same function at the new parameters.

    Returns:
        A scalar without gradient.
    """
    return tf.stop_gradient(student_loss_before - student_loss_after)


def dot(learning_rate, labeled_gradient, unlabeled_gradient):
    """h = lr * <labeled gradient, unlabeled gradient> (equation 12).

    Args:
        learning_rate: the student's, scalar.
        labeled_gradient: list of tensors, gradient of the mean labeled loss
            at the updated student, summed over replicas.
        unlabeled_gradient: list of tensors, gradient of the mean pseudo-label
            loss at the old student, summed over replicas.

    Returns:
        A scalar without gradient.
    """
    products = [
        tf.reduce_sum(a * b)
        for a, b in zip(labeled_gradient, unlabeled_gradient, strict=True)
    ]
    return tf.stop_gradient(learning_rate * tf.add_n(products))


def per_example(learning_rate, labeled_gradient, losses_at, params):
    """h_i = lr * <labeled gradient, gradient of example i's loss>.

    All N products come from one forward-mode pass. The expectation of
    1/N sum_i h_i CE_i is that of h sum_i CE_i, without the noise of the
    products between different examples.

    Args:
        learning_rate: the student's, scalar.
        labeled_gradient: as in `dot`.
        losses_at: `params -> [N]` pseudo-label losses.
        params: the old student's parameters, list of tensors.

    Returns:
        `[N]` without gradient.
    """
    with tf.autodiff.ForwardAccumulator(params, labeled_gradient) as along:
        losses = losses_at(params)
    check_rank("losses_at(params)", losses, 1)
    slope = along.jvp(losses, tf.UnconnectedGradients.ZERO)
    return tf.stop_gradient(learning_rate * slope)


def update_baseline(baseline, feedback, momentum):
    """baseline <- momentum * baseline + (1 - momentum) * feedback.

    Starts at 0 and is updated before it is subtracted, as in the released
    code, whose own baseline starts at a random value.

    Args:
        baseline: scalar tensor.
        feedback: scalar tensor.
        momentum: 0.99 in the released code.
    """
    return momentum * baseline + (1.0 - momentum) * feedback
