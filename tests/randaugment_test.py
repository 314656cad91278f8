"""RandAugment: the labeled images are seen in their strong view alone."""

import numpy as np

from tests.helpers import (
    assert_supervised_loss,
    numpy_cross_entropy,
    tiny_algorithm,
    tiny_batch,
    training_logits,
)


def test_the_loss_by_hand(float64):
    assert_supervised_loss(
        "randaugment", lambda labeled, label: (labeled["strong"], label)
    )


def test_the_loss_is_that_of_the_strong_view():
    algorithm, batch = tiny_algorithm("randaugment"), tiny_batch()
    labeled = batch["labeled"]
    assert algorithm.views.labeled == ("strong",)
    assert algorithm.views.unlabeled == ()
    (logits,) = training_logits(algorithm.student, labeled["strong"])
    (weak,) = training_logits(algorithm.student, labeled["weak"])
    label = labeled["label"].numpy()
    expected = numpy_cross_entropy(label, logits)
    assert abs(expected - numpy_cross_entropy(label, weak)) > 1e-4
    loss = algorithm.compute_losses({"labeled": labeled})
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
