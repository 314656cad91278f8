"""ICT: the loss by hand, with mixtures of logits."""

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import (
    loss_and_gradient,
    numpy_cross_entropy,
    numpy_mixup,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
)


def test_the_loss_by_hand(float64):
    algorithm = tiny_algorithm(
        "ict", unlabeled_loss_weight=100.0, unlabeled_ramp_steps=4
    )
    algorithm.optimizer.iterations.assign(2)
    batch = tiny_batch()
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    logits_l, logits_u = training_logits(
        algorithm.student,
        numpy_mixup(labeled["weak"], labeled),
        numpy_mixup(unlabeled["weak"], unlabeled),
    )
    # A teacher of another mind, sure of different classes.
    teacher = tiny_network("teacher")
    head = teacher.get_layer("logits")
    kernel = 50 * head.kernel.numpy()
    head.set_weights([kernel, np.zeros(3)])
    (teacher_logits,) = training_logits(teacher, unlabeled["weak"])
    head.set_weights([kernel, -teacher_logits.mean(0)])
    (teacher_logits,) = training_logits(teacher, unlabeled["weak"])
    algorithm.ema.set_weights(teacher.get_weights())
    label = numpy_mixup(np.eye(3)[labeled["label"].numpy()], labeled)

    def total(target):
        squared = (softmax(logits_u) - target) ** 2
        ramp = np.exp(-5 * 0.5**2)
        return numpy_cross_entropy(
            label, logits_l
        ) + 100 * ramp * squared.sum() / (16 * 3)

    expected = total(softmax(numpy_mixup(teacher_logits, unlabeled)))
    of_probabilities = total(numpy_mixup(softmax(teacher_logits), unlabeled))
    assert abs(expected - of_probabilities) > 1e-3 * expected
    loss, _ = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_average_has_the_statistics_of_images_that_are_not_mixed(float64):
    algorithm = tiny_algorithm("ict")
    batch = tiny_batch()
    pixels = tf.cast(batch["unlabeled"]["weak"], "float64")
    average = algorithm.ema
    (norm,) = [v for v in average.layers if hasattr(v, "moving_mean")]
    maps = keras.Model(average.inputs, norm.input)

    def moments():
        seen = maps(pixels).numpy()
        return seen.mean((0, 1, 2)), seen.var((0, 1, 2))

    # The momentum of update t is t / (t + 9).
    first = moments()
    algorithm.train_step(batch)
    second = moments()
    algorithm.train_step(batch)
    for value, one, two in zip(
        (norm.moving_mean, norm.moving_variance), first, second, strict=True
    ):
        np.testing.assert_allclose(value, 0.1 * one + 0.9 * two, rtol=1e-6)
        assert np.abs(two - one).max() > 1e-6
    assert norm.num_updates.numpy() == 2


def test_views_follow_the_hyperparameters():
    views = tiny_algorithm("ict", mixup_alpha=0.1).views
    assert (views.mixup_alpha, views.mix_weight_rule) == (0.1, "plain")
