"""Networks of the user: `--model=module:function`."""

import importlib

import keras
import numpy as np


def load(name, image_shape, num_classes):
    """Calls the user's function and checks the network that it returns.

    The function is called with `(height, width, channels)` and the number of
    classes. It returns a functional or sequential Keras model from pixels in
    0...255 to logits. Keras must be able to copy its layers, because the
    averaged network is a copy.

    Args:
        name: `module:function`; the module is importable from where the
            command is run.
        image_shape: height, width, channels.
        num_classes: C.

    Returns:
        The Keras model.

    Raises:
        ValueError: if there is no such function, or the network is no such
            model, has another input shape or does not return logits.
    """
    module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"--model={name}: cannot import {module_name} ({error}). It must "
            "be a module in the current folder or an installed one."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(
            f"--model={name}: {module_name} has no function {function_name}."
        )
    try:
        network = function(tuple(image_shape), num_classes)
    except Exception as error:
        raise ValueError(
            f"--model={name}: {function_name}({tuple(image_shape)}, "
            f"{num_classes}) failed with {type(error).__name__}: {error}"
        ) from error
    if found := problem(network, tuple(image_shape), num_classes):
        raise ValueError(
            f"--model={name}: {found}. The function must return a functional "
            f"or sequential Keras model from pixels {tuple(image_shape)} in "
            f"0...255 to {num_classes} logits."
        )
    return network


def problem(network, image_shape, num_classes):
    """What is wrong with a network of the user, or an empty string.

    Args:
        network: what should be a Keras model from pixels to logits.
        image_shape: height, width, channels.
        num_classes: C.
    """
    if not isinstance(network, keras.Model):
        return f"it returned {type(network).__name__}, not a Keras model"
    inputs = getattr(network, "inputs", None)
    if not inputs:
        return f"the input of {type(network).__name__} is not declared"
    if len(inputs) != 1 or len(network.outputs) != 1:
        return f"it has {len(inputs)} inputs and {len(network.outputs)} outputs"
    shape = inputs[0].shape[1:]
    fits = len(shape) == 3 and all(
        a in (None, b) for a, b in zip(shape, image_shape, strict=True)
    )
    if not fits:
        return f"its input has the shape {shape}"
    if not inputs[0].dtype.startswith("float"):
        # It would round what MixUp mixes.
        return f"its input is {inputs[0].dtype}; floats hold mixed pixels, too"
    output = network.outputs[0]
    if output.shape[1:] != (num_classes,):
        return f"its output has the shape {output.shape[1:]}"
    if output.dtype != keras.config.floatx():
        return (
            f"its output is {output.dtype}: give the last layer "
            f"dtype={keras.config.floatx()!r}"
        )
    images = np.random.default_rng(0).integers(
        0, 256, (2, *image_shape), np.uint8
    )
    rows = np.asarray(network(images, training=False))
    if np.all(rows >= 0) and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return "its output is a softmax: leave the softmax away"
    return ""
