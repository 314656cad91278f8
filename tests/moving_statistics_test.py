"""A trained network says in inference mode what it says in training mode."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import mostly_exhaustive
from tf_metassl import models
from tf_metassl.models import costs, layers
from tf_metassl.ops import averaging

NUM_IMAGES, NUM_CLASSES, BATCH = 64, 4, 16


def with_keras_batch_norm(image_shape, num_classes):
    """A network of a user's own, with a model inside."""
    body = keras.Sequential(
        [
            keras.Input((None, None, 8)),
            keras.layers.Conv2D(16, 3, strides=2, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    )
    pixels = keras.Input(image_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    x = keras.layers.Conv2D(8, 3, use_bias=False)(x)
    x = body(keras.layers.BatchNormalization(momentum=0.999)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(pixels, logits)


OWN = f"{__name__}:with_keras_batch_norm"
# Network, image size, and the steps after which it is tested.
CASES = [
    ("digits_cnn", 8, (50, 200, 1000)),
    ("small_cnn", 14, (50, 200)),
    ("wrn_10_1", 8, (50, 200)),
    ("wrn_10_1_mpl", 8, (50, 200)),
    ("wrn_10_1_fixmatch", 8, (50, 200)),
    (OWN, 12, (50, 200)),
    ("cnn13", 12, (50,)),
    ("cnn13_mean_teacher", 12, (50,)),
    ("cnn13_fast_swa", 12, (50,)),
]
SHORT = ("digits_cnn", "small_cnn", "wrn_10_1", OWN)
# The first one that each function builds, and the variants of cnn13, which have
# layers of their own.
FIRST = {models.find(name).function: name for name in reversed(models.NETWORKS)}
VARIANTS = [name for name in models.NETWORKS if name.startswith("cnn13_")]
WIDE = ("wrn_10_1", "wrn_13_1", "wrn_10_1_mpl")
ALL = (*FIRST.values(), *VARIANTS, *WIDE, OWN)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in ALL if models.find(name).has_batch_norm]
)
def test_every_network_has_moving_averages_of_this_kind(name):
    size = 12 if name == OWN else models.find(name).image_size
    with costs.shapes_only():
        network = models.build(name, (size, size, 3), 10)
    averaging_layers = [
        layer
        for layer in network._flatten_layers()
        if hasattr(layer, "moving_mean")
    ]
    assert averaging_layers
    for layer in averaging_layers:
        assert isinstance(layer, layers.MovingStatistics), layer.name


def pictures(size):
    """`[64, size, size, 3]` noisy copies of one picture per class; labels."""
    rng = np.random.default_rng(0)
    label = np.arange(NUM_IMAGES) % NUM_CLASSES
    shape = (size, size, 3)
    pattern = rng.integers(0, 256, (NUM_CLASSES, *shape))[label]
    noise = rng.integers(0, 256, (NUM_IMAGES, *shape))
    return np.float32(0.6 * pattern + 0.4 * noise), label


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size, checkpoints",
    mostly_exhaustive(CASES, [case for case in CASES if case[0] in SHORT]),
)
def test_a_network_is_right_in_inference_mode(name, size, checkpoints):
    images, label = pictures(size)
    network = models.build(name, images.shape[1:], NUM_CLASSES, dropout=0.0)
    ema = averaging.copy_of(network)
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step(rows):
        with tf.GradientTape() as tape:
            logits = network(tf.gather(images, rows), training=True)
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(
                    tf.gather(label, rows), logits, from_logits=True
                )
            )
        parameters = [v.value for v in network.trainable_variables]
        gradients = tape.gradient(loss, parameters)
        optimizer.apply(gradients, network.trainable_variables)
        decay = averaging.ramped_decay(0.999, optimizer.iterations.value - 1)
        averaging.update(ema, network, decay)

    rng = np.random.default_rng(1)
    for done in range(1, checkpoints[-1] + 1):
        step(rng.permutation(NUM_IMAGES)[:BATCH])
        if done in checkpoints:
            for asked in (network, ema):
                said = np.argmax(asked(images, training=False), axis=-1)
                assert np.mean(said == label) == 1.0, (asked.name, done)


def test_averages_by_hand():
    layer = layers.BatchNormalization(momentum=0.5, center=False, scale=False)
    layer.build((None, 1))
    mean, variance = 0.0, 1.0
    for number in range(12):
        x = np.float32([[number], [number + 2]])
        layer(x, training=True)
        kept = min(0.5, number / (number + 9))
        mean = kept * mean + (1 - kept) * (number + 1)
        variance = kept * variance + (1 - kept) * 1.0
        np.testing.assert_allclose(layer.moving_mean, [mean], rtol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, [variance], rtol=1e-6)
    assert float(layer.num_updates) == 12


def test_beyond_its_start_it_is_the_layer_of_keras():
    rng = np.random.default_rng(0)
    ours = layers.BatchNormalization(momentum=0.97)
    theirs = keras.layers.BatchNormalization(momentum=0.97)
    for layer in (ours, theirs):
        layer.build((None, 3))
    ours.num_updates.assign(1e9)
    for _ in range(3):
        x = rng.normal(size=(5, 3)).astype(np.float32)
        for training in (True, False):
            np.testing.assert_array_equal(
                ours(x, training=training), theirs(x, training=training)
            )
    np.testing.assert_array_equal(ours.moving_mean, theirs.moving_mean)
    np.testing.assert_array_equal(ours.moving_variance, theirs.moving_variance)
