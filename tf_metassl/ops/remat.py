"""Rematerialization: activations are computed again for the gradient.

Source: Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory
Cost", arXiv 1604.06174. A functional network is cut where a single tensor
connects the layers before with those after, such as between residual blocks.
Only these tensors are kept in memory; everything between them is computed a
second time when its gradient is needed.

Alternatives do not suffice: `keras.RematScope` keeps the input of every layer,
which saves almost nothing in networks of small layers, and the gradient of
`tf.recompute_grad` cannot be differentiated, which nested tapes need.
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
    """Prepares a network for `call`, which `functional.call` then uses.

    Args:
        network: a functional Keras model. If it has several outputs, each must
            be a function of the one before, such as logits of features.

    Raises:
        ValueError: if the model is not functional.
    """
    # Keras does not export the class of functional models.
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
    """Divides `network` into parts that are recomputed one at a time.

    Neighboring pieces are joined into parts of about equal size. The number of
    parts is the one with the least memory: kept tensors plus largest part, in
    elements per image.

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

    The tensor is the only one that crosses the cut; `elements` is the size of
    all outputs since the cut before, per image.
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
    found = [
        node
        for node in operation._inbound_nodes
        if any(node in nodes for nodes in network._nodes_by_depth.values())
    ]
    if len(found) > 1:
        raise ValueError(
            f"--remat cuts networks whose layers are called once; "
            f"{operation.name} is called {len(found)} times. Use "
            "--remat=false."
        )
    return found[0]


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
    """Elements per image in memory at once: kept and recomputed ones."""
    kept = sum(math.prod(group[-1][0].shape[1:]) for group in groups)
    return kept + max(sum(size for _, size in group) for group in groups)


def call(network, params, network_state, images):
    """`functional.call` in training, keeping only tensors between the parts.

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
    """Output and new state of a part, which its gradient computes again."""
    size = len(params)

    def outputs(x, params, state):
        y, new_state = part.stateless_call(params, state, x, training=True)
        return y, [tf.stop_gradient(value) for value in new_state]

    @tf.custom_gradient
    def run(x, *others):
        y, new_state = outputs(x, others[:size], others[size:])

        def gradient(upstream, *_):
            # Only when the gradient is needed, or no memory would be saved, and
            # without being merged with the first computation by the compiler.
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
    """`tensors`, made dependent on `upstream` such that XLA keeps the order.

    Adds a zero that the compiler cannot simplify, as `tf.recompute_grad` does:
    it depends on whether a number of `upstream` equals itself.
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
