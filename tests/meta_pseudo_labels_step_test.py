"""The step of Meta Pseudo Labels, both gradients computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    assert_same,
    gradient_of,
    inner_product,
    mostly_exhaustive,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    trained_under,
)
from tf_metassl.meta import functional
from tf_metassl.ops.losses import cross_entropy

B, U, C = 8, 16, 3


def sharp(role):
    network = tiny_network(role)
    kernel, bias = network.layers[-1].variables
    kernel.assign(kernel.value * 8.0)
    bias.assign([0.5, 0.0, -0.5])
    return network


def captured_step(batch, finished=0, **hp):
    """The algorithm as it was, and what one step would do to the teacher."""

    def build():
        keras.utils.set_random_seed(3)
        a = tiny_algorithm(
            "meta_pseudo_labels",
            weight_decay=0.0,
            ema_decay=0.0,
            network=sharp,
            **hp,
        )
        a.optimizer.iterations.assign(finished)
        return a

    before, after = build(), build()
    captured, apply = {}, after.apply_gradients

    def capture(role, gradients):
        captured[role] = gradients
        if role == "student":
            apply(role, gradients)

    after.apply_gradients = capture
    after.train_step(batch)
    return before, after, captured


def teacher_logits(params, a, batch):
    u = batch["unlabeled"]
    images = tf.concat([batch["labeled"]["weak"], u["weak"], u["strong"]], 0)
    logits, _ = functional.call(
        a.teacher, params, functional.state(a.teacher), images
    )
    return tf.split(logits, [B, U, U])


def sampled(a, batch, view):
    logits = teacher_logits(functional.parameters(a.teacher), a, batch)
    probs = softmax(logits[2 if view == "strong" else 1].numpy())
    draw = batch["unlabeled"]["label_draw"].numpy()
    label = (probs.cumsum(1) <= draw[:, None]).sum(1)
    assert (label != probs.argmax(1)).any()
    return tf.constant(np.eye(C)[label])


def smoothed(target, a=0.2):
    return tf.constant((1 - a) * target + a / C)


@pytest.mark.parametrize(
    "finished, ramp", [(0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)]
)
def test_both_losses_by_hand(finished, ramp, float64):
    batch = tiny_batch()
    a, b, captured = captured_step(
        batch,
        finished,
        feedback="off",
        label_smoothing=0.2,
        uda_weight=3.0,
        uda_ramp_steps=4,
        uda_temperature=0.7,
        confidence_threshold=0.9,
    )
    target = sampled(a, batch, "strong")

    def student_loss(params):
        logits, _ = functional.call(
            a.student,
            params,
            functional.state(a.student),
            batch["unlabeled"]["strong"],
        )
        return tf.reduce_sum(cross_entropy(smoothed(target), logits)) / U

    fixed = teacher_logits(functional.parameters(a.teacher), a, batch)[
        1
    ].numpy()
    soft = softmax(fixed / 0.7)
    mask = soft.max(1) >= 0.9
    assert 3 < mask.sum() < 13, soft.max(1)

    def teacher_loss(params):
        labeled, _, strong = teacher_logits(params, a, batch)
        label = np.eye(C)[batch["labeled"]["label"].numpy()]
        uda = tf.reduce_sum(mask * cross_entropy(tf.constant(soft), strong)) / U
        return (
            tf.reduce_mean(cross_entropy(smoothed(label), labeled))
            + 3.0 * ramp * uda
        )

    total = sum(
        loss(functional.parameters(network))
        for loss, network in (
            (student_loss, a.student),
            (teacher_loss, a.teacher),
        )
    )
    np.testing.assert_allclose(b.metric("loss"), total, rtol=1e-5)
    for role, loss in (("student", student_loss), ("teacher", teacher_loss)):
        for x, y in zip(
            captured[role], gradient_of(loss, getattr(a, role)), strict=True
        ):
            np.testing.assert_allclose(
                x, y, rtol=1e-6, atol=1e-10, err_msg=role
            )


@pytest.mark.slow
@pytest.mark.parametrize("view", ("strong", "weak"))
@pytest.mark.parametrize(
    "kind, hp, factor",
    [
        ("taylor", {"feedback_scale": "sum", "feedback_baseline": 0.0}, U),
        ("taylor", {"feedback_scale": "mean", "feedback_baseline": 0.0}, 1),
        ("dot", {"feedback_scale": "sum", "feedback_baseline": 0.9}, 0.9 * U),
        ("per_example", {}, 1),
    ],
)
def test_feedback_by_hand(kind, hp, factor, view, float64):
    batch = tiny_batch()
    shared = {
        "uda_weight": 0.0,
        "pseudo_label_view": view,
        "label_smoothing": 0.2,
    }
    a, b, captured = captured_step(batch, feedback=kind, **shared, **hp)
    _, _, without = captured_step(batch, feedback="off", **shared)
    target = sampled(a, batch, view)
    state = functional.state(a.student)

    def labeled_loss(params):
        logits, _ = functional.call(
            a.student, params, state, batch["labeled"]["weak"]
        )
        return tf.reduce_mean(
            cross_entropy(a.one_hot(batch["labeled"]["label"]), logits)
        )

    def losses(params):
        logits, _ = functional.call(
            a.student, params, state, batch["unlabeled"]["strong"]
        )
        return cross_entropy(smoothed(target), logits)

    old = functional.parameters(a.student)
    if kind == "taylor":
        # After a step of plain SGD, not of the optimizer with its momentum.
        gradient = gradient_of(lambda p: tf.reduce_mean(losses(p)), a.student)
        new = [p - 0.1 * g for p, g in zip(old, gradient, strict=True)]
        h = float(labeled_loss(old) - labeled_loss(new)) * np.ones(U)
    else:
        ahead = gradient_of(labeled_loss, b.student)
        each = [
            gradient_of(lambda p, i=i: losses(p)[i], a.student)
            for i in range(U)
        ]
        h = 0.1 * np.array([inner_product(ahead, g) for g in each])
        if kind == "dot":
            h = h.mean() * np.ones(U)
    assert np.abs(h).min() > 0

    def objective(params):
        logits = teacher_logits(params, a, batch)[2 if view == "strong" else 1]
        return factor * tf.reduce_mean(h * cross_entropy(target, logits))

    expected = gradient_of(objective, a.teacher)
    assert max(np.abs(g).max() for g in expected) > 1e-4
    for x, y, z in zip(
        captured["teacher"], without["teacher"], expected, strict=True
    ):
        np.testing.assert_allclose(x - y, z, rtol=1e-6, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", mostly_exhaustive(("taylor", "dot", "exact_soft"), ["exact_soft"])
)
def test_two_replicas(kind, two_replicas, float64):
    batches = [tiny_batch(16, 32, seed=s) for s in range(5)]
    one, two = (
        trained_under(strategy, "meta_pseudo_labels", batches, feedback=kind)
        for strategy in (tf.distribute.get_strategy(), two_replicas)
    )
    assert_same(one[0], two[0], rtol=1e-6, atol=1e-9)
    assert one[1] == pytest.approx(two[1], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("kind", ("taylor", "exact_soft"))
def test_both_labeled_losses_have_the_same_dropout_masks(kind):
    algorithm = tiny_algorithm(
        "meta_pseudo_labels",
        feedback=kind,
        learning_rate=0.0,
        network=lambda role: tiny_network(role, dropout=0.5),
    )
    algorithm.train_step(tiny_batch())
    assert algorithm.metric("feedback") == 0.0
