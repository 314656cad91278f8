"""The methods that see labeled images alone: each loss by hand."""

import numpy as np
import pytest

from tests.helpers import (
    NUM_CLASSES,
    numpy_cross_entropy,
    numpy_mixup,
    tiny_algorithm,
    tiny_batch,
    training_logits,
)


def mixed(labeled, label):
    return numpy_mixup(labeled["weak"], labeled), numpy_mixup(label, labeled)


# Method -> its hyperparameters, and a function from the labeled group and its
# one-hot labels to images and targets.
EXPECTED = {
    "supervised": ({}, lambda labeled, label: (labeled["weak"], label)),
    "randaugment": ({}, lambda labeled, label: (labeled["strong"], label)),
    # 0.3 / 3 classes.
    "label_smoothing": (
        {"label_smoothing": 0.3},
        lambda labeled, label: (labeled["weak"], 0.7 * label + 0.1),
    ),
    "supervised_mixup": ({}, mixed),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_loss_by_hand(name, float64):
    labeled = tiny_batch()["labeled"]
    hp, images_and_targets = EXPECTED[name]
    algorithm = tiny_algorithm(name, **hp)
    label = np.eye(NUM_CLASSES)[labeled["label"].numpy()]
    images, targets = images_and_targets(labeled, label)
    (logits,) = training_logits(algorithm.student, images)
    expected = numpy_cross_entropy(targets, logits)
    loss = algorithm.compute_losses({"labeled": labeled})
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)
    tracked = float(algorithm._trackers["labeled_accuracy"].result())
    correct = logits.argmax(-1) == labeled["label"].numpy()
    np.testing.assert_allclose(tracked, correct.mean())
