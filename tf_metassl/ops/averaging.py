"""Exponential moving averages of networks and of single variables."""

import keras
import tensorflow as tf


def ramped_decay(ema_decay: float, num_updates: tf.Tensor | int) -> tf.Tensor:
    """min(ema_decay, (1 + t) / (10 + t)): a smaller decay at first.

    Golden values for `ema_decay` = 0.995: 0.1 at t = 0, 0.917 at t = 99,
    0.991 at t = 1000, and 0.995 from about t = 1790 on.

    Args:
        ema_decay: the final decay.
        num_updates: scalar integer tensor, t, the number of earlier updates.

    Returns:
        A float32 scalar.
    """
    step = tf.cast(num_updates, tf.float32)
    return tf.minimum(ema_decay, (1.0 + step) / (10.0 + step))


def copy_of(network: keras.Model, name: str = "ema") -> keras.Model:
    """A second network with the same weights, none of them trainable."""
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    twin.trainable = False
    twin.name = name
    return twin


def trainable_copy(
    network: keras.Model, like: keras.Model, name: str
) -> keras.Model:
    """A second network with the same weights, to be trained.

    Args:
        network: whose weights it has.
        like: of the same architecture; what is frozen there is frozen here.
        name: of the copy.
    """
    twin = copy_of(network, name)
    # Also models inside, which hide the variables of their layers else.
    twin.trainable = True
    pairs = zip(leaves(twin), leaves(like), strict=True)
    for layer, other in pairs:
        layer.trainable = other.trainable
        # A layer with a low-rank addition has a kernel that is not trained.
        for variable, model in zip(layer.weights, other.weights, strict=True):
            variable.trainable = model.trainable
    return twin


def leaves(network: keras.Model) -> list[keras.Layer]:
    """The layers of a network and of models inside, in order."""
    found = []
    for layer in network.layers:
        inside = isinstance(layer, keras.Model)
        found += leaves(layer) if inside else [layer]
    return found


def parameters(average: keras.Model, network: keras.Model) -> list[tf.Tensor]:
    """The average's values of the network's trainable variables.

    `functional.call_average` runs the average with them in training mode.

    Args:
        average: a `copy_of` the network.
        network: the network.

    Returns:
        List of tensors in the order of `network.trainable_variables`.
    """
    found = twins(average, network)
    return [
        tf.convert_to_tensor(found[id(v)].value)
        for v in network.trainable_variables
    ]


def twins(average: keras.Model, network: keras.Model) -> dict:
    """The id of a variable of the network -> the average's variable for it.

    Args:
        average: a `copy_of` the network.
        network: the network.
    """
    return {
        id(variable): averaged
        for averaged, variable in zip(
            average.weights, network.weights, strict=True
        )
    }


def move(
    variable: keras.Variable, value: tf.Tensor, decay: tf.Tensor | float
) -> None:
    """Assigns decay * variable + (1 - decay) * value to a variable.

    Args:
        variable: a float Keras variable.
        value: tensor of the same shape and any float dtype.
        decay: scalar in [0, 1].
    """
    decay = tf.cast(decay, variable.dtype)
    value = tf.cast(value, variable.dtype)
    variable.assign(decay * variable.value + (1.0 - decay) * value)


def update(
    ema_network: keras.Model,
    network: keras.Model,
    decay: tf.Tensor | float,
    *,
    statistics: bool = True,
) -> None:
    """ema <- decay * ema + (1 - decay) * network, for all float weights.

    Batch norm's moving averages are averaged like parameters, so that the
    statistics of the averaged network belong to its parameters. Layers that are
    not trained do not change: averaging would round them.

    Args:
        ema_network: a `copy_of` the network.
        network: the network.
        decay: scalar in [0, 1].
        statistics: whether batch norm's moving averages are averaged; False for
            an averaged network that has its own, of what it sees itself.
    """
    frozen = {
        id(variable)
        for layer in leaves(network)
        if not layer.trainable
        for variable in layer.weights
    }
    if not statistics:
        frozen |= {id(v) for v in network.non_trainable_variables}
    for average, variable in zip(
        ema_network.weights, network.weights, strict=True
    ):
        if id(variable) in frozen:
            continue
        if tf.as_dtype(average.dtype).is_floating:
            move(average, variable.value, decay)
