"""Small networks and batches, and finite differences."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tf_metassl.algorithms import algorithm_class
from tf_metassl.contract import MIX_BLOCK
from tf_metassl.hyperparameters import HYPERPARAMETERS

IMAGE_SHAPE = (6, 5, 1)
NUM_CLASSES = 3
# Rows of the training set that the batches' `index` counts.
NUM_IMAGES = 64


def tiny_network(
    name="student", *, filters=4, dropout=0.0, batch_norm=True, sync=False
):
    """Convolution, batch norm, leaky ReLU, pooling, dense: all that matters."""
    pixels = x = keras.Input(IMAGE_SHAPE, dtype=keras.config.floatx())
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.Conv2D(filters, 3, use_bias=False)(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.9, synchronized=sync)(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    logits = layers.Dense(NUM_CLASSES, dtype=keras.config.floatx())(x)
    return keras.Model(pixels, logits, name=name)


def tiny_batch(num_labeled=8, num_unlabeled=16, seed=0):
    """A batch with every view that an algorithm may ask for."""
    rng = np.random.default_rng(seed)

    def group(size):
        draw = {
            view: rng.integers(0, 256, (size, *IMAGE_SHAPE), np.uint8)
            for view in ("clean", "weak", "strong")
        }
        partner = [rng.permutation(MIX_BLOCK) for _ in range(size // MIX_BLOCK)]
        draw |= {
            "index": np.arange(size, dtype=np.int64),
            "label_draw": rng.random(size).astype(np.float32),
            "mix_weight": rng.random(size).astype(np.float32),
            "mix_partner": np.concatenate(partner).astype(np.int32),
        }
        return draw

    def labels(size):
        return rng.integers(0, NUM_CLASSES, size).astype(np.int32)

    batch = {"labeled": group(num_labeled), "unlabeled": group(num_unlabeled)}
    batch["labeled"]["label"] = labels(num_labeled)
    batch["unlabeled"]["oracle_label"] = labels(num_unlabeled)
    return tf.nest.map_structure(tf.constant, batch)


def tiny_algorithm(
    name,
    *,
    learning_rate=0.1,
    weight_decay=1e-4,
    jit_compile=False,
    gradient_clip_norm=0.0,
    steps_per_execution=1,
    gradient_accumulation_steps=1,
    recompute=False,
    network=None,
    **knobs,
):
    """A compiled algorithm on tiny networks."""
    cls = algorithm_class(name)
    network = network or tiny_network
    algorithm = cls(
        networks={role: network(role) for role in cls.roles},
        hyperparameters=HYPERPARAMETERS[name](**knobs),
        num_classes=NUM_CLASSES,
        num_images=NUM_IMAGES,
    )
    algorithm.compile(
        optimizers={
            role: keras.optimizers.SGD(
                learning_rate, momentum=0.9, nesterov=True
            )
            for role in cls.roles
        },
        weight_decay=weight_decay,
        gradient_clip_norm=gradient_clip_norm,
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
        gradient_accumulation_steps=gradient_accumulation_steps,
        recompute=recompute,
    )
    return algorithm


def values(trackable):
    """Copies of the values of all variables of a network or optimizer."""
    variables = getattr(trackable, "weights", None) or trackable.variables
    return [v.value.numpy() for v in variables]


def central_difference(function, point, epsilon=1e-5):
    """The gradient of a scalar function of a NumPy vector."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        step = np.zeros_like(point)
        step[index] = epsilon
        gradient[index] = (
            float(function(point + step)) - float(function(point - step))
        ) / (2 * epsilon)
    return gradient
