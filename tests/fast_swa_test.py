"""fast-SWA: the arithmetic mean, its batch-norm statistics, the cycles."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    dataset_of,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    values,
)
from tf_metassl.config import resolve
from tf_metassl.contract import DatasetInfo
from tf_metassl.run.build import build_algorithm


def test_the_mean_is_the_arithmetic_mean_of_those_that_joined():
    algorithm = tiny_algorithm("fast_swa", swa_start=2, swa_every=2)
    students = []
    for step in range(1, 8):
        algorithm.train_step(tiny_batch(seed=step))
        students.append(values(algorithm.student))
        joined = [students[s - 1] for s in (2, 4, 6) if s <= step]
        for i, mean in enumerate(values(algorithm.swa)):
            expected = (
                np.mean([s[i] for s in joined], axis=0)
                if joined
                else students[-1][i]
            )
            np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
        assert int(algorithm.num_averaged) == len(joined)


def statistics(network):
    layer = next(a for a in network.layers if hasattr(a, "moving_mean"))
    return layer.moving_mean.numpy(), layer.moving_variance.numpy()


@pytest.mark.parametrize("replicas", (1, 2))
def test_statistics_are_the_mean_over_batches(replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    batches = [tiny_batch(8, 16, seed=seed) for seed in range(4)]
    with strategy.scope():
        algorithm = tiny_algorithm(
            "fast_swa",
            swa_batches=3,
            network=lambda role: tiny_network(role, sync=replicas == 2),
        )
    rng = np.random.default_rng(0)
    for variable in algorithm.swa.weights:
        variable.assign(rng.random(variable.shape))
    kernel = algorithm.swa.layers[2].kernel.numpy()
    before = values(algorithm.student)

    def endless():
        dataset = dataset_of(batches).repeat()
        return iter(strategy.experimental_distribute_dataset(dataset))

    means, variances = [], []
    for batch in batches[:3]:
        images = np.concatenate(
            [batch["labeled"]["weak"], batch["unlabeled"]["weak_1"]]
        )
        activations = tf.nn.conv2d(
            images / 127.5 - 1.0, kernel.astype(np.float64), 1, "VALID"
        ).numpy()
        means.append(activations.mean((0, 1, 2)))
        variances.append(activations.var((0, 1, 2)))
    for _ in range(2):
        algorithm.prepare_evaluation(endless)
        mean, variance = statistics(algorithm.swa)
        np.testing.assert_allclose(mean, np.mean(means, 0), atol=1e-5)
        np.testing.assert_allclose(variance, np.mean(variances, 0), rtol=1e-4)
    for a, b in zip(before, values(algorithm.student), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_learning_rate_has_the_cycles():
    config = resolve(
        {
            "algo": "fast_swa",
            "num_steps": 300,
            "cycle_start": 180,
            "cycle_steps": 30,
        }
    )
    info = DatasetInfo("digits", ("a", "b", "c"), (8, 8, 1))
    algorithm = build_algorithm(config, info)
    rates = []
    for step in (150, 180, 209, 210):
        algorithm.optimizer.iterations.assign(step)
        rates.append(
            float(tf.convert_to_tensor(algorithm.optimizer.learning_rate))
        )
    cosine = [
        0.05 * (1 + np.cos(np.pi * t / 210)) for t in (150, 150, 179, 150)
    ]
    np.testing.assert_allclose(rates, cosine, rtol=1e-5)


def test_the_mean_is_deployed():
    algorithm = tiny_algorithm("fast_swa")
    assert algorithm.deployable_model is algorithm.swa
    assert list(algorithm.evaluated_networks) == ["student", "ema", "swa"]
    assert not algorithm.swa.trainable_variables
