"""Supervised training with MixUp against NumPy."""

from tests.helpers import assert_supervised_loss, numpy_mixup


def test_the_loss_by_hand(float64):
    assert_supervised_loss(
        "supervised_mixup",
        lambda labeled, label: (
            numpy_mixup(labeled["weak"], labeled),
            numpy_mixup(label, labeled),
        ),
    )
