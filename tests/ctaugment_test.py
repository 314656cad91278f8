"""CTAugment: draws follow the rates, and levels mean what Pillow means."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tf_metassl.data.ctaugment import CTAugmentPolicy
from tf_metassl.ops import augmentation_rates

SEED = tf.constant([3, 5], tf.int32)
NAMES = list(augmentation_rates.BINS)


def images(num_images, shape=(24, 20, 3)):
    rng = np.random.default_rng(0)
    return rng.integers(30, 220, (num_images, *shape)).astype(np.uint8)


def one_operation(name, batch, level, method=0.0):
    """The batch after a first layer with one operation for all images."""
    size = len(batch)
    policy = CTAugmentPolicy(final_cutout=0.0)
    draw = policy.draw(SEED, size, batch.shape[1:])
    draw["op"] = tf.fill([size, 2], NAMES.index("identity"))
    draw["op"] = tf.stack(
        [tf.fill([size], NAMES.index(name)), draw["op"][:, 1]], axis=1
    )
    levels = tf.stack([tf.constant(level), tf.fill([size], method)], axis=1)
    draw["level"] = tf.tile(levels[:, None], [1, 2, 1])
    return policy.apply(batch, draw).numpy()


LEVELS = np.float32([0.0, 0.1, 0.35, 0.5, 0.8, 0.99])


def pillow(function, batch):
    rows = [
        np.asarray(function(Image.fromarray(image), float(level)))
        for image, level in zip(batch, LEVELS, strict=True)
    ]
    return np.stack(rows).astype(int)


def blended(change):
    return lambda image, level: Image.blend(image, change(image), level)


def enhanced(kind):
    return lambda image, level: kind(image).enhance(0.1 + 1.9 * level)


PILLOW = {
    "autocontrast": blended(ImageOps.autocontrast),
    "blur": blended(lambda image: image.filter(ImageFilter.BLUR)),
    "brightness": enhanced(ImageEnhance.Brightness),
    "color": enhanced(ImageEnhance.Color),
    "contrast": enhanced(ImageEnhance.Contrast),
    "equalize": blended(ImageOps.equalize),
    "identity": lambda image, level: image,
    "invert": blended(ImageOps.invert),
    "posterize": lambda image, level: ImageOps.posterize(
        image, 1 + int(level * 7.999)
    ),
    "smooth": blended(lambda image: image.filter(ImageFilter.SMOOTH)),
    "solarize": lambda image, level: ImageOps.solarize(
        image, int(level * 255.999)
    ),
    "rotate": lambda image, level: image.rotate(
        int(np.round((2 * level - 1) * 45)), fillcolor=(127,) * 3
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_those_of_pillow(name):
    batch = images(len(LEVELS))
    actual = one_operation(name, batch, LEVELS).astype(int)
    difference = np.abs(actual - pillow(PILLOW[name], batch))
    if name == "rotate":
        # Pillow puts the center half a pixel elsewhere.
        assert (difference > 0).mean() < 0.6
        np.testing.assert_array_equal(actual[3], batch[3])
    else:
        # Pillow blends with the level in single, factors in double precision.
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_translations_are_fractions_of_the_side():
    batch = images(1, (10, 20, 3))
    for name, level, pixels, axis in (
        ("translate_x", 1.0, 6, 2),
        ("translate_y", 0.0, -3, 1),
    ):
        result = one_operation(name, batch, [level])
        moved = np.roll(batch, pixels, axis)
        gray = [slice(None)] * 3
        gray[axis] = slice(0, pixels) if pixels > 0 else slice(pixels, None)
        moved[tuple(gray)] = 127
        np.testing.assert_array_equal(result, moved)


def test_rescale_chooses_its_filter_by_the_second_level():
    batch = images(2, (16, 16, 3))
    for number, resampling in enumerate(("LANCZOS", "BICUBIC", "BILINEAR")):
        method = (number + 0.5) / 6
        actual = one_operation("rescale", batch, [0.5, 1.0], method)
        for image, result, cut in zip(batch, actual, (2, 4), strict=True):
            cropped = Image.fromarray(image).crop(
                (cut, cut, 16 - cut, 16 - cut)
            )
            expected = cropped.resize((16, 16), Image.Resampling[resampling])
            difference = result.astype(int) - np.asarray(expected)
            assert np.abs(difference).max() <= 1


def test_cutout_is_at_most_half_the_side():
    result = one_operation("cutout", images(200), np.full(200, 1, np.float32))
    covered = (result == 127).all(-1).sum((1, 2))
    # 1 + int(20 * 0.499) = 10 pixels wide, but where the border clips it.
    assert covered.max() == 100 and covered.min() >= 25


def test_draws_follow_the_probabilities():
    rates = augmentation_rates.initial().numpy()
    rescale, posterize = NAMES.index("rescale"), NAMES.index("posterize")
    rates[posterize, 0, :8] = [0, 0, 0.99, 0, 0, 0.99, 0, 0]
    rates[rescale, 1, :6] = [0, 0, 0, 0, 0, 1]
    chances = augmentation_rates.probabilities(rates)
    draw = CTAugmentPolicy(chances).draw(SEED, 20_000, (8, 8, 3))
    op, bins = draw["op"].numpy(), draw["bin"].numpy()
    level = draw["level"].numpy()
    counts = np.bincount(op.ravel(), minlength=19)
    assert np.abs(counts / op.size - 1 / 19).max() < 0.005
    chosen = bins[op == posterize][:, 0]
    assert set(chosen) == {2, 5}
    assert abs((chosen == 2).mean() - 0.5) < 0.05
    assert set(bins[op == rescale][:, 1]) == {5}
    assert set(bins[op == rescale][:, 0]) == set(range(17))
    inside = level[op == posterize][:, 0] * 8 - chosen
    assert inside.min() >= 0 and inside.max() < 1.0 + 1e-5
    assert abs(inside.mean() - 0.5) < 0.03


def test_a_probe_draws_all_bins_alike():
    draw = CTAugmentPolicy().draw(SEED, 20_000, (8, 8, 3))
    op, bins = draw["op"].numpy(), draw["bin"].numpy()
    counts = np.bincount(bins[op == NAMES.index("rotate")][:, 0], minlength=17)
    assert np.abs(counts / counts.sum() - 1 / 17).max() < 0.02


def test_every_image_is_cut_in_the_end():
    batch = np.zeros((50, 8, 8, 1), np.uint8)
    draw = CTAugmentPolicy().draw(SEED, 50, (8, 8, 1))
    draw["op"] = tf.fill([50, 2], NAMES.index("identity"))
    result = CTAugmentPolicy().apply(batch, draw).numpy()
    covered = (result == 127).sum((1, 2, 3))
    assert covered.max() == 16 and covered.min() >= 4
