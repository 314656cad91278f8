"""What consistency methods share: the teacher's pass and the ramped weight."""

import numpy as np
import pytest

from tests.helpers import tiny_algorithm, tiny_batch, tiny_network, values


@pytest.mark.parametrize(
    "name, ramp",
    [("mean_teacher", np.exp(-5 * 0.75**2)), ("pseudo_label", 0.25)],
)
def test_the_unlabeled_loss_is_weighted_and_ramped(name, ramp):
    algorithm = tiny_algorithm(
        name, unlabeled_loss_weight=8.0, unlabeled_ramp_steps=20
    )
    algorithm.optimizer.iterations.assign(5)
    loss = algorithm.weighted_sum(2.0, 3.0)
    np.testing.assert_allclose(loss, 2.0 + 8.0 * ramp * 3.0, rtol=1e-6)
    assert algorithm.metric("labeled_loss") == 2.0
    assert algorithm.metric("unlabeled_loss") == 3.0


def test_the_teachers_pass_moves_no_average():
    algorithm, batch = tiny_algorithm("mean_teacher"), tiny_batch()
    expected = tiny_network("alone")
    expected.set_weights(algorithm.student.get_weights())
    algorithm.forward(
        expected, batch["labeled"]["weak"], batch["unlabeled"]["weak_1"]
    )
    before = values(algorithm.ema)
    algorithm.compute_losses(batch)
    for a, b in zip(values(algorithm.student), values(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for a, b in zip(values(algorithm.ema), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_teacher_and_student_have_different_dropout_masks():
    batch = tiny_batch()
    # Alone in its batch, so that the masks have the same shape.
    images = batch["unlabeled"]["weak_1"]
    algorithm = tiny_algorithm(
        "mean_teacher",
        network=lambda role: tiny_network(role, dropout=0.5),
    )
    student = algorithm.forward(algorithm.student, images)
    teacher = algorithm.teacher_logits(images)
    assert np.abs(student - teacher).max() > 1e-3
