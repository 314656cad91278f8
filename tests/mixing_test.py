"""MixUp and CutMix by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops.mixing import cutmix, mixup, partners


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


def test_cutmix_by_hand():
    images = tf.constant([0, 1, 2, 3], tf.uint8)[:, None, None, None]
    images = tf.tile(images, [1, 4, 4, 1])
    # Sides of 2, 2, 4 and 0 pixels; the second is cut off at the corner.
    weight = tf.constant([0.75, 0.75, 0.0, 1.0])
    center = tf.constant([[0.5, 0.5], [0.0, 0.99], [0.5, 0.5], [0.5, 0.5]])
    partner = tf.constant([1, 0, 1, 0])
    mixed, left = cutmix(images, weight, partner, center, block=2)
    first = np.zeros([4, 4])
    first[1:3, 1:3] = 1
    second = np.ones([4, 4])
    second[0, 2:] = 0
    expected = [first, second, np.full([4, 4], 3), np.full([4, 4], 3)]
    np.testing.assert_array_equal(mixed[..., 0], expected)
    np.testing.assert_array_equal(left, [0.75, 0.875, 0.0, 1.0])
    assert mixed.dtype == tf.uint8


def test_a_batch_of_one_block_is_cut_inside_it():
    images = tf.random.uniform([8, 6, 5, 1])
    partner = tf.constant([1, 2, 3, 4, 5, 6, 7, 0])
    mixed, left = cutmix(
        images, tf.fill([8], 0.4), partner, tf.random.uniform([8, 2])
    )
    other = tf.roll(images, -1, axis=0)
    is_other = (mixed == other).numpy()
    assert (is_other | (mixed == images).numpy()).all()
    np.testing.assert_allclose(
        1 - is_other.mean((1, 2, 3)), left, rtol=1e-6, atol=1e-6
    )
