"""Moving averages, with the decay's golden values."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import tiny_batch, tiny_network, values
from tf_metassl.ops import averaging


@pytest.mark.parametrize(
    "step, decay",
    [
        (0, 0.1),
        (9, 10 / 19),
        (99, 100 / 109),
        (1000, 1001 / 1010),
        (1790, 0.995),
    ],
)
def test_ramped_decay(step, decay):
    np.testing.assert_allclose(
        averaging.ramped_decay(0.995, tf.constant(step)), decay, rtol=1e-6
    )


def test_a_copy_has_the_weights_and_trains_none():
    network = tiny_network()
    network(tiny_batch()["labeled"]["weak"], training=True)
    twin = averaging.copy_of(network)
    assert twin.name == "ema" and not twin.trainable_variables
    for a, b in zip(values(network), values(twin), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_norm_statistics_are_averaged_too():
    network = tiny_network()
    twin = averaging.copy_of(network)
    network(tiny_batch()["labeled"]["weak"], training=True)
    before = values(twin)
    averaging.update(twin, network, 0.75)
    for old, source, new in zip(
        before, values(network), values(twin), strict=True
    ):
        np.testing.assert_allclose(new, 0.75 * old + 0.25 * source, rtol=1e-5)
    moving = [w for w in twin.weights if "moving_mean" in w.path]
    assert len(moving) == 1 and np.abs(moving[0].value).max() > 0


def test_a_copy_to_train_keeps_what_is_frozen():
    inside = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(3)]
    )
    network = keras.Sequential(
        [keras.Input((4,)), inside, keras.layers.Dense(2)]
    )
    inside.layers[0].trainable = False
    inside.layers[1].enable_lora(2)
    average = averaging.copy_of(network)
    assert not average.trainable_variables
    copy = averaging.trainable_copy(average, like=network, name="copy")
    flags = [v.trainable for v in network.variables]
    assert [v.trainable for v in copy.variables] == flags
    assert flags.count(True) == len(copy.trainable_variables) == 5
    np.testing.assert_array_equal(
        copy(np.ones((2, 4))), network(np.ones((2, 4)))
    )
