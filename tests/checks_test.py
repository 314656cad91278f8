"""Shapes that would broadcast are refused."""

import pytest
import tensorflow as tf

from tf_metassl.ops.checks import check_rank, check_same_shape, known_size


def test_the_rank_is_checked_and_named():
    check_rank("logits", tf.zeros([4, 3]), 2)
    with pytest.raises(
        ValueError, match=r"^logits: expected .* rank 2, got shape \(4,\)\.$"
    ):
        check_rank("logits", tf.zeros([4]), 2)


def test_shapes_are_compared_and_named():
    check_same_shape(labels=tf.zeros([4, 3]), logits=tf.zeros([4, 3]))
    with pytest.raises(
        ValueError,
        match=r"^labels and logits must have the same shape, got "
        r"\(1, 3\) and \(4, 3\)\.$",
    ):
        check_same_shape(labels=tf.zeros([1, 3]), logits=tf.zeros([4, 3]))


def test_an_unknown_size_may_be_any_other():
    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def check(values):
        check_same_shape(first=values, second=tf.zeros([4, 3]))
        return tf.shape(values)

    assert check(tf.zeros([4, 3])).numpy().tolist() == [4, 3]


def test_a_size_must_be_known():
    spec = tf.TensorSpec([None, 3])
    assert known_size("labels", spec, -1) == 3
    with pytest.raises(ValueError, match=r"labels: .* axis 0, got .*\(None, 3"):
        known_size("labels", spec, 0)
