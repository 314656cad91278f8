"""A Keras network as a function of its parameters."""

import tensorflow as tf

from tf_metassl.ops import remat


def parameters(network):
    """The trainable variables' values as a list of tensors.

    Tensors, not variables: a gradient with respect to them cannot be cut by
    an assignment, and nothing computed from them can change the network.
    """
    return [tf.convert_to_tensor(v.value) for v in network.trainable_variables]


def state(network):
    """The non-trainable values: batch-norm averages and dropout seeds."""
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
        `(logits, new_state)`; the network itself is left bit-identical. The
        same state gives the same dropout masks.
    """
    if training and remat.is_on(network):
        return remat.call(network, params, network_state, images)
    return network.stateless_call(
        params, network_state, images, training=training
    )


def assign_state(network, new_state):
    """Makes the state returned by `call` the state of the network."""
    for variable, value in zip(
        network.non_trainable_variables, new_state, strict=True
    ):
        variable.assign(value)


def gradient(tape, target, params):
    """The gradient of a scalar, with zeros where a parameter has no part.

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
