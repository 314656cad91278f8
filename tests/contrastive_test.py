"""The contrastive policy against its operations one by one, in Pillow."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from tf_metassl.data import host_draws, image_ops, policies
from tf_metassl.data.contrastive import ContrastivePolicy

SEED = tf.constant([3, 5], tf.int32)


def make_images(num_images, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


def turned(image, factor):
    """torchvision's `adjust_hue` of a Pillow image."""
    hue, saturation, value = image.convert("HSV").split()
    values = (np.int32(hue) + int(factor * 255)) % 256
    hue = Image.fromarray(np.uint8(values), "L")
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def by_hand(image, draw, row):
    """Color jitter, then gray, of one image, with Pillow."""
    image = Image.fromarray(image)
    steps = (
        lambda i: ImageEnhance.Brightness(i).enhance(draw["brightness"][row]),
        lambda i: ImageEnhance.Contrast(i).enhance(draw["contrast"][row]),
        lambda i: ImageEnhance.Color(i).enhance(draw["saturation"][row]),
        lambda i: turned(i, draw["hue"][row]),
    )
    if draw["jitter"][row]:
        for op in draw["order"][row]:
            image = steps[op](image)
    if draw["gray"][row]:
        image = image.convert("L").convert("RGB")
    return np.asarray(image)


def test_tones_are_those_of_pillow_in_the_order_that_is_drawn():
    policy = ContrastivePolicy(flip=False, area=(1.0, 1.0), strength=0.9)
    images = make_images(64, (12, 12, 3))
    draw = policy.draw(SEED, 64, (12, 12, 3))
    # The whole image, so that only tones change.
    for name, value in {"top": 0, "left": 0, "height": 12, "width": 12}.items():
        draw[name] = tf.fill([64], float(value))
    result = policy.apply(images, draw).numpy()
    drawn = {name: values.numpy() for name, values in draw.items()}
    assert len({tuple(order) for order in drawn["order"]}) > 15
    assert 35 < drawn["jitter"].sum() < 62 and 4 < drawn["gray"].sum() < 26
    expected = np.stack([by_hand(images[i], drawn, i) for i in range(64)])
    np.testing.assert_array_equal(result, expected)


def test_ranges_and_frequencies():
    draw = policies.CONTRASTIVE_POLICIES["simclr"].draw(
        SEED, 4000, (224, 224, 3)
    )
    low_high = {
        "brightness": (0.2, 1.8),
        "contrast": (0.2, 1.8),
        "saturation": (0.2, 1.8),
        "hue": (-0.2, 0.2),
        "sigma": (0.1, 2.0),
    }
    for name, (low, high) in low_high.items():
        values = draw[name].numpy()
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    shares = {"jitter": 0.8, "gray": 0.2, "blur": 0.5, "flip": 0.5}
    for name, share in shares.items():
        assert draw[name].numpy().mean() == pytest.approx(share, abs=0.04)
    area = (draw["height"] * draw["width"]).numpy() / 224**2
    assert 0.07 < area.min() < 0.1 and area.max() > 0.9
    # Every operation is at every place as often as any other.
    for place in draw["order"].numpy().T:
        assert np.bincount(place).min() > 900


def test_no_two_draws_of_an_image_depend_on_each_other():
    policy = policies.CONTRASTIVE_POLICIES["simclr"]
    shape = (32, 32, 3)
    first, second = (
        policy.draw(host_draws.fold_in(SEED, name), 2000, shape)
        for name in ("contrastive_1", "contrastive_2")
    )
    for name in ("brightness", "hue", "height", "left", "sigma"):
        for other in (second[name], first["contrast"]):
            correlation = np.corrcoef(first[name], other)[0, 1]
            assert abs(correlation) < 0.08, name


def test_blur_is_relative_to_the_size():
    policy = policies.CONTRASTIVE_POLICIES["simclr"]
    small = policy.draw(SEED, 500, (56, 56, 3))["sigma"].numpy()
    assert 0.4 < small.max() <= 0.5 and small.min() >= 0.025
    images = make_images(40, (56, 56, 3))
    draw = policy.draw(SEED, 40, (56, 56, 3))
    without = {**draw, "blur": tf.zeros([40], tf.bool)}
    blurred, sharp = (policy.apply(images, d).numpy() for d in (draw, without))
    changed = (blurred != sharp).any(axis=(1, 2, 3))
    expected = image_ops.gaussian_blur(sharp, draw["sigma"], 2).numpy()
    rows = draw["blur"].numpy()
    assert 5 < rows.sum() < 35 and changed[~rows].sum() == 0
    np.testing.assert_array_equal(blurred[rows], expected[rows])


def test_gray_digits_keep_their_single_channel():
    policy = policies.CONTRASTIVE_POLICIES["simclr_digits"]
    images = make_images(50, (8, 8, 1))
    draw = policy.draw(SEED, 50, (8, 8, 1))
    assert not draw["flip"].numpy().any()
    result = policy.apply(images, draw)
    assert result.shape == images.shape and result.dtype == tf.uint8
    neutral = {
        "brightness": tf.ones([50]),
        "contrast": tf.ones([50]),
        "height": tf.fill([50], 8.0),
        "width": tf.fill([50], 8.0),
        "top": tf.zeros([50]),
        "left": tf.zeros([50]),
    }
    np.testing.assert_array_equal(
        policy.apply(images, {**draw, **neutral}), images
    )


@pytest.mark.parametrize(
    "weak, size, expected",
    [
        ("affine", (8, 8), "simclr_digits"),
        ("crop", (32, 32), "simclr_digits"),
        ("flip_crop", (32, 32), "simclr_small"),
        ("resized_crop", (224, 224), "simclr"),
    ],
)
def test_the_policy_that_auto_means(weak, size, expected):
    assert policies.contrastive_for(weak, size) == expected


def test_without_mirroring_only_the_flips_are_gone():
    policy = policies.contrastive("simclr_small")
    assert policy.flip
    assert policy.without_mirroring() == dataclasses.replace(policy, flip=False)
