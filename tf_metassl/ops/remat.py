"""Activations that are computed again for the gradient instead of kept.

Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost",
arXiv 1604.06174. A functional network is cut where a single tensor connects its
layers before with those after, such as between residual blocks. Only those
tensors are kept; what lies between them is computed a second time when its
gradient is needed.

`keras.RematScope` keeps the input of every single layer and so saves next to
nothing in a network whose layers are small, and the gradient of
`tf.recompute_grad` has no gradient itself, which nested tapes need.
"""

import dataclasses
import itertools
import math

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Keeps Keras from tracking the parts as layers of the network.

    Attributes:
        sections: one for each output, the parts that lead to it from the
            output before, or from the input.
    """

    sections: tuple[tuple[keras.Model, ...], ...]


def switch_on(network):
    """Makes `call` possible and `functional.call` use it in training.

    Args:
        network: a functional Keras model. Of several outputs each must be
            computed from the one before alone, such as logits from features.

    Raises:
        ValueError: if the model is not functional.
    """
    # Keras does not export the class.
    if not hasattr(network, "_operations_by_depth"):
        raise ValueError(
            "--remat cuts functional Keras models; this network is a "
            f"{type(network).__name__}. Use --remat=false."
        )
    ends = [network.input, *network.outputs]
    network.recomputed_parts = _Parts(
        tuple(
            tuple(segments(keras.Model(first, last)))
            for first, last in itertools.pairwise(ends)
        )
    )


def is_on(network):
    """Whether `switch_on` was called for `network`."""
    return hasattr(network, "recomputed_parts")


def segments(network):
    """Parts of `network` to be computed again one at a time.

    Of all ways to join neighboring parts into longer ones that are about
    equally large, the one with the smallest sum of kept tensors and largest
    part, in elements per image.

    Args:
        network: a functional Keras model with one input and one output.

    Returns:
        A list of Keras models that share the layers of `network` and, one
        after another, are the same function.
    """
    pieces = _pieces(network)
    candidates = [_joined(pieces, count) for count in range(1, len(pieces) + 1)]
    best = min(candidates, key=_peak)
    tensors = [network.input, *(group[-1][0] for group in best)]
    return [
        keras.Model(first, last) for first, last in itertools.pairwise(tensors)
    ]


def _pieces(network):
    """`(tensor, elements)` for every cut, in order.

    The tensor is the only one that crosses the cut, and `elements` is how much
    the operations since the cut before put out, per image.
    """
    operations = [
        op
        for op in _in_order(network)
        if not isinstance(op, keras.layers.InputLayer)
    ]
    last_use = {id(network.input): -1}
    for place, op in enumerate(operations):
        for tensor in _node(network, op).input_tensors:
            last_use[id(tensor)] = place
    last_use[id(network.output)] = len(operations)
    pieces, alive, elements = [], {id(network.input)}, 0
    for place, op in enumerate(operations):
        (output,) = _node(network, op).output_tensors
        elements += math.prod(output.shape[1:])
        alive.add(id(output))
        alive = {key for key in alive if last_use[key] > place}
        if alive == {id(output)}:
            pieces.append((output, elements))
            elements = 0
    return pieces


def _in_order(network):
    """The operations of `network`, each after those that it reads from."""
    depths = network._operations_by_depth
    return [op for _, ops in sorted(depths.items())[::-1] for op in ops]


def _node(network, operation):
    """The call of `operation` that belongs to `network`."""
    (node,) = [
        node
        for node in operation._inbound_nodes
        if any(node in nodes for nodes in network._nodes_by_depth.values())
    ]
    return node


def _joined(pieces, count):
    """`pieces` in at most `count` groups of about equal size."""
    share = sum(elements for _, elements in pieces) / count
    groups, done = [[]], 0
    for piece in pieces:
        if groups[-1] and done + piece[1] / 2 > share * len(groups):
            groups.append([])
        groups[-1].append(piece)
        done += piece[1]
    return groups


def _peak(groups):
    """Elements per image that are alive at once: kept and computed again."""
    kept = sum(math.prod(group[-1][0].shape[1:]) for group in groups)
    return kept + max(sum(size for _, size in group) for group in groups)


def call(network, params, network_state, images):
    """`functional.call` in training, keeping only what is between the parts.

    Args:
        network: a Keras model for which `switch_on` was called.
        params: tensors in the order of `network.trainable_variables`.
        network_state: tensors in the order of
            `network.non_trainable_variables`.
        images: `[N, H, W, C]`.

    Returns:
        `(logits, new_state)`, or a list of all outputs in place of the logits
        if there are several; can be differentiated as often as the network
        itself.
    """
    value = {
        id(variable): tensor
        for variables, tensors in (
            (network.trainable_variables, params),
            (network.non_trainable_variables, network_state),
        )
        for variable, tensor in zip(variables, tensors, strict=True)
    }
    x, outputs = tf.cast(images, network.input.dtype), []
    for section in network.recomputed_parts.sections:
        for part in section:
            state = part.non_trainable_variables
            x, new_state = _recomputed(
                part,
                x,
                [value[id(v)] for v in part.trainable_variables],
                [value[id(v)] for v in state],
            )
            for variable, tensor in zip(state, new_state, strict=True):
                value[id(variable)] = tensor
        outputs.append(x)
    return (
        outputs if len(outputs) > 1 else x,
        [value[id(v)] for v in network.non_trainable_variables],
    )


def _recomputed(part, x, params, state):
    """One part's output and new state; its gradient runs it again."""
    size = len(params)

    def outputs(x, params, state):
        y, new_state = part.stateless_call(params, state, x, training=True)
        return y, [tf.stop_gradient(value) for value in new_state]

    @tf.custom_gradient
    def run(x, *others):
        y, new_state = outputs(x, others[:size], others[size:])

        def gradient(upstream, *_):
            # Not before its gradient is asked for, or nothing would be saved;
            # and not merged with the first time by the compiler.
            again = _after(upstream, [x, *others])
            inputs = again[: size + 1]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                y, _ = outputs(again[0], again[1 : size + 1], again[size + 1 :])
            gradients = tape.gradient(
                y,
                inputs,
                upstream,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return [*gradients, *[None] * len(state)]

        return (y, *new_state), gradient

    y, *new_state = run(x, *params, *state)
    return y, new_state


def _after(upstream, tensors):
    """`tensors`, but not before `upstream` is known, also under XLA.

    Zero is added that the compiler cannot know to be zero, as
    `tf.recompute_grad` does: whether a number equals itself.
    """
    first = tf.reshape(upstream, [-1])[0]
    zero = tf.where(tf.equal(first, first), 0.0, float("nan"))
    zero = tf.stop_gradient(zero)
    with tf.control_dependencies([upstream]):
        return [
            tensor + tf.cast(zero, tensor.dtype)
            if tensor.dtype.is_floating
            else tf.identity(tensor)
            for tensor in tensors
        ]
