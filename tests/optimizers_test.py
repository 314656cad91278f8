"""The optimizers that flags ask for, against their formulas in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import tiny_algorithm, values
from tf_metassl.config import resolve
from tf_metassl.contract import DatasetInfo
from tf_metassl.ops import replicas
from tf_metassl.run.build import build_algorithm

INFO = DatasetInfo("digits", ("a", "b", "c"), (8, 8, 1))


def built(**settings):
    return build_algorithm(resolve({"algo": "supervised", **settings}), INFO)


def gradients_of_step(algorithm, step):
    rng = np.random.default_rng(step)
    return [
        rng.uniform(0.5, 1.5, v.shape).astype(np.float32)
        for v in algorithm.student.trainable_variables
    ]


def test_adam_with_decay_in_the_gradient_and_its_schedule():
    algorithm = built(
        optimizer="adam",
        learning_rate=0.01,
        lr_schedule="cosine_7_16",
        num_steps=3,
        momentum=0.8,
        weight_decay=0.1,
    )
    variables = algorithm.student.trainable_variables
    expected = [v.numpy().astype(np.float64) for v in variables]
    first = [np.zeros_like(e) for e in expected]
    second = [np.zeros_like(e) for e in expected]
    for step in range(3):
        gradients = gradients_of_step(algorithm, step)
        algorithm.apply_gradients("student", map(tf.constant, gradients))
        rate = 0.01 * np.cos(7 * np.pi / 16 * step / 3)
        for i, (v, g) in enumerate(zip(variables, gradients, strict=True)):
            if v.name == "kernel":
                g = g + 0.1 * expected[i]
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            mean = first[i] / (1 - 0.8 ** (step + 1))
            square = second[i] / (1 - 0.999 ** (step + 1))
            expected[i] -= rate * mean / (np.sqrt(square) + 1e-7)
    for v, e in zip(variables, expected, strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=2e-4, atol=2e-6)


def test_decoupled_decay_scales_kernels_by_the_rate_of_the_step():
    settings = {
        "learning_rate": 0.5,
        "num_steps": 2,
        "momentum": 0.0,
        "weight_decay": 0.1,
        "decoupled_weight_decay": True,
    }
    algorithm = built(**settings)
    variables = algorithm.student.trainable_variables
    expected = [v.numpy() for v in variables]
    # The cosine over two steps gives 0.5, then 0.25.
    for step, rate in enumerate((0.5, 0.25)):
        gradients = gradients_of_step(algorithm, step)
        algorithm.apply_gradients("student", map(tf.constant, gradients))
        for i, (v, g) in enumerate(zip(variables, gradients, strict=True)):
            kept = 1 - 0.1 * rate if v.name == "kernel" else 1
            expected[i] = (expected[i] - rate * g) * kept
    for v, e in zip(variables, expected, strict=True):
        np.testing.assert_allclose(v.numpy(), e, rtol=1e-5, atol=1e-6)


def test_decoupled_decay_is_the_same_on_two_replicas(two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm("supervised")
            algorithm.compile(
                optimizers={"student": keras.optimizers.Adam(0.1)},
                weight_decay=0.5,
                decoupled_weight_decay=True,
            )

        @tf.function
        def step(algorithm=algorithm, strategy=strategy):
            def replica():
                share = 1 / replicas.count()
                variables = algorithm.student.trainable_variables
                algorithm.apply_gradients(
                    "student", [share * tf.ones(v.shape) for v in variables]
                )

            strategy.run(replica)

        step()
        results.append(values(algorithm.student))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_weight_decay_is_part_of_the_gradient_that_is_clipped():
    algorithm = tiny_algorithm(
        "supervised", weight_decay=10.0, gradient_clip_norm=0.5, ema_decay=0.0
    )
    variables = algorithm.student.trainable_variables
    total = [
        1.0 + 10.0 * v.numpy() if v.name == "kernel" else np.ones(v.shape)
        for v in variables
    ]
    norm = np.sqrt(sum((t**2).sum() for t in total))
    old = [v.numpy() for v in variables]
    algorithm.apply_gradients("student", [tf.ones(v.shape) for v in variables])
    for v, o, t in zip(variables, old, total, strict=True):
        # Nesterov's first step is 1.9 times the rate.
        np.testing.assert_allclose(
            o - v.numpy(), 1.9 * 0.1 * 0.5 / norm * t, rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("decoupled", (False, True))
@pytest.mark.parametrize("on", ("kernels", "all"))
def test_which_variables_decay(on, decoupled):
    algorithm = built(
        learning_rate=1.0,
        num_steps=2,
        momentum=0.0,
        weight_decay=0.1,
        weight_decay_on=on,
        decoupled_weight_decay=decoupled,
    )
    variables = algorithm.student.trainable_variables
    for variable in variables:
        variable.assign(variable.numpy() + 1.0)
    before = [v.numpy() for v in variables]
    algorithm.apply_gradients("student", [tf.zeros(v.shape) for v in variables])
    moved = [
        variable.name
        for variable, old in zip(variables, before, strict=True)
        if (variable.numpy() != old).any()
    ]
    names = {v.name for v in variables}
    assert {"kernel", "bias", "gamma"} <= names
    assert set(moved) == ({"kernel"} if on == "kernels" else names)
