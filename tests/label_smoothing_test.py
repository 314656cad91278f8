"""Supervised training on smoothed labels against NumPy."""

from tests.helpers import assert_supervised_loss


def test_the_loss_by_hand(float64):
    # 0.3 / 3 classes.
    assert_supervised_loss(
        "label_smoothing",
        lambda labeled, label: (labeled["weak"], 0.7 * label + 0.1),
        label_smoothing=0.3,
    )
