"""A Keras network as a function of its parameters."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_metassl.ops import averaging, remat


def parameters(network: keras.Model) -> list[tf.Tensor]:
    """The values of the trainable variables, a list of tensors.

    They are tensors, not variables, so that later assignments to the variables
    change neither them nor gradients with respect to them.
    """
    return [tf.convert_to_tensor(v.value) for v in network.trainable_variables]


def state(network: keras.Model) -> list[tf.Tensor]:
    """The values of the other variables: batch-norm averages, dropout seeds."""
    return [
        tf.convert_to_tensor(v.value) for v in network.non_trainable_variables
    ]


def call(
    network: keras.Model,
    params: Sequence[tf.Tensor],
    network_state: Sequence[tf.Tensor],
    images: tf.Tensor,
    *,
    training: bool = True,
) -> tuple[tf.Tensor | Sequence[tf.Tensor], list[tf.Tensor]]:
    """Runs `network` with the given parameters and state.

    Args:
        network: a built Keras model.
        params: tensors in the order of `network.trainable_variables`.
        network_state: tensors in the order of
            `network.non_trainable_variables`.
        images: `[N, H, W, C]`.
        training: as in Keras; True uses batch statistics and dropout.

    Returns:
        `(logits, new_state)`, with all outputs in place of the logits if the
        network has several. No variable of the network changes. The same state
        gives the same dropout masks.
    """
    if training and remat.is_on(network):
        return remat.call(network, params, network_state, images)
    return network.stateless_call(
        params, network_state, images, training=training
    )


def call_average(
    average: keras.Model,
    network: keras.Model,
    network_state: Sequence[tf.Tensor],
    images: tf.Tensor,
) -> tuple[tf.Tensor | Sequence[tf.Tensor], list[tf.Tensor]]:
    """Runs the average of a network in training mode.

    It is `network` that runs, with the average's parameters: the average itself
    is not trainable, so that its batch norm would be in inference mode,
    whatever it is called with.

    Args:
        average: an `averaging.copy_of` the network, or the network itself.
        network: the network.
        network_state: see `call`.
        images: `[N, H, W, C]`.

    Returns:
        See `call`.
    """
    return call(
        network, averaging.parameters(average, network), network_state, images
    )


def assign_state(network: keras.Model, new_state: Sequence[tf.Tensor]) -> None:
    """Assigns the state that `call` returned to the network."""
    for variable, value in zip(
        network.non_trainable_variables, new_state, strict=True
    ):
        variable.assign(value)


def gradient(
    tape: tf.GradientTape, target: tf.Tensor, params: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The gradient of a scalar; zeros for parameters that it is independent of.

    Args:
        tape: a gradient tape that watched `params`.
        target: a scalar.
        params: list of tensors.

    Returns:
        List of tensors of the parameters' shapes.
    """
    # `IndexedSlices`, which the type stubs allow, are gradients of tensors from
    # which rows are gathered; parameters of image classifiers are not.
    return tape.gradient(  # type: ignore[return-value]
        target, params, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
