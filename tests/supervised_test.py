"""Supervised training against NumPy."""

from tests.helpers import assert_supervised_loss


def test_the_loss_by_hand(float64):
    assert_supervised_loss(
        "supervised", lambda labeled, label: (labeled["weak"], label)
    )
