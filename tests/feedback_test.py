"""Estimators of the feedback against enumeration and finite differences."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    central_difference,
    on_replicas,
    tiny_batch,
    tiny_network,
)
from tf_metassl.meta import feedback, functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.ops import pseudo_labels
from tf_metassl.ops.losses import cross_entropy


class LinearPair:
    """Linear teacher and student on B = K = 3: small enough to enumerate.

    One unlabeled batch, one labeled batch, one SGD step of the student; the
    labeled loss after that step is a function of the teacher's parameters.
    """

    size = classes = 3
    features = 2

    def __init__(self, learning_rate=1e-3, seed=0):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return tf.constant(rng.normal(size=shape), tf.float64)

        self.learning_rate = learning_rate
        self.u, self.x = normal(3, 2), normal(4, 2)
        self.y = tf.one_hot([0, 2, 1, 1], 3, dtype=tf.float64)
        self.teacher, self.student = normal(2, 3), normal(2, 3)

    def student_losses(self, params, target):
        return cross_entropy(target, self.u @ params[0])

    def labeled_loss(self, params):
        return tf.reduce_mean(cross_entropy(self.y, self.x @ params[0]))

    def student_gradient(self, target):
        params = [self.student]
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = tf.reduce_mean(self.student_losses(params, target))
        return functional.gradient(tape, loss, params)

    def after(self, target):
        return lookahead_step(
            [self.student], self.student_gradient(target), self.learning_rate
        )

    def labeled_gradient(self, params):
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = self.labeled_loss(params)
        return functional.gradient(tape, loss, params)

    def labelings(self):
        """All K^B one-hot labelings."""
        for label in itertools.product(range(self.classes), repeat=self.size):
            yield tf.one_hot(label, self.classes, dtype=tf.float64)

    def probability(self, teacher, target):
        chosen = tf.reduce_sum(target * tf.nn.softmax(self.u @ teacher), -1)
        return tf.reduce_prod(chosen)

    def expected_loss(self, teacher):
        """E over labelings of the labeled loss after the student's step."""
        teacher = tf.constant(teacher)
        return sum(
            self.probability(teacher, target)
            * self.labeled_loss(self.after(target))
            for target in self.labelings()
        )

    def estimate(self, target, kind, scale="sum"):
        """The gradient for one labeling, as the algorithm takes it."""
        after = self.after(target)
        if kind == "taylor":
            h = feedback.taylor(
                self.labeled_loss([self.student]), self.labeled_loss(after)
            )
        elif kind == "dot":
            h = feedback.dot(
                self.learning_rate,
                self.labeled_gradient(after),
                self.student_gradient(target),
            )
        else:
            h = feedback.per_example(
                self.learning_rate,
                self.labeled_gradient(after),
                lambda params: self.student_losses(params, target),
                [self.student],
            )
        with tf.GradientTape() as tape:
            tape.watch(self.teacher)
            losses = cross_entropy(target, self.u @ self.teacher)
            if kind == "per_example" or scale == "mean":
                objective = tf.reduce_mean(h * losses)
            else:
                objective = h * tf.reduce_sum(losses)
        return tape.gradient(objective, self.teacher)

    def expectation(self, kind, scale="sum"):
        """E over all labelings of `estimate`."""
        return sum(
            self.probability(self.teacher, target)
            * self.estimate(target, kind, scale)
            for target in self.labelings()
        ).numpy()


@pytest.fixture(scope="module")
def pair():
    return LinearPair()


@pytest.fixture(scope="module")
def true_gradient(pair):
    return central_difference(
        pair.expected_loss, pair.teacher.numpy(), epsilon=1e-4
    )


def alignment(a, b):
    """Cosine of the angle, and ratio of the lengths, of two gradients."""
    cosine = np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return cosine, np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("kind", ("taylor", "dot", "per_example"))
