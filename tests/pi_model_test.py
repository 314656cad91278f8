"""Pi-model: the loss by hand, and the gradient through both branches."""

import numpy as np

from tests.helpers import (
    central_difference,
    loss_and_gradient,
    numpy_cross_entropy,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
)


def test_the_loss_by_hand(float64):
    algorithm = tiny_algorithm(
        "pi_model", unlabeled_loss_weight=30.0, unlabeled_ramp_steps=100
    )
    batch = tiny_batch()
    algorithm.optimizer.iterations.assign(50)
    labeled, first, second = training_logits(
        algorithm.student,
        batch["labeled"]["weak"],
        batch["unlabeled"]["weak_1"],
        batch["unlabeled"]["weak_2"],
    )
    # The mean is over images and classes.
    squared = (softmax(first) - softmax(second)) ** 2
    expected = numpy_cross_entropy(batch["labeled"]["label"].numpy(), labeled)
    expected += 30 * np.exp(-5 * 0.5**2) * squared.sum() / (16 * 3)
    loss, _ = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_gradient_flows_through_both_branches(float64):
    algorithm = tiny_algorithm(
        "pi_model", unlabeled_loss_weight=100.0, unlabeled_ramp_steps=0
    )
    batch = tiny_batch()
    _, gradient = loss_and_gradient(algorithm, batch)
    bias = algorithm.student.trainable_variables[-1]
    start = bias.numpy()

    def loss_at(values):
        bias.assign(values)
        return algorithm.compute_losses(batch)

    expected = central_difference(loss_at, start)
    np.testing.assert_allclose(gradient[-1], expected, rtol=1e-4, atol=1e-8)


def test_branches_have_their_own_dropout_masks():
    batch = tiny_batch()
    batch["unlabeled"]["weak_2"] = batch["unlabeled"]["weak_1"]
    losses = []
    for dropout in (0.0, 0.5):
        algorithm = tiny_algorithm(
            "pi_model",
            network=lambda role, rate=dropout: tiny_network(role, dropout=rate),
        )
        algorithm.compute_losses(batch)
        losses.append(algorithm.metric("unlabeled_loss"))
    assert losses[0] < 1e-10 and losses[1] > 1e-5
