"""Meta Pseudo Labels against enumeration, finite differences, and the
mistakes of public code."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    central_difference,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    values,
)
from tf_metassl.meta import feedback, functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.ops import pseudo_labels
from tf_metassl.ops.losses import consistency_cross_entropy, cross_entropy

FEEDBACKS = ("taylor", "dot", "per_example", "exact_soft")


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


def test_both_ways_to_the_products_of_single_examples_agree(float64):
    network = tiny_network()
    batch = tiny_batch()
    params, state = functional.parameters(network), functional.state(network)
    target = tf.one_hot(batch["unlabeled"]["oracle_label"], 3, dtype=tf.float64)

    def losses_at(params):
        logits, _ = functional.call(
            network, params, state, batch["unlabeled"]["strong"]
        )
        return cross_entropy(target, logits)

    direction = [tf.random.normal(p.shape, dtype=p.dtype) for p in params]
    forward = feedback.per_example(0.5, direction, losses_at, params)
    # Two replicas that hold the same batch: sums double, shares halve.
    nested = feedback.per_example(
        0.5,
        direction,
        losses_at,
        params,
        num_replicas=2,
        sum_over_replicas=lambda tensors: [2.0 * t for t in tensors],
    )
    np.testing.assert_allclose(forward, nested, rtol=1e-9)


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
    assert float(algorithm._trackers["feedback"].result()) == 0.0


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
    assert np.isnan(algorithm._trackers["loss"].result())


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


def test_baseline_is_updated_before_it_is_subtracted():
    baseline = feedback.update_baseline(tf.constant(0.0), 2.0, 0.99)
    np.testing.assert_allclose(baseline, 0.02, rtol=1e-6)
    baseline = feedback.update_baseline(baseline, 2.0, 0.99)
    np.testing.assert_allclose(baseline, 0.0398, rtol=1e-6)


def test_uda_masks_the_sharpened_confidence_and_divides_by_all():
    weak = tf.math.log([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]])
    strong = tf.zeros([2, NUM_CLASSES])
    # Sharpened with temperature 0.5: 0.25 / 0.38 and 0.64 / 0.66.
    loss, mask = consistency_cross_entropy(
        weak, strong, temperature=0.5, threshold=0.7
    )
    np.testing.assert_array_equal(mask, [0, 1])
    np.testing.assert_allclose(loss, [0, np.log(3)], rtol=1e-6)
    _, mask = consistency_cross_entropy(
        weak, strong, temperature=0.5, threshold=0.6
    )
    np.testing.assert_array_equal(mask, [1, 1])
    at_it = float(tf.nn.softmax(weak / 0.5)[0, 0])
    _, mask = consistency_cross_entropy(
        weak, strong, temperature=0.5, threshold=at_it
    )
    np.testing.assert_array_equal(mask, [1, 1])
    with tf.GradientTape() as tape:
        tape.watch(weak)
        loss, _ = consistency_cross_entropy(
            weak, strong, temperature=0.5, threshold=0.0
        )
    assert tape.gradient(loss, weak) is None
