"""Networks: parameter counts, inputs, errors."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl import models


@pytest.mark.parametrize(
    "name, shape, parameters",
    [("wrn_28_2", (32, 32, 3), 1_467_610), ("digits_cnn", (8, 8, 1), 140_458)],
)
def test_trainable_parameters(name, shape, parameters):
    network = models.build(name, shape, 10)
    counted = sum(np.prod(v.shape) for v in network.trainable_variables)
    assert counted == parameters


@pytest.mark.parametrize("name", ("digits_cnn", "wrn_10_1"))
def test_uint8_and_float_pixels_give_the_same_float32_logits(name):
    network = models.build(name, (12, 8, 3), 7, dropout=0.5)
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 8, 3), np.uint8)
    logits = network(images)
    assert logits.dtype == tf.float32 and logits.shape == (4, 7)
    np.testing.assert_array_equal(logits, network(images.astype(np.float32)))


@pytest.mark.parametrize("name", ("resnet", "wrn_28", "wrn_29_2", "wrn_4_1"))
def test_unknown_networks_are_refused(name):
    with pytest.raises(ValueError, match="--model"):
        models.build(name, (32, 32, 3), 10)
