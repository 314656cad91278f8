"""Meta gradients of example weights, and rules that turn them into weights.

Source: Meta-Semi (Wang, Guo, Song, Huang, arXiv 2007.02394). Comments give the
lines of its Algorithm 1.
"""

import typing
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_metassl.meta import functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.ops import replicas
from tf_metassl.ops.checks import check_rank

# What a method computes in the same forward pass as the losses.
Extra = typing.TypeVar("Extra")


class MetaPass(typing.NamedTuple, typing.Generic[Extra]):
    """The meta gradient, and the forward pass that the update uses again.

    Attributes:
        meta_gradient: `[N]`, d labeled loss / d example weight at weight 0.
        unlabeled_loss: `[N]`, the losses at the current parameters.
        extra: the second result of `losses_at` at the current parameters.
        tape: a persistent tape that recorded this forward pass. Enter it again
            to weight the losses, and the update needs no second forward pass.
    """

    meta_gradient: tf.Tensor
    unlabeled_loss: tf.Tensor
    extra: Extra
    tape: tf.GradientTape


def nested_tape(
    losses_at: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, Extra]],
    labeled_loss_at: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    params: Sequence[tf.Tensor],
    learning_rate: tf.Tensor | float,
    *,
    num_examples: int,
    num_lookahead_steps: int = 1,
) -> MetaPass[Extra]:
    """Algorithm 1 as printed: differentiates through the lookahead step.

    The lookahead follows the gradient of the global batch: gradients are summed
    over replicas, see `tf_metassl.ops.replicas`.

    Args:
        losses_at: `params -> (unlabeled_loss [N], extra)`, differentiable.
        labeled_loss_at: `params -> scalar`, this replica's share of the
            labeled loss.
        params: list of tensors, the current parameters theta.
        learning_rate: scalar alpha.
        num_examples: N, the examples of this replica.
        num_lookahead_steps: M. With all weights 0 a lookahead step does not
            change the parameters, so the result is M times that of one step.

    Returns:
        A `MetaPass`.
    """
    # Line 6: w <- 0, theta_0 <- theta.
    example_weight = tf.zeros([num_examples], params[0].dtype)
    with tf.GradientTape() as outer:
        outer.watch(example_weight)
        with tf.GradientTape(persistent=True) as shared:
            shared.watch(params)
            # Line 5: p(u | theta), used again by the update in line 13.
            unlabeled_loss, extra = losses_at(params)
            weighted_loss = tf.reduce_sum(example_weight * unlabeled_loss)
        # Lines 7 and 8.
        gradient = functional.gradient(shared, weighted_loss, params)
        lookahead_params = lookahead_step(
            params, replicas.sum_over_replicas(gradient), learning_rate
        )
        for _ in range(num_lookahead_steps - 1):
            with tf.GradientTape() as inner:
                inner.watch(lookahead_params)
                loss, _ = losses_at(lookahead_params)
                weighted_loss = tf.reduce_sum(example_weight * loss)
            gradient = functional.gradient(
                inner, weighted_loss, lookahead_params
            )
            lookahead_params = lookahead_step(
                lookahead_params,
                replicas.sum_over_replicas(gradient),
                learning_rate,
            )
        # Line 9.
        labeled_loss = labeled_loss_at(lookahead_params)
    # Line 10.
    meta_gradient = outer.gradient(labeled_loss, example_weight)
    # Never `IndexedSlices`, which the type stubs allow: no row is gathered.
    return MetaPass(meta_gradient, unlabeled_loss, extra, shared)  # type: ignore[arg-type]


def forward_mode(
    losses_at: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, Extra]],
    labeled_loss_at: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    params: Sequence[tf.Tensor],
    learning_rate: tf.Tensor | float,
    *,
    num_examples: int,
    num_lookahead_steps: int = 1,
) -> MetaPass[Extra]:
    """The same meta gradient as a forward-mode derivative.

    The slides derive it: at weight 0 the meta gradient of example j is
    -M * alpha * <grad of the labeled loss, grad of example j's loss>. One
    derivative along the gradient of the labeled loss gives all N inner
    products, in the same forward pass that the update differentiates.

    Where the forward pass sums over replicas, as synchronized batch norm does,
    it must do so by `tf_metassl.ops.replicas.sum_with_tangent`.

    Arguments and result are those of `nested_tape`.
    """
    del num_examples  # Part of the common signature.
    direction = _labeled_gradient(labeled_loss_at, params)
    with tf.GradientTape(persistent=True) as shared:
        shared.watch(params)
        along = replicas.ForwardMode(params, direction)
        with along.recording():
            unlabeled_loss, extra = losses_at(params)
        slope = along.jvp(unlabeled_loss)
    meta_gradient = -num_lookahead_steps * learning_rate * slope
    return MetaPass(
        tf.stop_gradient(meta_gradient), unlabeled_loss, extra, shared
    )


