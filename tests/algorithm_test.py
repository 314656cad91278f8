"""What the base class does for methods, on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import tiny_algorithm
from tf_metassl import config
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.contract import DatasetInfo
from tf_metassl.ops import draws
from tf_metassl.run.build import build_algorithm


def on_replicas(strategy, algorithm, function):
    """What `function(replica_id)` gives on each replica, as arrays."""

    def step():
        context = tf.distribute.get_replica_context()
        return function(context.replica_id_in_sync_group)

    result = tf.function(lambda: strategy.run(step))()
    return [r.numpy() for r in strategy.experimental_local_results(result)]


def built_on(strategy):
    with strategy.scope():
        return tiny_algorithm("supervised")


@pytest.mark.parametrize("dtype", [tf.float32, tf.int64])
def test_all_rows_are_in_the_order_of_the_batch(two_replicas, dtype):
    algorithm = built_on(two_replicas)

    def rows(replica):
        values = tf.constant([[1, 2], [3, 2**24 + 1]], tf.int64)
        return algorithm.all_rows(
            tf.cast(values, dtype) * tf.cast(1 + 10 * replica, dtype)
        )

    first, second = on_replicas(two_replicas, algorithm, rows)
    np.testing.assert_array_equal(first, second)
    values = np.array([[1, 2], [3, 2**24 + 1]], dtype.as_numpy_dtype)
    np.testing.assert_array_equal(first, np.concatenate([values, values * 11]))


def test_all_rows_on_one_replica_are_the_rows():
    values = tf.constant([1.0, 2.0])
    assert tiny_algorithm("supervised").all_rows(values) is values


def test_the_global_mean_is_that_of_the_whole_batch(two_replicas):
    algorithm = built_on(two_replicas)

    def mean(replica):
        values = tf.constant([[1.0, 2.0], [3.0, 6.0]])
        return algorithm.global_mean(
            values + 10.0 * tf.cast(replica, tf.float32)
        )

    for found in on_replicas(two_replicas, algorithm, mean):
        np.testing.assert_allclose(found, [7, 9])


def test_rows_of_a_table_are_written_alike_on_every_replica(two_replicas):
    with two_replicas.scope():
        algorithm = tiny_algorithm("temporal_ensembling")
    table = algorithm.ensemble

    def write(replica):
        # Row 3 is in the batch twice: the value of the first one counts.
        index = tf.constant([1, 3], tf.int64) + 2 * tf.cast(replica, tf.int64)
        values = tf.constant([[10.0] * 3, [11.0] * 3])
        values += 10 * tf.cast(replica, tf.float32)
        algorithm.write_rows(table, index, values)
        return tf.convert_to_tensor(table.value)

    expected = np.zeros(table.shape)
    expected[[1, 3, 5]] = [[10], [11], [21]]
    for written in on_replicas(two_replicas, algorithm, write):
        np.testing.assert_array_equal(written, expected)


def test_a_draw_is_one_draw_for_the_whole_batch(two_replicas):
    def normal(algorithm, rows):
        return algorithm.draw(draws.normal, [rows, 3], "noise")

    one = tiny_algorithm("supervised")
    whole = normal(one, 4).numpy()
    assert whole.std() > 0.3
    two = built_on(two_replicas)
    parts = on_replicas(two_replicas, two, lambda _: normal(two, 2))
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
    algorithm._trackers["loss"].update_state(0.0)
    algorithm.train_step({})
    np.testing.assert_allclose(algorithm.head.numpy(), before - 0.5)
    names = [v.path for v in algorithm.state_variables]
    assert algorithm.head.path in names


def test_of_many_classes_the_five_likeliest_are_counted():
    names = tuple(map(str, range(100)))
    algorithm = build_algorithm(
        config.resolve({"algo": "supervised"}),
        DatasetInfo("digits", names, (8, 8, 1)),
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    label = rng.integers(0, 100, 40).astype(np.int32)
    mask = (np.arange(40) < 35).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices(
        {"image": image, "label": label, "mask": mask}
    ).batch(20)
    found = algorithm.evaluate(batches, verbose=0, return_dict=True)
    for role, network in algorithm.evaluated_networks.items():
        logits = np.asarray(network(image, training=False))[:35]
        likeliest = np.argsort(-logits, axis=1)[:, :5]
        is_correct = (likeliest == label[:35, np.newaxis]).any(axis=1)
        assert found[f"{role}_top_5_accuracy"] == pytest.approx(
            is_correct.mean()
        )
