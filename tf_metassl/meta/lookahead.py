"""A differentiable SGD step; not the Lookahead optimizer of Zhang et al."""

from collections.abc import Sequence

import tensorflow as tf


def lookahead_step(
    params: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor | None],
    learning_rate: tf.Tensor | float,
) -> list[tf.Tensor]:
    """The parameters after one plain SGD step, as tensors.

    Keras optimizers assign to variables, which stops gradients. This function
    computes tensors, so that an outer tape can differentiate through the step.

    Source: Meta-Semi, Algorithm 1, line 8; Meta Pseudo Labels, equation 3.

    Args:
        params: list of tensors.
        gradients: list of tensors of the same shapes; None counts as zero.
        learning_rate: scalar.

    Returns:
        List of tensors; gradients flow to all three arguments.
    """
    return [
        p if g is None else p - learning_rate * g
        for p, g in zip(params, gradients, strict=True)
    ]
