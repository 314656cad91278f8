"""AutoAugment: the published sub-policies, and what is drawn."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import auto_augment, image_ops

POLICIES = {
    "cifar10": auto_augment.CIFAR10,
    "svhn": auto_augment.SVHN,
    "imagenet": auto_augment.IMAGENET,
}
SEED = tf.constant([3, 5], tf.int32)


@pytest.mark.parametrize("name", POLICIES)
def test_there_are_25_sub_policies_of_the_search_space(name):
    pairs = POLICIES[name].sub_policies
    assert len(pairs) == 25
    for _, probability, magnitude in (step for pair in pairs for step in pair):
        assert probability * 10 == pytest.approx(round(probability * 10))
        assert 0 <= probability <= 1 and magnitude in range(10)


@pytest.mark.parametrize("name", POLICIES)
def test_operations_are_drawn_by_pairs_with_their_probabilities(name):
    policy = POLICIES[name]
    drawn = policy.draw(SEED, 20_000, (32, 32, 3))
    op, applied, magnitude = (
        drawn[key].numpy() for key in ("op", "applied", "magnitude")
    )
    counts = {}
    for row in range(len(op)):
        key = tuple(
            (policy.ops[o], m)
            for o, m in zip(op[row], magnitude[row], strict=True)
        )
        counts.setdefault(key, []).append(applied[row])
    expected = {}
    for pair in policy.sub_policies:
        key = tuple((step[0], step[2]) for step in pair)
        expected.setdefault(key, []).append([step[1] for step in pair])
    assert counts.keys() == expected.keys()
    for key, rows in counts.items():
        share = len(expected[key]) / 25
        assert len(rows) / len(op) == pytest.approx(share, abs=0.01)
        np.testing.assert_allclose(
            np.mean(rows, 0), np.mean(expected[key], 0), atol=0.06
        )
    assert set(np.unique(drawn["sign"])) == {-1, 1}


def test_a_pair_by_hand():
    policy = auto_augment.AutoAugmentPolicy(
        ops=("invert", "solarize"),
        sub_policies=((("solarize", 1.0, 5), ("invert", 1.0, 0)),),
        final_cutout=0.0,
    )
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    view = policy.apply(images, policy.draw(SEED, 1, (16, 16, 1)))
    # Inverted from 128 on, then inverted.
    expected = np.where(images >= 128, images, 255 - images)
    np.testing.assert_array_equal(view, expected)


def test_what_is_not_applied_changes_nothing():
    policy = auto_augment.AutoAugmentPolicy(
        ops=("invert",),
        sub_policies=((("invert", 0.0, 5), ("invert", 0.0, 0)),),
        final_cutout=0.0,
    )
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    view = policy.apply(images, policy.draw(SEED, 4, (8, 8, 1)))
    np.testing.assert_array_equal(view, images)


def test_imagenets_policy_keeps_more_bits_at_a_higher_magnitude():
    assert int(auto_augment.IMAGENET.level("posterize", 8)) == 3
    assert int(auto_augment.CIFAR10.level("posterize", 8)) == 1
    assert int(auto_augment.IMAGENET.level("solarize", 5)) == 128
    gray = np.full([1, 32, 32, 1], 200, np.uint8)
    cut = image_ops.cutout(gray, [16], [16], [10], 128).numpy()
    assert (cut == 128).sum() == 400
    drawn = auto_augment.SVHN.draw(SEED, 1, (32, 32, 1))
    drawn["applied"] &= False
    drawn |= {key: tf.fill([1, 3], 16) for key in ("center_y", "center_x")}
    np.testing.assert_array_equal(auto_augment.SVHN.apply(gray, drawn), cut)
