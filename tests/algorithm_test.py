"""What the base class does for methods, on one replica and on two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    all_values,
    assert_same,
    loss_and_gradient,
    on_replicas,
    run,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    trained_under,
    values,
)
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.ops import draws


def test_a_draw_is_one_draw_for_the_whole_batch(two_replicas):
    def normal(algorithm, rows):
        return algorithm.draw(draws.normal, [rows, 3], "noise")

    one = tiny_algorithm("supervised")
    whole = normal(one, 4).numpy()
    assert whole.std() > 0.3
    with two_replicas.scope():
        two = tiny_algorithm("supervised")
    parts = on_replicas(two_replicas, lambda _: normal(two, 2))
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_draws_differ_by_step_name_and_seed():
    algorithm = tiny_algorithm("supervised")

    def uniform(name="a"):
        return float(algorithm.draw(draws.uniform, [1], name)[0])

    first = uniform()
    assert uniform() == first
    assert uniform("b") != first
    algorithm.optimizer.iterations.assign(1)
    second = uniform()
    assert second != first
    algorithm.optimizer.iterations.assign(0)
    assert uniform() == first
    algorithm._seed = 1
    assert uniform() not in (first, second)


def test_a_head_is_trained_with_its_network():
    class WithHead(Algorithm):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.head = self.add_weight(name="kernel", shape=(2,))

        def trained_variables(self, role):
            return [*super().trained_variables(role), self.head]

        def compute_losses(self, batch):
            return tf.reduce_sum(self.head.value)

    plain = tiny_algorithm("supervised")
    algorithm = WithHead(
        networks={"student": plain.student},
        hyperparameters=plain.hyperparameters,
        num_classes=3,
    )
    algorithm.compile(optimizers={"student": type(plain.optimizer)(0.5)})
    before = algorithm.head.numpy()
    algorithm.track("loss", 0.0)
    algorithm.train_step({})
    np.testing.assert_allclose(algorithm.head.numpy(), before - 0.5)
    names = [v.path for v in algorithm.state_variables]
    assert algorithm.head.path in names


def test_losses_are_weighted_by_class():
    algorithm = tiny_algorithm("supervised", class_weights=[0.5, 1.0, 4.0])
    label = tf.constant([[0.0, 0, 1], [1, 0, 0], [0.75, 0, 0.25]])
    weighted = algorithm.class_weighted(tf.constant([1.0, 2, 8]), label)
    np.testing.assert_allclose(weighted, [4.0, 1.0, 8 * (0.375 + 1.0)])
    losses = tf.constant([1.0, 2, 8])
    assert tiny_algorithm("supervised").class_weighted(losses, label) is losses


@pytest.mark.parametrize("parts", (1, 2))
def test_a_sharpness_aware_step_by_hand(float64, parts):
    def network(role):
        return tiny_network(role, batch_norm=False)

    algorithm = tiny_algorithm(
        "supervised",
        network=network,
        sam_rho=0.7,
        gradient_accumulation_steps=parts,
        weight_decay=0.0,
    )
    twin = tiny_algorithm("supervised", network=network)
    twin.student.set_weights(algorithm.student.get_weights())
    batch = tiny_batch()
    old = values(twin.student)
    loss, gradient = loss_and_gradient(twin, batch)
    norm = np.sqrt(sum((g**2).sum() for g in gradient))
    twin.student.set_weights(
        [v + 0.7 * g / norm for v, g in zip(old, gradient, strict=True)]
    )
    higher, gradient = loss_and_gradient(twin, batch)
    assert higher > loss
    metrics = run(algorithm, batch)
    # Nesterov's first step is 1.9 times the rate.
    for new, v, g in zip(values(algorithm.student), old, gradient, strict=True):
        np.testing.assert_allclose(new, v - 0.19 * g, rtol=1e-6, atol=1e-9)
    assert metrics["loss"] == pytest.approx(loss)


def test_the_second_pass_has_the_masks_of_the_first(float64):
    def network(role):
        return tiny_network(role, dropout=0.5)

    results = []
    for rho in (0.0, 1e-9):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm("supervised", network=network, sam_rho=rho)
        metrics = run(algorithm, *(tiny_batch(seed=s) for s in range(3)))
        results.append((all_values(algorithm), metrics))
    (plain, metrics_of_plain), (aware, metrics_of_aware) = results
    assert_same(plain, aware, rtol=1e-6, atol=1e-8)
    assert metrics_of_aware == pytest.approx(metrics_of_plain, rel=1e-6)


def test_a_sharpness_aware_step_is_the_same_on_two_replicas(
    two_replicas, float64
):
    batches = [tiny_batch(16, 32, seed=seed) for seed in range(3)]
    (one, metrics), (two, metrics_of_two) = (
        trained_under(strategy, "fixmatch", batches, sam_rho=0.5)
        for strategy in (tf.distribute.get_strategy(), two_replicas)
    )
    assert_same(one, two, rtol=1e-6, atol=1e-9)
    assert metrics_of_two == pytest.approx(metrics, rel=1e-5)
