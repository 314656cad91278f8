"""A Keras network as a function of its parameters."""

import tensorflow as tf

from tf_metassl.ops import remat


def parameters(network):
    """The values of the trainable variables, a list of tensors.

    They are tensors, not variables, so that later assignments to the variables
    change neither them nor gradients with respect to them.
    """
    return [tf.convert_to_tensor(v.value) for v in network.trainable_variables]


def state(network):
    """The values of the other variables: batch-norm averages, dropout seeds."""
    return [
        tf.convert_to_tensor(v.value) for v in network.non_trainable_variables
    ]


def call(network, params, network_state, images, *, training=True):
    """Runs `network` with the given parameters and state.

    Args:
        network: a built Keras model.
        params: tensors in the order of `network.trainable_variables`.
        network_state: tensors in the order of
            `network.non_trainable_variables`.
        images: `[N, H, W, C]`.
        training: as in Keras; True uses batch statistics and dropout.

    Returns:
        `(logits, new_state)`. No variable of the network changes. The same
        state gives the same dropout masks.
    """
    if training and remat.is_on(network):
        return remat.call(network, params, network_state, images)
    return network.stateless_call(
        params, network_state, images, training=training
    )


def assign_state(network, new_state):
    """Assigns the state that `call` returned to the network."""
    for variable, value in zip(
        network.non_trainable_variables, new_state, strict=True
    ):
        variable.assign(value)


def gradient(tape, target, params):
    """The gradient of a scalar; zeros for parameters that it is independent of.

    Args:
        tape: a gradient tape that watched `params`.
        target: a scalar.
        params: list of tensors.

    Returns:
        List of tensors of the parameters' shapes.
    """
    return tape.gradient(
        target, params, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
