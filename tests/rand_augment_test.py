"""RandAugment: magnitudes, draws, and that apply does what was drawn."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import image_ops, policies, rand_augment
from tf_metassl.data.rand_augment import RandAugmentPolicy

RAND_AUGMENT = {
    name: policy
    for name, policy in policies.STRONG_POLICIES.items()
    if isinstance(policy, RandAugmentPolicy)
}
SEED = tf.constant([3, 5], tf.int32)


def make_images(num_images, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


def draw_of(num_images, policy, **values):
    """A draw in which every image gets the given values."""
    draw = policy.draw(SEED, num_images, (24, 20, 3))
    for name, value in values.items():
        draw[name] = tf.fill(draw[name].shape, value)
    return draw


# Magnitudes.

# Degrees, pixels and factors at M = 16 for CIFAR-10 and M = 17 for ImageNet.
MPL_LEVELS = [
    ("rotate", 48.0, 51.0),
    ("shear_x", 0.48, 0.51),
    ("shear_y", 0.48, 0.51),
    ("translate_x", 6.4, 170.0),
    ("translate_y", 6.4, 170.0),
    ("color", 2.98, 3.16),
    ("contrast", 2.98, 3.16),
    ("brightness", 2.98, 3.16),
    ("sharpness", 2.98, 3.16),
    ("posterize", 6, 6),
    ("solarize", 409, 435),
    ("cutout", 6, 68),
]


@pytest.mark.parametrize("op, at_16, at_17", MPL_LEVELS)
def test_mpl_levels(op, at_16, at_17):
    for name, magnitude, expected in (
        ("mpl", 16, at_16),
        ("mpl_imagenet", 17, at_17),
    ):
        policy = policies.STRONG_POLICIES[name]
        assert policy.magnitude == (magnitude, magnitude)
        level = policy.level(op, magnitude).numpy()
        assert level.dtype == (np.int32 if type(expected) is int else "float32")
        if op == "rotate":
            level = np.round(np.rad2deg(level), 4)
        assert level == np.asarray(expected, level.dtype)


@pytest.mark.parametrize("name", ["uda", "fixmatch"])
def test_uda_and_fixmatch_levels(name):
    policy = policies.STRONG_POLICIES[name]
    assert policy.magnitude == (1, 9)
    magnitude = np.arange(1, 10)

    def level(op):
        return policy.level(op, magnitude).numpy()

    assert level("posterize").tolist() == [4, 4, 3, 3, 2, 2, 2, 1, 1]
    solarize = [231, 205, 180, 154, 128, 103, 77, 52, 26]
    assert level("solarize").tolist() == solarize
    np.testing.assert_array_equal(level("translate_x"), magnitude)
    np.testing.assert_array_equal(level("cutout"), magnitude)
    for op, slope, start in (
        ("rotate", np.deg2rad(3.0), 0.0),
        ("shear_y", 0.03, 0.0),
        ("color", 0.18, 0.1),
    ):
        expected = slope * magnitude + start
        np.testing.assert_allclose(level(op), expected, rtol=1.2e-7)


def test_operations_of_the_policies():
    mpl = policies.STRONG_POLICIES["mpl"]
    assert len(mpl.ops) == 15
    assert mpl.ops == policies.STRONG_POLICIES["uda"].ops
    fixmatch = policies.STRONG_POLICIES["fixmatch"].ops
    assert set(fixmatch) == set(mpl.ops) - {"invert", "cutout"} | {"identity"}
    assert len(fixmatch) == 14


# RandAugment.


@pytest.mark.parametrize(
    "name",
    # AutoAugment draws what a search has found.
    [n for n, p in RAND_AUGMENT.items() if type(p) is RandAugmentPolicy],
)
def test_rand_augment_draws_are_uniform_and_independent(name):
    policy = RAND_AUGMENT[name]
    num_images = 20_000
    draw = policy.draw(SEED, num_images, (32, 16, 3))
    draw = {key: values.numpy() for key, values in draw.items()}
    num_ops = len(policy.ops)
    pairs = draw["op"][:, 0] * num_ops + draw["op"][:, 1]
    frequencies = np.bincount(pairs, minlength=num_ops**2) / num_images
    np.testing.assert_allclose(frequencies, 1 / num_ops**2, atol=2.5e-3)
    low, high = policy.magnitude
    magnitudes = np.unique(draw["magnitude"])
    np.testing.assert_array_equal(magnitudes, np.arange(low, high + 1))
    assert set(np.unique(draw["sign"])) == {-1.0, 1.0}
    assert abs(draw["sign"].mean()) < 0.02
    assert set(np.unique(draw["center_y"])) == set(range(32))
    assert set(np.unique(draw["center_x"])) == set(range(16))
    for key, values in draw.items():
        columns = values.astype(float)
        if columns.std() and key != "applied":
            assert abs(np.corrcoef(columns[:, 0], columns[:, 1])[0, 1]) < 0.03


def test_layers_share_the_apply_probability_of_their_image():
    def both_applied(policy):
        draw = policy.draw(SEED, 50_000, (32, 32, 3))
        applied = draw["applied"].numpy()
        np.testing.assert_allclose(applied.mean(axis=0), 0.5, atol=0.01)
        return applied.all(axis=1).mean()

    # E[p^2] is 0.28 for p ~ U(0.2, 0.8), but 0.25 for p = 0.5.
    shared = both_applied(policies.STRONG_POLICIES["mpl"])
    fixed = both_applied(policies.STRONG_POLICIES["fixmatch"])
    assert abs(shared - 0.28) < 0.01 and abs(fixed - 0.25) < 0.01


@pytest.mark.parametrize("magnitude", [5, 12.5])
def test_a_fixed_magnitude_replaces_the_range(magnitude):
    policy = policies.STRONG_POLICIES["uda"]
    own = policy.draw(SEED, 9, (32, 32, 3))
    fixed = policy.with_magnitude(magnitude).draw(SEED, 9, (32, 32, 3))
    np.testing.assert_array_equal(
        fixed["magnitude"], np.full([9, 2], magnitude)
    )
    assert fixed["magnitude"].dtype == tf.float32
    for name in set(own) - {"magnitude"}:
        np.testing.assert_array_equal(fixed[name], own[name])


def expected_operation(op, images, level, sign, center_y, center_x, fill):
    """One operation on all images, from the kernels of `image_ops`."""
    vector = tf.fill([len(images)], level)
    signed = sign * tf.cast(vector, tf.float32)
    zero = tf.zeros_like(signed)
    matrices = {
        "rotate": lambda: image_ops.rotation_matrix(signed, 24, 20),
        "shear_x": lambda: image_ops.shear_x_matrix(signed),
        "shear_y": lambda: image_ops.shear_y_matrix(signed),
        "translate_x": lambda: image_ops.translation_matrix(signed, zero),
        "translate_y": lambda: image_ops.translation_matrix(zero, signed),
    }
    counts = image_ops.histograms(images)
    mean = image_ops.gray_mean(images)
    tables = {
        "autocontrast": lambda: image_ops.autocontrast_table(counts),
        "equalize": lambda: image_ops.equalize_table(counts),
        "invert": lambda: image_ops.invert_table(len(images)),
        "posterize": lambda: image_ops.posterize_table(vector),
        "solarize": lambda: image_ops.solarize_table(vector),
        "contrast": lambda: image_ops.contrast_table(vector, mean),
        "brightness": lambda: image_ops.brightness_table(vector),
    }
    kernels = {
        "identity": lambda: images,
        "color": lambda: image_ops.color(images, vector),
        "sharpness": lambda: image_ops.sharpness(images, vector),
        "cutout": lambda: image_ops.cutout(
            images, center_y, center_x, vector, fill
        ),
    }
    if op in matrices:
        return image_ops.projective_transform(images, matrices[op](), fill)
    if op in tables:
        return image_ops.apply_lookup_table(images, tables[op]())
    return kernels[op]()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("op", rand_augment.OPERATIONS)
def test_an_operation_is_its_kernel_at_its_level(op, sign):
    policy = RandAugmentPolicy(
        ops=("identity", op) if op != "identity" else ("identity",),
        num_ops=1,
        final_cutout=0.0,
        fill_value=99,
        image_size=20,
    )
    images = make_images(6, (24, 20, 3)) // 2 + 20
    draw = draw_of(
        6,
        policy,
        op=len(policy.ops) - 1,
        applied=True,
        magnitude=7.0,
        sign=sign,
    )
    expected = expected_operation(
        op,
        images,
        policy.level(op, 7),
        sign,
        draw["center_y"][:, 0],
        draw["center_x"][:, 0],
        99,
    )
    result = policy.apply(images, draw)
    np.testing.assert_array_equal(result, expected)
    assert op == "identity" or np.any(result != images)


def test_layers_are_carried_out_in_order():
    policy = RandAugmentPolicy(ops=("brightness", "invert"), final_cutout=0.0)
    images = np.full([2, 4, 4, 3], 100, np.uint8)
    draw = draw_of(2, policy, applied=True, magnitude=5.0, sign=1.0)
    draw["magnitude"] = tf.constant([[0.0, 0.0]] * 2)
    draw["op"] = tf.constant([[0, 1], [1, 0]])
    result = policy.apply(images, draw)
    # Brightness 0.1: 100 -> 10 -> 245, and 100 -> 155 -> 15.
    np.testing.assert_array_equal(result[:, 0, 0, 0], [245, 15])


def test_what_is_not_applied_leaves_only_the_final_cutout():
    policy = policies.STRONG_POLICIES["mpl"]
    images = np.full([5, 32, 32, 3], 200, np.uint8)
    draw = policy.draw(SEED, 5, (32, 32, 3))
    draw["applied"] = tf.zeros_like(draw["applied"])
    result = policy.apply(images, draw).numpy()
    y, x = draw["center_y"][:, -1].numpy(), draw["center_x"][:, -1].numpy()
    for one, center_y, center_x in zip(result, y, x, strict=True):
        expected = np.full([32, 32, 3], 200)
        top, left = max(center_y - 8, 0), max(center_x - 8, 0)
        expected[top : center_y + 8, left : center_x + 8] = 128
        np.testing.assert_array_equal(one, expected)


def test_published_strength_neither_wraps_around_nor_overflows():
    policy = dataclasses.replace(
        policies.STRONG_POLICIES["mpl"], num_ops=1, final_cutout=0.0
    )
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = np.repeat(ramp, 3, axis=3)

    def result(op):
        index = policy.ops.index(op)
        draw = draw_of(1, policy, op=index, applied=True, magnitude=16.0)
        return policy.apply(images, draw).numpy()

    # A threshold of 409 is above every pixel value.
    np.testing.assert_array_equal(result("solarize"), images)
    bright = np.floor(np.minimum(np.float32(2.98) * images, 255))
    np.testing.assert_array_equal(result("brightness"), bright)
    # About the gray mean of this image, which is 127.5, rounded up.
    contrast = 128 + np.float32(2.98) * (images - np.float32(128))
    expected = np.floor(np.clip(contrast, 0, 255))
    np.testing.assert_array_equal(result("contrast"), expected)


def test_only_the_fill_value_comes_in_from_outside():
    policy = policies.STRONG_POLICIES["mpl"]
    images = np.full([40, 32, 32, 3], 50, np.uint8)
    index = policy.ops.index("translate_x")
    draw = policy.draw(SEED, 40, (32, 32, 3))
    draw["op"] = tf.fill([40, 2], index)
    result = policy.apply(images, draw)
    assert set(np.unique(result)) == {50, 128}


# Errors say what was expected and what came.

MPL = policies.STRONG_POLICIES["mpl"]
IMAGES = np.zeros([2, 8, 8, 3], np.uint8)
ERRORS = {
    "an unknown operation": (
        lambda: RandAugmentPolicy(ops=("rotate", "blur")),
        r"ops: expected different names out of .*'blur'",
    ),
    "an operation twice": (
        lambda: RandAugmentPolicy(ops=("rotate", "rotate")),
        r"ops: expected different names",
    ),
    "no operation": (
        lambda: RandAugmentPolicy(ops=()),
        r"ops: expected different names",
    ),
    "an unknown rule": (
        lambda: RandAugmentPolicy(ops=("rotate",), tones="lost"),
        r"tones: expected one of kept, removed, got 'lost'",
    ),
    "the level of an unknown operation": (
        lambda: MPL.level("blur", 3),
        r"op: expected one of identity, .*got 'blur'",
    ),
    "float images": (
        lambda: MPL.apply(IMAGES / 255.0, MPL.draw(SEED, 2, (8, 8, 3))),
        r"images: expected uint8 \[N, H, W, C\]",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ("mpl", "mpl_imagenet", "uda"))
def test_lengths_are_shares_of_the_shorter_side(name):
    policy = policies.STRONG_POLICIES[name]
    published = policy.scaled_to(policy.image_size)
    assert published == policy
    half = policy.scaled_to(policy.image_size // 2)
    for op in ("translate_x", "translate_y"):
        whole = policy.level(op, 16.0).numpy()
        assert half.level(op, 16.0).numpy() == pytest.approx(whole / 2)
    whole = policy.level("cutout", 16.0).numpy()
    assert half.level("cutout", 16.0).numpy() == whole // 2
    assert half.level("rotate", 16.0) == policy.level("rotate", 16.0)


def test_an_image_of_half_the_size_moves_half_as_far():
    policy = RandAugmentPolicy(
        ops=("translate_x",),
        num_ops=1,
        magnitude=(8, 8),
        apply_probability=(1.0, 1.0),
        final_cutout=0.0,
    )
    for size, pixels in ((32, 8), (16, 4)):
        images = np.full((4, size, size, 1), 255, np.uint8)
        views = policy.apply(images, policy.draw([1, 2], 4, images.shape[1:]))
        uncovered = (np.asarray(views) == policy.fill_value).sum((1, 2, 3))
        assert (uncovered == size * pixels).all()
