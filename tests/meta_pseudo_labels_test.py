"""Meta Pseudo Labels: its feedback, its stages and what a step may change."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    central_difference,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl.meta import functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.ops import metrics
from tf_metassl.ops.losses import cross_entropy

FEEDBACKS = ("taylor", "dot", "per_example", "exact_soft")


def test_exact_soft_equals_finite_differences_through_the_teacher(float64):
    """The whole `train_step`: teacher's gradient with and without feedback."""
    batch = tiny_batch()
    strong = batch["unlabeled"]["strong"]
    hp = {"label_smoothing": 0.0, "uda_weight": 0.0, "ema_decay": 0.0}

    def teacher_step(kind):
        keras.utils.set_random_seed(3)
        algorithm = tiny_algorithm(
            "meta_pseudo_labels", feedback=kind, weight_decay=0.0, **hp
        )
        captured = {}

        def capture(role, gradients):
            captured[role] = gradients

        algorithm.apply_gradients = capture
        algorithm.train_step(batch)
        return algorithm, captured["teacher"]

    algorithm, with_feedback = teacher_step("exact_soft")
    _, without = teacher_step("off")
    keras.utils.set_random_seed(3)
    algorithm = tiny_algorithm("meta_pseudo_labels", **hp)
    student, teacher = algorithm.student, algorithm.teacher
    theta_s, state_s = functional.parameters(student), functional.state(student)
    theta_t, state_t = functional.parameters(teacher), functional.state(teacher)
    label = algorithm.one_hot(batch["labeled"]["label"])
    groups = [batch["labeled"]["weak"], batch["unlabeled"]["weak"], strong]

    def labeled_loss_of_last_layer(kernel):
        params = [*theta_t[:-2], tf.constant(kernel), theta_t[-1]]
        logits, _ = functional.call(
            teacher, params, state_t, tf.concat(groups, 0)
        )
        target = tf.nn.softmax(logits[24:])
        with tf.GradientTape() as tape:
            tape.watch(theta_s)
            out, _ = functional.call(student, theta_s, state_s, strong)
            loss = tf.reduce_mean(cross_entropy(target, out))
        after = lookahead_step(
            theta_s, functional.gradient(tape, loss, theta_s), 0.1
        )
        out, _ = functional.call(
            student, after, state_s, batch["labeled"]["weak"]
        )
        return tf.reduce_mean(cross_entropy(label, out))

    expected = central_difference(
        labeled_loss_of_last_layer, theta_t[-2].numpy(), epsilon=1e-5
    )
    actual = with_feedback[-2] - without[-2]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-10)
    assert np.linalg.norm(expected) > 1e-6


@pytest.mark.parametrize("kind", FEEDBACKS)
def test_feedback_moves_the_teacher_and_its_sign_reverses_the_move(kind):
    batch = tiny_batch()

    def teacher_after(**hp):
        keras.utils.set_random_seed(3)
        algorithm = tiny_algorithm(
            "meta_pseudo_labels",
            uda_weight=0.0,
            feedback_baseline=0.0,
            pseudo_label="auto",
            **hp,
        )
        algorithm.train_step(batch)
        return values(algorithm.teacher)[-2]

    labels = "soft" if kind == "exact_soft" else "sampled"
    keras.utils.set_random_seed(3)
    off = tiny_algorithm(
        "meta_pseudo_labels",
        uda_weight=0.0,
        feedback="off",
        pseudo_label=labels,
    )
    off.train_step(batch)
    none = values(off.teacher)[-2]
    plus = teacher_after(feedback=kind) - none
    minus = teacher_after(feedback=kind, feedback_sign=-1) - none
    assert np.abs(plus).max() > 1e-6
    np.testing.assert_allclose(plus, -minus, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("kind", FEEDBACKS)
def test_a_student_that_does_not_move_gives_no_feedback(kind):
    algorithm = tiny_algorithm(
        "meta_pseudo_labels", feedback=kind, learning_rate=0.0
    )
    algorithm.train_step(tiny_batch())
    assert algorithm.metric("feedback") == 0.0


@pytest.mark.parametrize("kind", (*FEEDBACKS, "off"))
def test_moving_averages_change_in_the_training_pass_alone(kind):
    batch = tiny_batch()
    algorithm = tiny_algorithm("meta_pseudo_labels", feedback=kind)
    student, teacher = algorithm.student, algorithm.teacher
    expected_student = functional.call(
        student,
        functional.parameters(student),
        functional.state(student),
        batch["unlabeled"]["strong"],
    )[1]
    groups = [
        batch["labeled"]["weak"],
        batch["unlabeled"]["weak"],
        batch["unlabeled"]["strong"],
    ]
    expected_teacher = functional.call(
        teacher,
        functional.parameters(teacher),
        functional.state(teacher),
        tf.concat(groups, 0),
    )[1]
    algorithm.train_step(batch)
    for network, expected in (
        (student, expected_student),
        (teacher, expected_teacher),
    ):
        for a, b in zip(functional.state(network), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_label_that_is_scored_is_the_label_that_was_learned():
    """On the same view, the same tensor: no second pseudo-label is made."""
    batch = tiny_batch()
    algorithm = tiny_algorithm("meta_pseudo_labels", feedback="dot")
    made, scored = [], []
    label, score = algorithm._label, algorithm._feedback

    def spy_label(*arguments):
        made.append(label(*arguments))
        return made[-1]

    def spy_feedback(*arguments):
        scored.append(arguments[2])
        return score(*arguments)

    algorithm._label, algorithm._feedback = spy_label, spy_feedback
    algorithm.train_step(batch)
    assert len(made) == 1
    assert scored[0] is made[0]


@pytest.mark.parametrize("role", ("student", "teacher"))
def test_the_loss_tells_of_either_network_that_is_no_number(role):
    algorithm = tiny_algorithm(
        "meta_pseudo_labels", feedback="off", uda_ramp_steps=10
    )
    kernel = getattr(algorithm, role).trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    algorithm.train_step(tiny_batch())
    assert np.isnan(algorithm.metric("loss"))


def test_as_a_regularizer_it_needs_no_unlabeled_images():
    batch = tiny_batch()
    del batch["unlabeled"]
    del batch["labeled"]["strong"]
    algorithm = tiny_algorithm("meta_pseudo_labels", mpl_unlabeled="labeled")
    assert algorithm.views.unlabeled == ()
    before = values(algorithm.student)
    algorithm.train_step(batch)
    assert not np.array_equal(before[0], values(algorithm.student)[0])


def test_the_second_stage_starts_from_the_averaged_student():
    algorithm = tiny_algorithm("meta_pseudo_labels", finetune_steps=5)
    algorithm.train_step(tiny_batch())
    (stage,) = algorithm.later_stages()
    assert (stage.name, stage.num_steps) == ("finetune", 5)
    finetuner = stage.build()
    for a, b in zip(
        values(finetuner.student), values(algorithm.ema), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert finetuner.student.trainable_variables
    np.testing.assert_allclose(finetuner.optimizer.learning_rate, 1e-3)
    assert tiny_algorithm("supervised").later_stages() == []


@pytest.mark.parametrize("weight, measured", ((0.0, False), (0.5, True)))
def test_the_share_of_the_uda_loss_is_measured_where_there_is_one(
    weight, measured
):
    algorithm = tiny_algorithm("meta_pseudo_labels", uda_weight=weight)
    algorithm.train_step(tiny_batch())
    read = metrics.reader(
        algorithm.train_metrics, algorithm.distribute_strategy
    )
    assert ("uda_selected_share" in metrics.measured(read())) == measured
