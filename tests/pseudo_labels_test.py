"""Pseudo-labels: values, and that no gradient leaves them."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import pseudo_labels

PROBABILITIES = [[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]]
LOGITS = tf.math.log(PROBABILITIES)


def test_soft_is_the_distribution():
    np.testing.assert_allclose(
        pseudo_labels.soft(LOGITS), PROBABILITIES, rtol=1e-6
    )


def test_one_hot_is_the_argmax():
    np.testing.assert_array_equal(
        pseudo_labels.one_hot(LOGITS), [[0, 1, 0], [1, 0, 0]]
    )


@pytest.mark.parametrize(
    "draw, label",
    [(0.0, 0), (0.19, 0), (0.21, 1), (0.69, 1), (0.71, 2), (0.999999, 2)],
)
def test_sampled_inverts_the_cumulative_distribution(draw, label):
    target = pseudo_labels.sampled(LOGITS[:1], tf.constant([draw]))
    np.testing.assert_array_equal(target, tf.one_hot([label], 3))


def test_a_draw_at_a_border_is_of_the_class_above_it():
    """A draw of 0 would otherwise be of a class without probability."""
    logits = tf.constant([[-1000.0, 0.0, 0.0]])
    borders = tf.cumsum(tf.nn.softmax(logits), axis=-1)[0, :2]
    assert borders[0] == 0
    for draw, label in zip(borders, (1, 2), strict=True):
        target = pseudo_labels.sampled(logits, draw[tf.newaxis])
        np.testing.assert_array_equal(target, tf.one_hot([label], 3))


def test_sampled_frequencies_are_the_probabilities():
    draws = (np.arange(10000, dtype=np.float32) + 0.5) / 10000
    target = pseudo_labels.sampled(tf.repeat(LOGITS[:1], 10000, 0), draws)
    np.testing.assert_allclose(
        tf.reduce_mean(target, 0), PROBABILITIES[0], atol=2e-4
    )


def test_a_draw_beyond_a_rounded_total_is_the_last_class():
    flat = tf.zeros([1, 7])
    target = pseudo_labels.sampled(flat, tf.constant([np.float32(1 - 1e-8)]))
    assert tf.argmax(target[0]) == 6
    assert tf.reduce_sum(target) == 1


@pytest.mark.parametrize(
    "make",
    [
        pseudo_labels.soft,
        pseudo_labels.one_hot,
        lambda logits: pseudo_labels.sampled(logits, tf.constant([0.1, 0.9])),
    ],
)
def test_no_gradient_leaves_a_pseudo_label(make):
    with tf.GradientTape() as tape:
        tape.watch(LOGITS)
        label = make(LOGITS)
    assert tape.gradient(label, LOGITS) is None
    assert label.dtype == LOGITS.dtype


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="rank 2"):
        pseudo_labels.soft(LOGITS[0])


def test_on_simplex_is_the_nearest_distribution(float64):
    values = np.array(
        [[0.2, 0.3, 0.5], [1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [0.8, 0.6, -1.0]]
    )
    found = pseudo_labels.on_simplex(tf.constant(values)).numpy()
    third = 1 / 3
    np.testing.assert_allclose(
        found,
        [[0.2, 0.3, 0.5], [third] * 3, [1, 0, 0], [0.6, 0.4, 0]],
        atol=1e-12,
    )
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 4))
    found = pseudo_labels.on_simplex(tf.constant(values)).numpy()
    np.testing.assert_allclose(found.sum(-1), 1.0)
    assert (found >= 0).all()
    distance = np.linalg.norm(values - found, axis=-1)
    for other in rng.dirichlet([0.5] * 4, 500):
        assert (distance <= np.linalg.norm(values - other, axis=-1)).all()
