"""The differentiable SGD step."""

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import tiny_network
from tf_metassl.meta import functional
from tf_metassl.meta.lookahead import lookahead_step


def test_lookahead_step_is_the_step_of_sgd():
    network = tiny_network()
    params = functional.parameters(network)
    gradients = [tf.ones_like(p) for p in params]
    ahead = lookahead_step(params, gradients, 0.25)
    optimizer = keras.optimizers.SGD(0.25)
    optimizer.apply(gradients, network.trainable_variables)
    for tensor, variable in zip(
        ahead, network.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(tensor, variable.value.numpy())
    same = lookahead_step(params, gradients, 0.0)
    for tensor, p in zip(same, params, strict=True):
        np.testing.assert_array_equal(tensor, p)
