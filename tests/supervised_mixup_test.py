"""Supervised training with MixUp and CutMix against NumPy."""

import numpy as np

from tests.helpers import (
    assert_supervised_loss,
    numpy_mixup,
    tiny_algorithm,
    tiny_batch,
)
from tf_metassl.ops import draws


def test_the_loss_by_hand(float64):
    assert_supervised_loss(
        "supervised_mixup",
        lambda labeled, label: (
            numpy_mixup(labeled["weak"], labeled),
            numpy_mixup(label, labeled),
        ),
    )


def test_the_loss_of_cutmix_by_hand(float64):
    rows = len(tiny_batch()["labeled"]["label"])
    center = tiny_algorithm("supervised_mixup").draw(
        draws.uniform, [rows, 2], "cutmix"
    )

    def cut(labeled, label):
        images = np.array(labeled["weak"], np.float64)
        mixed, targets = images.copy(), np.empty_like(label)
        weight, partner = (
            labeled[k].numpy() for k in ("mix_weight", "mix_partner")
        )
        height, width = images.shape[1:3]
        for row in range(rows):
            other = row - row % 8 + partner[row]
            side = np.sqrt(np.float32(1) - weight[row])
            y, x = (
                int(s * c)
                for s, c in zip(
                    (height, width), center[row].numpy(), strict=True
                )
            )
            a, b = int(height * side) // 2, int(width * side) // 2
            box = np.s_[max(y - a, 0) : y + a, max(x - b, 0) : x + b]
            cut_out = np.zeros((height, width))
            cut_out[box] = 1
            mixed[row][box] = images[other][box]
            share = cut_out.mean()
            targets[row] = (1 - share) * label[row] + share * label[other]
        return mixed, targets

    assert_supervised_loss("supervised_mixup", cut, mixing="cutmix")
