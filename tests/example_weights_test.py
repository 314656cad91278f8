"""Meta gradients against finite differences, and the rules for weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    central_difference,
    on_replicas,
    tiny_network,
    values,
)
from tf_metassl import models
from tf_metassl.meta import example_weights, functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy

FORMS = {
    "nested_tape": example_weights.nested_tape,
    "forward_mode": example_weights.forward_mode,
    "finite_difference": example_weights.finite_difference,
}
# Relative errors in float64: a one-sided difference has that of its step.
ERRORS = {"nested_tape": 1e-6, "forward_mode": 1e-6, "finite_difference": 1e-2}


def problem(network, images_shape, num_labeled=8, num_unlabeled=7, seed=0):
    """Losses of a network as functions of its parameters."""
    rng = np.random.default_rng(seed)
    dtype = keras.config.floatx()
    classes = network.output_shape[-1]

    def images(size):
        return tf.constant(rng.uniform(0, 255, (size, *images_shape)), dtype)

    x, u = images(num_labeled), images(num_unlabeled)
    y = tf.one_hot(rng.integers(0, classes, num_labeled), classes, dtype=dtype)
    q = tf.constant(rng.dirichlet(np.ones(classes), num_unlabeled), dtype)
    params, state = functional.parameters(network), functional.state(network)

    def losses_at(theta):
        logits, new_state = functional.call(network, theta, state, u)
        return cross_entropy(q, logits), new_state

    def labeled_loss_at(theta):
        logits, _ = functional.call(network, theta, state, x)
        return tf.reduce_mean(cross_entropy(y, logits))

    return losses_at, labeled_loss_at, params


@pytest.mark.parametrize("form", FORMS)
def test_meta_gradient_equals_finite_differences(form, float64):
    network = tiny_network()
    losses_at, labeled_loss_at, params = problem(network, (6, 5, 1))
    alpha = 0.3

    def labeled_loss_of_weights(weight):
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = tf.reduce_sum(weight * losses_at(params)[0])
        gradient = functional.gradient(tape, loss, params)
        return labeled_loss_at(lookahead_step(params, gradient, alpha))

    expected = central_difference(labeled_loss_of_weights, np.zeros(7))
    meta = FORMS[form](
        losses_at, labeled_loss_at, params, alpha, num_examples=7
    )
    np.testing.assert_allclose(meta.meta_gradient, expected, rtol=ERRORS[form])


def test_both_forms_agree_to_1e_9_in_float64_with_batch_norm(float64):
    losses_at, labeled_loss_at, params = problem(tiny_network(), (6, 5, 1))
    results = [
        FORMS[form](losses_at, labeled_loss_at, params, 0.3, num_examples=7)
        for form in ("nested_tape", "forward_mode")
    ]
    np.testing.assert_allclose(
        results[0].meta_gradient, results[1].meta_gradient, rtol=1e-9
    )


@pytest.mark.slow
def test_both_forms_agree_to_1e_5_in_float32_on_a_wide_resnet():
    network = models.build("wrn_16_1", (32, 32, 3), 10)
    losses_at, labeled_loss_at, params = problem(
        network, (32, 32, 3), num_labeled=16, num_unlabeled=16
    )
    nested, forward, difference = (
        tf.function(
            lambda form=form: (
                form(
                    losses_at, labeled_loss_at, params, 0.1, num_examples=16
                ).meta_gradient
            )
        )().numpy()
        for form in FORMS.values()
    )
    size = np.linalg.norm(nested)
    assert np.linalg.norm(nested - forward) / size < 1e-5
    # What float32 leaves of a difference is enough for the signs.
    assert np.linalg.norm(nested - difference) / size < 0.1


def test_lookahead_steps_multiply_the_meta_gradient(float64):
    losses_at, labeled_loss_at, params = problem(tiny_network(), (6, 5, 1))
    one, three = (
        example_weights.nested_tape(
            losses_at,
            labeled_loss_at,
            params,
            0.3,
            num_examples=7,
            num_lookahead_steps=steps,
        ).meta_gradient
        for steps in (1, 3)
    )
    np.testing.assert_allclose(three, 3 * one, rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_meta_pass_changes_no_variable(form):
    network = tiny_network()
    before = values(network)
    losses_at, labeled_loss_at, params = problem(network, (6, 5, 1))
    FORMS[form](losses_at, labeled_loss_at, params, 0.3, num_examples=7)
    for old, new in zip(before, values(network), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("form", FORMS)
def test_the_kept_tape_gives_the_gradient_of_a_second_pass(form, float64):
    network = tiny_network()
    losses_at, labeled_loss_at, params = problem(network, (6, 5, 1))
    meta = FORMS[form](losses_at, labeled_loss_at, params, 0.3, num_examples=7)
    weight = tf.constant([0.5, 0, 1, 0, 2, 0, -1], tf.float64)
    with meta.tape:
        loss = tf.reduce_sum(weight * meta.unlabeled_loss)
    shared = functional.gradient(meta.tape, loss, params)
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss = tf.reduce_sum(weight * losses_at(params)[0])
    for a, b in zip(
        shared, functional.gradient(tape, loss, params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_of_a_labeled_example_helps_and_a_wrong_label_hurts(
    form, float64
):
    x = tf.constant([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]], tf.float64)
    y = tf.one_hot([0, 1, 2], 3, dtype=tf.float64)
    u = tf.gather(x, [0, 0])
    q = tf.one_hot([0, 1], 3, dtype=tf.float64)
    params = [tf.fill([2, 3], tf.constant(0.1, tf.float64))]
    meta = FORMS[form](
        lambda p: (cross_entropy(q, u @ p[0]), None),
        lambda p: tf.reduce_mean(cross_entropy(y, x @ p[0])),
        params,
        0.1,
        num_examples=2,
    )
    assert meta.meta_gradient[0] < 0 < meta.meta_gradient[1]


@pytest.mark.parametrize("form", FORMS)
def test_two_replicas_get_the_meta_gradient_of_the_global_batch(
    form, two_replicas, float64
):
    """The lookahead follows the gradient that is summed over replicas."""
    rng = np.random.default_rng(0)
    x, u = rng.uniform(0, 255, (2, 8, 6, 5, 1))
    y = np.eye(NUM_CLASSES)[rng.integers(0, NUM_CLASSES, 8)]
    q = rng.dirichlet(np.ones(NUM_CLASSES), 8)

    def meta_gradient(network, start, size):
        """That of `size` rows from `start` on."""
        images, label, unlabeled, target = (
            tf.ensure_shape(
                tf.constant(rows)[start : start + size],
                [size, *rows.shape[1:]],
            )
            for rows in (x, y, u, q)
        )
        state = functional.state(network)

        def losses_at(theta):
            logits, _ = functional.call(network, theta, state, unlabeled)
            return cross_entropy(target, logits), None

        def labeled_loss_at(theta):
            logits, _ = functional.call(network, theta, state, images)
            return replicas.share_of_mean(cross_entropy(label, logits))

        return FORMS[form](
            losses_at,
            labeled_loss_at,
            functional.parameters(network),
            0.3,
            num_examples=size,
            num_lookahead_steps=2,
        ).meta_gradient

    expected = meta_gradient(tiny_network(sync=True), 0, 8)
    keras.utils.set_random_seed(0)
    with two_replicas.scope():
        network = tiny_network(sync=True)
    halves = on_replicas(
        two_replicas, lambda replica: meta_gradient(network, 4 * replica, 4)
    )
    assert np.abs(expected).min() > 0
    # Also where the form itself has an error, it is that of one device.
    np.testing.assert_allclose(np.concatenate(halves), expected, rtol=1e-6)


META_GRADIENT = tf.constant([-0.5, 0.25, 0.0, -1.5])


@pytest.mark.parametrize(
    "rule, expected",
    [
        ("indicator", [1, 0, 1, 1]),
        ("constant", [1, 1, 1, 1]),
        ("plus_minus_one", [1, -1, 1, 1]),
        ("relu_norm", [0.5, 0, 0, 1.5]),
    ],
)
def test_rules(rule, expected):
    weight = example_weights.RULES[rule](META_GRADIENT)
    np.testing.assert_allclose(weight, expected)


@pytest.mark.parametrize("rule", example_weights.RULES)
def test_rules_follow_a_permutation_and_stop_gradients(rule):
    order = [2, 0, 3, 1]
    with tf.GradientTape() as tape:
        tape.watch(META_GRADIENT)
        weight = example_weights.RULES[rule](META_GRADIENT)
    permuted = example_weights.RULES[rule](tf.gather(META_GRADIENT, order))
    np.testing.assert_array_equal(tf.gather(weight, order), permuted)
    assert tape.gradient(weight, META_GRADIENT) is None or rule == "constant"


def test_a_matrix_is_refused():
    with pytest.raises(ValueError, match=r"rank 1, got shape \(4, 1\)"):
        example_weights.indicator(META_GRADIENT[:, tf.newaxis])


def test_normalized_weights_are_zero_if_nothing_is_selected():
    weight = example_weights.normalized(tf.zeros([3]), tf.constant(0.0))
    np.testing.assert_array_equal(weight, np.zeros(3))
    weight = example_weights.normalized(
        tf.constant([1.0, 0.0, 3.0]), tf.constant(4.0)
    )
    np.testing.assert_allclose(weight, [0.25, 0, 0.75])
