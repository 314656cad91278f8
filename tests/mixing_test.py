"""MixUp by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops.mixing import mixup, partners


def test_partners_are_found_inside_the_block():
    values = tf.range(6) * 10
    found = partners(values, tf.constant([2, 0, 1, 1, 2, 0]), block=3)
    np.testing.assert_array_equal(found, [20, 0, 10, 40, 50, 30])


def test_mixup_by_hand():
    images = tf.reshape(tf.range(8, dtype=tf.float32), [4, 2, 1])
    weight, partner = tf.constant([1, 0, 0.5, 0.75]), tf.constant([1, 0, 1, 0])
    mixed = mixup(images, weight, partner, block=2)
    np.testing.assert_allclose(
        mixed[:, :, 0], [[0, 1], [0, 1], [5, 6], [5.5, 6.5]]
    )


def test_mixed_labels_stay_distributions():
    labels = tf.one_hot(np.arange(8) % 3, 3)
    weight = tf.random.uniform([8])
    mixed = mixup(labels, weight, tf.range(7, -1, -1))
    np.testing.assert_allclose(tf.reduce_sum(mixed, 1), np.ones(8), rtol=1e-6)


def test_integers_and_odd_batches_are_refused():
    weight, partner = tf.ones([8]), tf.range(8)
    with pytest.raises(ValueError, match="expected float values, got uint8"):
        mixup(tf.zeros([8, 2, 2, 1], tf.uint8), weight, partner)
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        mixup(tf.zeros([12, 3]), tf.ones([12]), tf.range(12))
    with pytest.raises(ValueError, match=r"mix_weight: expected .* rank 1"):
        mixup(tf.zeros([8, 3]), tf.ones([8, 1]), partner)
