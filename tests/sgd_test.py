"""The kernel of SGD against Keras' composition of it, bit by bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import replicas
from tf_metassl.ops.sgd import Sgd

SHAPES = ((103, 7), (5,), ())


def trained(kind, strategy, momentum, nesterov, steps=4):
    """Variables and slots after some steps, and the operations of a step."""
    with strategy.scope():
        variables = [
            keras.Variable(np.full(shape, 0.3, np.float32)) for shape in SHAPES
        ]
        optimizer = kind(
            keras.optimizers.schedules.ExponentialDecay(0.0313, 1, 0.9),
            momentum=momentum,
            nesterov=nesterov,
        )
        optimizer.build(variables)
    rng = np.random.default_rng(0)

    def of_replica(gradients):
        factor = 1.0 + tf.cast(replicas.replica_id(), tf.float32)
        # Keras sums them over replicas.
        optimizer.apply([factor * g for g in gradients], variables)

    @tf.function
    def step(gradients):
        strategy.run(of_replica, args=(gradients,))

    for _ in range(steps):
        gradients = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
        step(list(map(tf.constant, gradients)))
    return [v.numpy() for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize("nesterov", (True, False))
@pytest.mark.parametrize("momentum", (0.0, 0.9))
def test_equal_to_keras(momentum, nesterov):
    one = tf.distribute.get_strategy()
    nesterov = nesterov and momentum > 0
    ours = trained(Sgd, one, momentum, nesterov)
    theirs = trained(keras.optimizers.SGD, one, momentum, nesterov)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(ours[0] - 0.3).max() > 0


def test_equal_to_keras_on_replicas(two_replicas):
    ours = trained(Sgd, two_replicas, 0.9, True)
    theirs = trained(keras.optimizers.SGD, two_replicas, 0.9, True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    alone = trained(Sgd, tf.distribute.get_strategy(), 0.9, True)
    assert np.abs(ours[0] - alone[0]).max() > 1e-3


def test_it_is_one_operation_per_variable():
    variables = [keras.Variable(np.zeros(3, np.float32))]

    def operations(kind):
        optimizer = kind(0.1, momentum=0.9, nesterov=True)
        optimizer.build(variables)

        @tf.function
        def step(gradient):
            optimizer.apply([gradient], variables)

        graph = step.get_concrete_function(tf.zeros(3)).graph
        return [operation.type for operation in graph.get_operations()]

    ours, theirs = map(operations, (Sgd, keras.optimizers.SGD))
    assert ours.count("ResourceApplyKerasMomentum") == 1
    assert len(ours) < len(theirs)
