"""Means, sums and rows over replicas, on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import on_replicas, tiny_algorithm
from tf_metassl.ops import replicas


def as_float(replica):
    return tf.cast(replica, tf.float32)


def test_replicas_are_counted_and_numbered(two_replicas):
    assert (replicas.count(), replicas.replica_id()) == (1, 0)
    with two_replicas.scope():
        assert replicas.count() == 2
    counted = on_replicas(
        two_replicas,
        lambda _: tf.stack([replicas.count(), replicas.replica_id()]),
    )
    np.testing.assert_array_equal(counted, [[2, 0], [2, 1]])


def test_shares_of_a_mean_add_up_to_the_mean_of_the_batch(two_replicas):
    def shares(replica):
        return replicas.share_of_mean([1.0, 3.0] + 10.0 * as_float(replica))

    np.testing.assert_allclose(on_replicas(two_replicas, shares), [1, 6])
    # (1 + 3 + 11 + 13) / 4.
    total = on_replicas(
        two_replicas, lambda r: replicas.sum_over_replicas(shares(r))
    )
    np.testing.assert_allclose(total, [7, 7])
    np.testing.assert_allclose(replicas.share_of_mean(tf.constant([1.0, 3])), 2)


def test_the_gradient_of_a_share_is_that_of_the_mean(two_replicas):
    def gradient(_):
        values = tf.constant([1.0, 3.0])
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = replicas.share_of_mean(values**2)
        return tape.gradient(loss, values)

    expected = np.array([1.0, 3.0]) * 2 / 4
    for found in on_replicas(two_replicas, gradient):
        np.testing.assert_allclose(found, expected)


def test_a_list_is_summed_element_by_element(two_replicas):
    def total(replica):
        first, second = replicas.sum_over_replicas(
            [as_float(replica), tf.ones([2]) * (1.0 + as_float(replica))]
        )
        return tf.concat([[first], second], axis=0)

    for found in on_replicas(two_replicas, total):
        np.testing.assert_allclose(found, [1, 3, 3])


def test_the_gradient_of_a_sum_is_the_sum_of_the_gradients(two_replicas):
    def gradient(replica):
        value = tf.constant(1.0)
        with tf.GradientTape() as tape:
            tape.watch(value)
            total = replicas.sum_over_replicas(value)
            loss = (1.0 + as_float(replica)) * total
        return tape.gradient(loss, value)

    np.testing.assert_allclose(on_replicas(two_replicas, gradient), [3, 3])


def test_one_replica_communicates_nothing():
    values = tf.constant([1.0, 2.0])
    several = [values, values]
    assert replicas.all_rows(values) is values
    assert replicas.sum_over_replicas(values) is values
    assert replicas.sum_over_replicas(several) is several


def test_the_global_mean_is_that_of_the_whole_batch(two_replicas):
    def mean(replica):
        values = tf.constant([[1.0, 2.0], [3.0, 6.0]])
        return replicas.global_mean(values + 10.0 * as_float(replica))

    for found in on_replicas(two_replicas, mean):
        np.testing.assert_allclose(found, [7, 9])


@pytest.mark.parametrize("dtype", [tf.float32, tf.int64])
def test_all_rows_are_in_the_order_of_the_batch(two_replicas, dtype):
    def rows(replica):
        values = tf.constant([[1, 2], [3, 2**24 + 1]], tf.int64)
        return replicas.all_rows(
            tf.cast(values, dtype) * tf.cast(1 + 10 * replica, dtype)
        )

    first, second = on_replicas(two_replicas, rows)
    np.testing.assert_array_equal(first, second)
    values = np.array([[1, 2], [3, 2**24 + 1]], dtype.as_numpy_dtype)
    np.testing.assert_array_equal(first, np.concatenate([values, values * 11]))


def test_rows_of_a_table_are_written_alike_on_every_replica(two_replicas):
    with two_replicas.scope():
        algorithm = tiny_algorithm("temporal_ensembling")
    table = algorithm.ensemble

    def write(replica):
        # Row 3 is in the batch twice: the value of the first one counts.
        index = tf.constant([1, 3], tf.int64) + 2 * tf.cast(replica, tf.int64)
        values = tf.constant([[10.0] * 3, [11.0] * 3])
        replicas.write_rows(table, index, values + 10 * as_float(replica))
        return tf.convert_to_tensor(table.value)

    expected = np.zeros(table.shape)
    expected[[1, 3, 5]] = [[10], [11], [21]]
    for written in on_replicas(two_replicas, write):
        np.testing.assert_array_equal(written, expected)