# Of the length of the parameters. A shorter step loses the difference of two
# losses in the rounding of float32, a longer one leaves the tangent.
_DIFFERENCE_STEP = 1e-4


def finite_difference(
    losses_at: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, Extra]],
    labeled_loss_at: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    params: Sequence[tf.Tensor],
    learning_rate: tf.Tensor | float,
    *,
    num_examples: int,
    num_lookahead_steps: int = 1,
) -> MetaPass[Extra]:
    """Nearly the same meta gradient, from a second forward pass.

    The derivative of `forward_mode` as a one-sided difference of the losses,
    whose error is about the rounding of a loss divided by the length of the
    step. `losses_at` must be the same function at both points: with the same
    dropout masks, and in float32 at least.

    Arguments and result are those of `nested_tape`.
    """
    del num_examples  # Part of the common signature.
    direction = _labeled_gradient(labeled_loss_at, params)
    length = tf.math.divide_no_nan(
        _DIFFERENCE_STEP * tf.linalg.global_norm(params),
        tf.linalg.global_norm(direction),
    )
    ahead = [p + length * d for p, d in zip(params, direction, strict=True)]
    loss_ahead, _ = losses_at(ahead)
    with tf.GradientTape(persistent=True) as shared:
        shared.watch(params)
        unlabeled_loss, extra = losses_at(params)
    slope = tf.math.divide_no_nan(loss_ahead - unlabeled_loss, length)
    meta_gradient = -num_lookahead_steps * learning_rate * slope
    return MetaPass(
        tf.stop_gradient(meta_gradient), unlabeled_loss, extra, shared
    )


def _labeled_gradient(
    labeled_loss_at: Callable[[Sequence[tf.Tensor]], tf.Tensor],
    params: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """The gradient of the labeled loss of the global batch."""
    with tf.GradientTape() as tape:
        tape.watch(params)
        labeled_loss = labeled_loss_at(params)
    return replicas.sum_over_replicas(
        functional.gradient(tape, labeled_loss, params)
    )


def within_margin(meta_gradient: tf.Tensor, margin: float) -> tf.Tensor:
    """Meta gradients from which a tolerated disagreement is subtracted.

    Args:
        meta_gradient: `[N]`, the examples of this replica.
        margin: multiple of the root mean square over the global batch; 0
            changes nothing.

    Returns:
        `[N]`, same dtype, without gradient if `margin` is not 0.
    """
    check_rank("meta_gradient", meta_gradient, 1)
    if not margin:
        return meta_gradient
    scale = tf.sqrt(replicas.global_mean(tf.square(meta_gradient)))
    return tf.stop_gradient(meta_gradient - margin * scale)


def indicator(meta_gradient: tf.Tensor) -> tf.Tensor:
    """Equation 9: 1 where the meta gradient is <= 0, else 0.

    Line 11 prints sign(max(-gradient, 0)), which is 0 at a gradient of exactly
    0. This function follows the case distinction of the derivation.

    Args:
        meta_gradient: `[N]`.

    Returns:
        `[N]`, same dtype, without gradient.
    """
    check_rank("meta_gradient", meta_gradient, 1)
    return tf.cast(meta_gradient <= 0, meta_gradient.dtype)


def constant(meta_gradient: tf.Tensor) -> tf.Tensor:
    """1 for every example: the ablation without reweighting, `[N]`."""
    check_rank("meta_gradient", meta_gradient, 1)
    return tf.ones_like(meta_gradient)


def plus_minus_one(meta_gradient: tf.Tensor) -> tf.Tensor:
    """1 where the meta gradient is <= 0, else -1: an ablation, `[N]`."""
    return 2.0 * indicator(meta_gradient) - 1.0


def relu(meta_gradient: tf.Tensor) -> tf.Tensor:
    """max(-gradient, 0): learning-to-reweight's rule before normalization.

    Source: Ren et al., arXiv 1803.09050, equation 8.
    """
    check_rank("meta_gradient", meta_gradient, 1)
    return tf.stop_gradient(tf.nn.relu(-meta_gradient))


RULES = {
    "indicator": indicator,
    "constant": constant,
    "plus_minus_one": plus_minus_one,
    "relu_norm": relu,
}


def normalized(example_weight: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Divides weights by their global total; 0 where the total is 0.

    Args:
        example_weight: `[N]`.
        total: scalar, the sum of |weight| over the global batch.

    Returns:
        `[N]`, never NaN.
    """
    check_rank("example_weight", example_weight, 1)
    return tf.math.divide_no_nan(example_weight, total)
