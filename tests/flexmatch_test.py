"""FlexMatch's thresholds and its table of confident labels."""

import numpy as np
import tensorflow as tf

from tests.helpers import (
    NUM_IMAGES,
    one_hot_probs,
    tiny_algorithm,
)


def test_flexmatch_selects_and_remembers_at_the_threshold():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.75)
    algorithm.select_unlabeled(np.array([3, 4, 5]))
    table = np.full(NUM_IMAGES, -1)
    table[3:6] = 0
    algorithm.confident_label.assign(table)
    np.testing.assert_array_equal(algorithm.threshold_scale(), [1, 0, 0])
    probs = tf.constant([[0.75, 0.25, 0.0], [0.625, 0.375, 0.0]])
    weight = algorithm.example_weight(probs, tf.constant([3, 4], tf.int64))
    assert weight.numpy().tolist() == [1, 0]
    probs = tf.constant([[0.0, 0.75, 0.25], [0.0, 0.625, 0.375]])
    algorithm.example_weight(probs, tf.constant([4, 5], tf.int64))
    assert algorithm.confident_label.numpy()[[3, 4, 5]].tolist() == [0, 1, 0]


def test_flexmatch_starts_open_and_scales_by_what_it_remembers():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.9)
    algorithm.select_unlabeled(np.array([3, 4, 5, 6, 7, 8, 8]))
    assert float(algorithm.pool_size) == 6
    np.testing.assert_array_equal(algorithm.threshold_scale(), np.zeros(3))

    # The table is written after the threshold was used: all are selected.
    probs = one_hot_probs([0, 0, 0, 1], [0.95, 0.91, 0.92, 0.5])
    weight = algorithm.example_weight(
        probs, tf.constant([3, 4, 5, 6], tf.int64)
    )
    assert weight.numpy().tolist() == [1, 1, 1, 1]
    table = algorithm.confident_label.numpy()
    assert table[[3, 4, 5, 6]].tolist() == [0, 0, 0, -1]
    assert (np.delete(table, [3, 4, 5]) == -1).all()
    # Three of class 0, three of the pool of six without a label.
    np.testing.assert_allclose(algorithm.threshold_scale(), [1, 0, 0])

    # Class 1: 1/3 of the largest, hence 0.9 * (1/3) / (2 - 1/3) = 0.18.
    probs = one_hot_probs([1, 0, 0], [0.97, 0.9001, 0.89])
    weight = algorithm.example_weight(probs, tf.constant([6, 7, 8], tf.int64))
    assert weight.numpy().tolist() == [1, 1, 0]
    np.testing.assert_allclose(
        algorithm.threshold_scale(), [1, 0.25 / 1.75, 0], rtol=1e-6
    )


def test_flexmatchs_unused_images_hold_the_thresholds_down():
    algorithm = tiny_algorithm("flexmatch")
    assert float(algorithm.pool_size) == NUM_IMAGES
    algorithm.select_unlabeled(np.arange(10))
    table = np.full(NUM_IMAGES, -1)
    table[:3] = [0, 0, 1]
    algorithm.confident_label.assign(table)
    beta = np.array([2 / 7, 1 / 7, 0])
    np.testing.assert_allclose(
        algorithm.threshold_scale(), beta / (2 - beta), rtol=1e-6
    )


def test_flexmatch_does_not_forget_when_it_is_unsure():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.9)
    index = tf.constant([7], tf.int64)
    for confidence in (0.95, 0.5):
        algorithm.example_weight(one_hot_probs([2], [confidence]), index)
    assert algorithm.confident_label.numpy()[7] == 2


def test_flexmatchs_table_is_written_after_the_mask():
    algorithm = tiny_algorithm("flexmatch", confidence_threshold=0.9)
    algorithm.select_unlabeled(np.array([3, 4, 5, 6, 7, 8]))
    # Written before, the table would raise the threshold of class 0 at once.
    probs = one_hot_probs([0, 0, 0, 0], [0.95, 0.91, 0.92, 0.5])
    weight = algorithm.example_weight(
        probs, tf.constant([3, 4, 5, 6], tf.int64)
    )
    assert weight.numpy().tolist() == [1, 1, 1, 1]
