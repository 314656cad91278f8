"""LARS against its formula in NumPy, and as a flag asks for it."""

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import tiny_algorithm, values
from tf_metassl.config import resolve
from tf_metassl.contract import DatasetInfo
from tf_metassl.ops import replicas
from tf_metassl.ops.lars import Lars
from tf_metassl.run.build import build_algorithm

INFO = DatasetInfo("digits", ("a", "b", "c"), (8, 8, 1))


def test_steps_of_a_run_with_weight_decay_and_schedule():
    """SimCLR's code: decay in the gradient, before the trust ratio."""
    algorithm = build_algorithm(
        resolve(
            {
                "algo": "supervised",
                "optimizer": "lars",
                "learning_rate": 2.0,
                "momentum": 0.8,
                "weight_decay": 0.1,
                "num_steps": 3,
            }
        ),
        INFO,
    )
    variables = algorithm.student.trainable_variables
    expected = [v.numpy().astype(np.float64) for v in variables]
    velocity = [np.zeros_like(e) for e in expected]
    adapted = set()
    for step in range(3):
        rng = np.random.default_rng(step)
        gradients = [rng.uniform(0.5, 1.5, v.shape) for v in variables]
        algorithm.apply_gradients(
            "student", [tf.constant(g, tf.float32) for g in gradients]
        )
        rate = 2.0 * 0.5 * (1 + np.cos(np.pi * step / 3))
        for i, (v, g) in enumerate(zip(variables, gradients, strict=True)):
            trust = 1.0
            if v.name == "kernel":
                g = g + 0.1 * expected[i]
                norms = np.linalg.norm(expected[i]), np.linalg.norm(g)
                trust = 0.001 * norms[0] / norms[1]
                adapted.add(v.name)
            velocity[i] = 0.8 * velocity[i] + rate * trust * g
            expected[i] = expected[i] - velocity[i]
    assert adapted == {"kernel"}
    for v, e in zip(variables, expected, strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-4, atol=1e-5)


def test_a_trust_ratio_by_hand():
    kernel = keras.Variable([3.0, 4.0], name="kernel")
    bias = keras.Variable([3.0, 4.0], name="bias")
    zero = keras.Variable([0.0, 0.0], name="kernel")
    still = keras.Variable([3.0, 4.0], name="kernel")
    optimizer = Lars(0.5, momentum=0.9, coefficient=0.01)
    optimizer.build([kernel, bias, zero, still])
    gradient = tf.constant([0.0, 2.0])
    gradients = [gradient, gradient, gradient, tf.zeros(2)]
    for _ in range(2):
        optimizer.apply(gradients)
    # |w| / |g| = 5 / 2, so that the first step is 0.5 * 0.01 * 2.5 * 2.
    first = 0.025
    size = np.hypot(3.0, 4.0 - first)
    second = 0.9 * first + 0.5 * 0.01 * size
    np.testing.assert_allclose(
        kernel.numpy(), [3.0, 4.0 - first - second], rtol=1e-6
    )
    # A ratio of 1 without a kernel; with one of size 0 in its first step.
    np.testing.assert_allclose(bias.numpy(), [3.0, 4.0 - 1.0 - 1.9], rtol=1e-5)
    np.testing.assert_allclose(
        zero.numpy(), [0.0, -1.0 - 0.9 - 0.5 * 0.01], rtol=1e-6
    )
    np.testing.assert_array_equal(still.numpy(), [3.0, 4.0])


def test_the_ratio_is_that_of_the_sum_over_replicas(two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm("supervised")
            algorithm.compile(
                optimizers={"student": Lars(5.0)}, weight_decay=0.1
            )

        @tf.function
        def step(algorithm=algorithm, strategy=strategy):
            def replica():
                variables = algorithm.student.trainable_variables
                # Shares that differ, of a sum that does not.
                share = 1.0
                if replicas.count() == 2:
                    own = tf.cast(replicas.replica_id(), tf.float32)
                    share = 0.2 + 0.6 * own
                algorithm.apply_gradients(
                    "student", [share * tf.ones(v.shape) for v in variables]
                )

            strategy.run(replica)

        step()
        step()
        results.append(values(algorithm.student))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


def test_it_is_saved_with_its_settings():
    optimizer = Lars(0.3, momentum=0.7, coefficient=0.02)
    copy = Lars.from_config(optimizer.get_config())
    assert (copy.momentum, copy.coefficient) == (0.7, 0.02)