def test_expectation_over_all_labelings_is_the_teacher_gradient(
    pair, true_gradient, kind
):
    cosine, ratio = alignment(pair.expectation(kind), true_gradient)
    assert cosine > 0.9999
    assert abs(ratio - 1) < 5e-3


def test_both_ways_to_the_products_of_single_examples_agree(
    two_replicas, float64
):
    """Forward mode and weights of the losses, on one replica and on two."""
    batch = tiny_batch()["unlabeled"]
    images = batch["strong"]
    target = tf.one_hot(batch["oracle_label"], 3, dtype=tf.float64)

    def products(network, start, size, **form):
        """Those of `size` rows from `start` on."""
        u, q = (
            tf.ensure_shape(rows[start : start + size], [size, *rows.shape[1:]])
            for rows in (images, target)
        )
        state = functional.state(network)

        def losses_at(params):
            logits, _ = functional.call(network, params, state, u)
            return cross_entropy(q, logits)

        params = functional.parameters(network)
        return feedback.per_example(0.5, direction, losses_at, params, **form)

    network = tiny_network(sync=True)
    direction = [
        tf.random.normal(v.shape, dtype=tf.float64)
        for v in network.trainable_variables
    ]
    expected = products(network, 0, 16)
    assert np.abs(expected).min() > 0
    weights = products(network, 0, 16, forward_mode=False)
    np.testing.assert_allclose(weights, expected, rtol=1e-9)
    with two_replicas.scope():
        twin = tiny_network(sync=True)
        twin.set_weights(network.get_weights())
    for form in (True, False):
        halves = on_replicas(
            two_replicas,
            lambda replica, form=form: products(
                twin, 8 * replica, 8, forward_mode=form
            ),
        )
        np.testing.assert_allclose(np.concatenate(halves), expected, rtol=1e-9)


def test_the_mean_form_is_too_short_by_the_batch_size(pair, true_gradient):
    estimate = pair.expectation("dot", scale="mean")
    cosine, ratio = alignment(estimate, true_gradient)
    assert cosine > 0.9999
    np.testing.assert_allclose(ratio, 1 / pair.size, rtol=5e-3)


def test_soft_labels_have_no_gradient_in_their_own_cross_entropy(pair):
    logits = pair.u @ pair.teacher
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(cross_entropy(pseudo_labels.soft(logits), logits))
    np.testing.assert_allclose(tape.gradient(loss, logits), 0, atol=1e-15)


def test_taylor_and_dot_differ_by_half_as_much_at_half_the_rate():
    errors = []
    for rate in (0.02, 0.01):
        pair = LinearPair(rate)
        target = next(pair.labelings())
        h = feedback.dot(
            rate,
            pair.labeled_gradient(pair.after(target)),
            pair.student_gradient(target),
        )
        t = feedback.taylor(
            pair.labeled_loss([pair.student]),
            pair.labeled_loss(pair.after(target)),
        )
        errors.append(abs(float(t - h) / float(h)))
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.1)


def test_a_right_label_gives_positive_feedback_and_a_wrong_one_negative():
    pair = LinearPair()
    pair.x = pair.u
    pair.y = tf.one_hot([0, 1, 2], 3, dtype=tf.float64)
    pair.student = tf.zeros([2, 3], tf.float64)
    before = pair.labeled_loss([pair.student])
    right = feedback.taylor(before, pair.labeled_loss(pair.after(pair.y)))
    wrong = feedback.taylor(
        before, pair.labeled_loss(pair.after(tf.roll(pair.y, 1, axis=1)))
    )
    assert right > 0 > wrong


def test_baseline_is_updated_before_it_is_subtracted():
    baseline = feedback.update_baseline(tf.constant(0.0), 2.0, 0.99)
    np.testing.assert_allclose(baseline, 0.02, rtol=1e-6)
    baseline = feedback.update_baseline(baseline, 2.0, 0.99)
    np.testing.assert_allclose(baseline, 0.0398, rtol=1e-6)
