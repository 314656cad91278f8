"""The costs of a network: parameters, operations, memory."""

import contextlib
import dataclasses
import math

import keras
from keras import layers
from keras.src.backend.common import global_state

# Layers that do 2 operations per weight and position of their output.
_MULTIPLIERS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv2D,
    layers.Dense,
)


@dataclasses.dataclass(frozen=True)
class Costs:
    """The costs of one network.

    Attributes:
        trainable: number of trained values.
        averages: number of other values, such as batch-norm averages.
        flops: operations of a forward pass per image. A multiply-add counts
            2; convolutions, dense layers and self-attention count, nothing
            else.
        activation_bytes: per image, the outputs of all layers together, about
            the memory that training keeps for the backward pass.
    """

    trainable: int
    averages: int
    flops: int
    activation_bytes: int


@contextlib.contextmanager
def shapes_only():
    """A context in which networks are built without memory for variables.

    Their variables have shapes only. Such a network can be inspected, but not
    run, also after the context has ended.
    """
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Keras would initialize them at the end of its next such scope.
        global_state.set_global_attribute("uninitialized_variables", [])


def of(network):
    """The `Costs` of a Keras network of fixed image size.

    A layer that the network calls several times counts once.
    """

    def count(variables):
        # Dropout's random states are integers.
        return sum(
            math.prod(v.shape)
            for v in variables
            if keras.backend.is_float_dtype(v.dtype)
        )

    leaves = list(_leaves(network))
    return Costs(
        trainable=count(network.trainable_variables),
        averages=count(network.non_trainable_variables),
        flops=sum(map(_flops, leaves)),
        activation_bytes=sum(map(_output_bytes, leaves)),
    )


def _leaves(network):
    """All layers except inputs, including those of nested networks."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        elif not isinstance(layer, layers.InputLayer):
            yield layer


def _flops(layer):
    if isinstance(layer, layers.MultiHeadAttention):
        # Self-attention of T tokens of as many features as it returns: four
        # dense layers, and two products of T x T.
        tokens, width = layer.output.shape[1:]
        return 2 * tokens * width * (4 * width + 2 * tokens)
    if isinstance(layer, layers.SeparableConv2D):
        weights = sum(math.prod(v.shape) for v in layer.weights)
        return 2 * weights * math.prod(layer.output.shape[1:-1])
    if not isinstance(layer, _MULTIPLIERS):
        return 0
    # `layer.kernel` may be computed, as with weight norm.
    kernel = next(v for v in layer.weights if v.name == "kernel")
    return 2 * math.prod(kernel.shape) * math.prod(layer.output.shape[1:-1])


def _output_bytes(layer):
    return sum(
        math.prod(tensor.shape[1:]) * _itemsize(tensor.dtype)
        for tensor in keras.tree.flatten(layer.output)
    )


def _itemsize(dtype):
    return {"bool": 1, "bfloat16": 2}.get(dtype) or int(dtype[-2:]) // 8
