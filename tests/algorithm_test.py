"""What the base class does for methods, on one replica and on two."""

import numpy as np
import tensorflow as tf

from tests.helpers import on_replicas, tiny_algorithm
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
