"""Policies: tables of magnitudes, draws, and that apply does what was drawn."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import image_ops, policies

RAND_AUGMENT = {
    name: policy
    for name, policy in policies.STRONG_POLICIES.items()
    if isinstance(policy, policies.RandAugmentPolicy)
}
# Name -> draw, apply, policy: every policy goes through the same tests.
VIEWS = {
    **{
        f"weak {name}": (policies.draw_weak, policies.apply_weak, policy)
        for name, policy in policies.WEAK_POLICIES.items()
    },
    **{
        f"strong {name}": (policies.draw_strong, policies.apply_strong, policy)
        for name, policy in policies.STRONG_POLICIES.items()
    },
}
# One policy for each way through the code; tracing a graph takes a second.
TRACED = ("weak mpl", "weak affine", "strong mpl", "strong affine_digits")
SHAPES = {"rgb": (24, 20, 3), "digits": (8, 8, 1)}
SEED = tf.constant([3, 5], tf.int32)
ANOTHER_SEED = tf.constant([3, 6], tf.int32)


def make_images(num_images, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


def rows_of(draw, rows):
    return {name: tf.gather(values, rows) for name, values in draw.items()}


def draw_of(num_images, policy, **values):
    """A RandAugment draw in which every image gets the given values."""
    draw = policies.draw_rand_augment(SEED, num_images, (24, 20, 3), policy)
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
        level = policies.operation_level(op, magnitude, policy).numpy()
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
        return policies.operation_level(op, magnitude, policy).numpy()

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


# What every policy promises.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VIEWS)
def test_a_slice_of_the_draw_belongs_to_a_slice_of_the_images(name, shape):
    draw, apply, policy = VIEWS[name]
    images = make_images(30, SHAPES[shape])
    drawn = draw(SEED, 30, SHAPES[shape], policy)
    assert {len(values) for values in drawn.values()} == {30}
    whole = apply(images, drawn, policy)
    assert whole.shape == images.shape and whole.dtype == tf.uint8
    order = np.random.default_rng(0).permutation(30)
    for rows in (order, list(range(4, 12)), []):
        part = apply(images[rows], rows_of(drawn, np.int32(rows)), policy)
        np.testing.assert_array_equal(part, whole.numpy()[rows])


@pytest.mark.parametrize("name", (*TRACED, "strong fixmatch"))
def test_eager_equals_tf_data(name):
    draw, apply, policy = VIEWS[name]
    shape = SHAPES["rgb"]
    images = make_images(32, shape)

    def view(step, images, num_images=32):
        seed = tf.stack([3, tf.cast(step, tf.int32)])
        return apply(images, draw(seed, num_images, shape, policy), policy)

    eager = [view(step, images).numpy() for step in range(2)]
    repeated = tf.data.Dataset.from_tensors(images).repeat(2)
    mapped = repeated.enumerate().map(view)
    assert mapped.element_spec.shape == images.shape
    np.testing.assert_array_equal(list(mapped.as_numpy_iterator()), eager)


@pytest.mark.parametrize("name", TRACED)
def test_the_size_of_the_batch_may_be_unknown(name):
    draw, apply, policy = VIEWS[name]
    shape = SHAPES["digits"]
    images = make_images(9, shape)

    def view(images):
        drawn = draw(SEED, tf.shape(images)[0], shape, policy)
        return apply(images, drawn, policy)

    batches = tf.data.Dataset.from_tensor_slices(images).batch(5).map(view)
    assert batches.element_spec.shape == (None, *shape)
    expected = [view(images[:5]).numpy(), view(images[5:]).numpy()]
    for batch, one in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch, one)


@pytest.mark.parametrize("name", VIEWS)
def test_the_seed_decides_the_draw(name):
    draw, _, policy = VIEWS[name]
    first, again = (draw(SEED, 50, (32, 32, 3), policy) for _ in range(2))
    other = draw(ANOTHER_SEED, 50, (32, 32, 3), policy)
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])
    if name != "weak none":
        assert any(
            np.any(values.numpy() != other[key].numpy())
            for key, values in first.items()
        )


@pytest.mark.parametrize("name", VIEWS)
def test_apply_draws_nothing(name):
    draw, apply, policy = VIEWS[name]
    drawn = draw(SEED, 8, (32, 32, 3), policy)
    images = make_images(8, (32, 32, 3))
    first, again = (apply(images, drawn, policy) for _ in range(2))
    np.testing.assert_array_equal(first, again)


# RandAugment.


@pytest.mark.parametrize("name", RAND_AUGMENT)
def test_rand_augment_draws_are_uniform_and_independent(name):
    policy = RAND_AUGMENT[name]
    num_images = 20_000
    draw = policies.draw_rand_augment(SEED, num_images, (32, 16, 3), policy)
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
        draw = policies.draw_rand_augment(SEED, 50_000, (32, 32, 3), policy)
        applied = draw["applied"].numpy()
        np.testing.assert_allclose(applied.mean(axis=0), 0.5, atol=0.01)
        return applied.all(axis=1).mean()

    # E[p^2] is 0.28 for p ~ U(0.2, 0.8), but 0.25 for p = 0.5.
    shared = both_applied(policies.STRONG_POLICIES["mpl"])
    fixed = both_applied(policies.STRONG_POLICIES["fixmatch"])
    assert abs(shared - 0.28) < 0.01 and abs(fixed - 0.25) < 0.01


def test_a_given_magnitude_replaces_the_policys():
    policy = policies.STRONG_POLICIES["uda"]
    own = policies.draw_strong(SEED, 9, (32, 32, 3), policy)
    given = policies.draw_strong(SEED, 9, (32, 32, 3), policy, magnitude=5)
    np.testing.assert_array_equal(given["magnitude"], np.full([9, 2], 5.0))
    np.testing.assert_array_equal(given["op"], own["op"])


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


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("op", policies.OPERATIONS)
def test_an_operation_is_its_kernel_at_its_level(op, sign):
    policy = policies.RandAugmentPolicy(
        ops=("identity", op) if op != "identity" else ("identity",),
        num_ops=1,
        final_cutout=0.0,
        fill_value=99,
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
        policies.operation_level(op, 7, policy),
        sign,
        draw["center_y"][:, 0],
        draw["center_x"][:, 0],
        99,
    )
    result = policies.apply_rand_augment(images, draw, policy)
    np.testing.assert_array_equal(result, expected)
    assert op == "identity" or np.any(result != images)


def test_layers_are_carried_out_in_order():
    policy = policies.RandAugmentPolicy(
        ops=("brightness", "invert"), final_cutout=0.0
    )
    images = np.full([2, 4, 4, 3], 100, np.uint8)
    draw = draw_of(2, policy, applied=True, magnitude=5.0, sign=1.0)
    draw["magnitude"] = tf.constant([[0.0, 0.0]] * 2)
    draw["op"] = tf.constant([[0, 1], [1, 0]])
    result = policies.apply_rand_augment(images, draw, policy)
    # Brightness 0.1: 100 -> 10 -> 245, and 100 -> 155 -> 15.
    np.testing.assert_array_equal(result[:, 0, 0, 0], [245, 15])


def test_what_is_not_applied_leaves_only_the_final_cutout():
    policy = policies.STRONG_POLICIES["mpl"]
    images = np.full([5, 32, 32, 3], 200, np.uint8)
    draw = policies.draw_rand_augment(SEED, 5, (32, 32, 3), policy)
    draw["applied"] = tf.zeros_like(draw["applied"])
    result = policies.apply_rand_augment(images, draw, policy).numpy()
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
        return policies.apply_rand_augment(images, draw, policy).numpy()

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
    draw = policies.draw_rand_augment(SEED, 40, (32, 32, 3), policy)
    draw["op"] = tf.fill([40, 2], index)
    result = policies.apply_rand_augment(images, draw, policy)
    assert set(np.unique(result)) == {50, 128}


# Crops.


def test_crop_does_what_was_drawn():
    policy = policies.WEAK_POLICIES["flip_crop"]
    images = make_images(6, (32, 24, 3))
    draw = {
        "flip": tf.constant([False, True] * 3),
        "offset_y": tf.constant([3, 3, 0, 6, 1, 3]),
        "offset_x": tf.constant([3, 3, 6, 0, 3, 2]),
    }
    result = policies.apply_weak(images, draw, policy).numpy()
    np.testing.assert_array_equal(result[0], images[0])
    np.testing.assert_array_equal(result[1], images[1, :, ::-1])
    for row in range(2, 6):
        flipped = images[row, :, ::-1] if row % 2 else images[row]
        padded = np.pad(flipped, [[3, 3], [3, 3], [0, 0]], "reflect")
        y, x = int(draw["offset_y"][row]), int(draw["offset_x"][row])
        expected = padded[y : y + 32, x : x + 24]
        np.testing.assert_array_equal(result[row], expected)


def test_mpl_crop_pads_with_gray():
    policy = policies.WEAK_POLICIES["mpl"]
    images = np.full([1, 32, 32, 3], 9, np.uint8)
    corner = tf.constant([0])
    draw = {"flip": corner == 1, "offset_y": corner, "offset_x": corner}
    result = policies.apply_weak(images, draw, policy).numpy()
    assert np.all(result[0, :4] == 128) and np.all(result[0, :, :4] == 128)
    assert np.all(result[0, 4:, 4:] == 9)


@pytest.mark.parametrize("side, padding", [(8, 1), (28, 4), (32, 4), (96, 12)])
def test_crops_pad_an_eighth_of_the_side(side, padding):
    policy = policies.WEAK_POLICIES["crop"]
    draw = policies.draw_weak(SEED, 2000, (side, side, 3), policy)
    for name in ("offset_y", "offset_x"):
        values = set(draw[name].numpy().tolist())
        assert values == set(range(2 * padding + 1))
    assert not np.any(draw["flip"])


def test_flips_are_as_frequent_as_not():
    policy = policies.WEAK_POLICIES["flip_crop"]
    draw = policies.draw_weak(SEED, 10_000, (32, 32, 3), policy)
    assert abs(draw["flip"].numpy().mean() - 0.5) < 0.02


def test_none_changes_nothing():
    policy = policies.WEAK_POLICIES["none"]
    images = make_images(5, (8, 8, 1))
    draw = policies.draw_weak(SEED, 5, (8, 8, 1), policy)
    result = policies.apply_weak(images, draw, policy)
    np.testing.assert_array_equal(result, images)


# Affine transforms.

STILL = {
    "angle": 0.0,
    "scale": 1.0,
    "shear_x": 0.0,
    "shear_y": 0.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "contrast": 1.0,
    "brightness": 1.0,
    "center_y": 100,
    "center_x": 100,
}


def still(num_images, **values):
    values = {**STILL, **values}
    return {name: tf.fill([num_images], v) for name, v in values.items()}


@pytest.mark.parametrize("side", [8, 28])
def test_affine_digits_that_draw_nothing_change_nothing(side):
    policy = policies.STRONG_POLICIES["affine_digits"]
    images = make_images(3, (side, side, 1))
    result = policies.apply_strong(images, still(3), policy)
    np.testing.assert_array_equal(result, images)


def test_affine_does_what_was_drawn():
    policy = policies.STRONG_POLICIES["affine_digits"]
    images = np.zeros([1, 3, 3, 1], np.uint8)
    images[0, 1, 1] = 100

    def result(**values):
        drawn = policies.apply_affine(images, still(1, **values), policy)
        return drawn[0, :, :, 0].numpy().tolist()

    empty = [0, 0, 0]
    assert result(shift_x=1.0, shift_y=-1.0) == [[0, 0, 100], empty, empty]
    assert result(angle=0.4, shear_x=0.2, scale=1.2)[1][1] in (99, 100)
    assert result(brightness=1.4) == [empty, [0, 140, 0], empty]
    # The gray mean is 11.1; 11 + 1.4 * (100 - 11) = 135.6.
    assert result(contrast=1.4) == [empty, [0, 135, 0], empty]
    images[:] = 100
    assert result(shift_x=1.0) == [[0, 100, 100]] * 3
    covered = policies.apply_affine(
        make_images(1, (8, 8, 1)) // 2 + 1,
        still(1, center_y=2, center_x=5),
        policy,
    )[0, :, :, 0].numpy()
    assert np.argwhere(covered == 0).tolist() == [
        [1, 4],
        [1, 5],
        [2, 4],
        [2, 5],
    ]


def test_affine_draws_stay_in_their_ranges():
    policy = policies.STRONG_POLICIES["affine_digits"]
    draw = policies.draw_strong(SEED, 20_000, (24, 12, 1), policy)
    for name, low, high in (
        ("angle", -0.5, 0.5),
        ("scale", 0.75, 1.25),
        ("shear_x", -0.3, 0.3),
        ("shear_y", -0.3, 0.3),
        ("shift_x", -2.0, 2.0),
        ("shift_y", -4.0, 4.0),
        ("contrast", 0.6, 1.4),
        ("brightness", 0.6, 1.4),
        ("center_y", 0, 23),
        ("center_x", 0, 11),
    ):
        values = draw[name].numpy()
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02 * (high - low)


def test_weak_affine_moves_one_pixel_on_eight():
    policy = policies.WEAK_POLICIES["affine"]
    draw = policies.draw_weak(SEED, 2000, (8, 8, 1), policy)
    assert 0.99 < np.abs(draw["shift_x"]).max() <= 1.0
    assert 0.245 < np.abs(draw["angle"]).max() <= 0.25
    assert not np.any(draw["shear_x"])


# Errors say what was expected and what came.

MPL = policies.STRONG_POLICIES["mpl"]
CROP = policies.WEAK_POLICIES["crop"]
DIGITS = policies.STRONG_POLICIES["affine_digits"]
IMAGES = np.zeros([2, 8, 8, 3], np.uint8)
ERRORS = {
    "an unknown operation": (
        lambda: policies.RandAugmentPolicy(ops=("rotate", "blur")),
        r"ops: expected different names out of .*'blur'",
    ),
    "an operation twice": (
        lambda: policies.RandAugmentPolicy(ops=("rotate", "rotate")),
        r"ops: expected different names",
    ),
    "no operation": (
        lambda: policies.RandAugmentPolicy(ops=()),
        r"ops: expected different names",
    ),
    "an unknown rule": (
        lambda: policies.RandAugmentPolicy(ops=("rotate",), tones="lost"),
        r"tones: expected one of kept, removed, got 'lost'",
    ),
    "the level of an unknown operation": (
        lambda: policies.operation_level("blur", 3, MPL),
        r"op: expected one of identity, .*got 'blur'",
    ),
    "one integer as seed": (
        lambda: policies.draw_weak(7, 2, (8, 8, 3), CROP),
        r"seed: expected integers \[2\], got int32 \(\)",
    ),
    "a strong policy as weak": (
        lambda: policies.draw_weak(SEED, 2, (8, 8, 3), MPL),
        r"policy: expected WindowPolicy or CropPolicy or AffinePolicy or "
        r"JitterPolicy, got RandAugmentPolicy",
    ),
    "a crop as strong policy": (
        lambda: policies.apply_strong(IMAGES, {}, CROP),
        r"expected RandAugmentPolicy or AffinePolicy or JitterPolicy, got "
        r"CropPolicy",
    ),
    "an affine policy as RandAugment": (
        lambda: policies.draw_rand_augment(SEED, 2, (8, 8, 3), DIGITS),
        r"policy: expected RandAugmentPolicy, got AffinePolicy",
    ),
    "a magnitude for an affine policy": (
        lambda: policies.draw_strong(SEED, 2, (8, 8, 3), DIGITS, magnitude=5),
        r"magnitude: AffinePolicy has none, got 5",
    ),
    "float images": (
        lambda: policies.apply_rand_augment(
            IMAGES / 255.0,
            policies.draw_rand_augment(SEED, 2, (8, 8, 3), MPL),
            MPL,
        ),
        r"images: expected uint8 \[N, H, W, C\]",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


# Windows of larger images.


def test_windows_of_the_wanted_size_are_cut_not_resized():
    policy = policies.WEAK_POLICIES["random_crop"]
    images = make_images(200, (12, 12, 3))
    draw = policies.draw_weak(SEED, 200, (12, 12, 3), policy, (8, 8))
    result = policies.apply_weak(images, draw, policy, (8, 8)).numpy()
    corners = set()
    for row in range(200):
        top, left = int(draw["top"][row]), int(draw["left"][row])
        corners.add((top, left))
        window = images[row, top : top + 8, left : left + 8]
        if draw["flip"][row]:
            window = window[:, ::-1]
        np.testing.assert_array_equal(result[row], window)
    assert corners == {(y, x) for y in range(5) for x in range(5)}


def test_resized_windows_have_the_drawn_areas_and_ratios():
    policy = policies.WEAK_POLICIES["resized_crop"]
    draw = policies.draw_weak(SEED, 20_000, (256, 256, 3), policy, (224, 224))
    draw = {name: values.numpy() for name, values in draw.items()}
    height, width = draw["height"], draw["width"]
    whole = (height == 256) & (width == 256)
    assert whole.mean() < 0.01
    area, ratio = height * width / 256**2, width / height
    assert 0.075 < area.min() < 0.1 and area.max() > 0.97
    within = (ratio > 0.74) & (ratio < 1.35)
    assert within[~whole].all()
    assert abs(np.log(ratio).mean()) < 0.01
    for place, size in (("top", height), ("left", width)):
        assert draw[place].min() >= 0
        assert (draw[place] + size <= 256).all()
        np.testing.assert_array_equal(draw[place], np.floor(draw[place]))


def test_other_weak_policies_see_the_middle_of_a_larger_image():
    images = make_images(6, (12, 12, 3))
    for name, policy in policies.WEAK_POLICIES.items():
        if isinstance(policy, policies.WindowPolicy):
            continue
        draw = policies.draw_weak(SEED, 6, (12, 12, 3), policy, (8, 8))
        result = policies.apply_weak(images, draw, policy, (8, 8))
        middle = images[:, 2:10, 2:10]
        same = policies.draw_weak(SEED, 6, (8, 8, 3), policy)
        expected = policies.apply_weak(middle, same, policy)
        np.testing.assert_array_equal(result, expected, err_msg=name)


def test_jitter_adds_rounded_noise_and_clips():
    policy = policies.STRONG_POLICIES["jitter_points"]
    images = np.array([[[[0, 100]]], [[[254, 7]]]], np.uint8)
    noise = np.array([[[[-3.0, 1.6]]], [[[9.0, -0.4]]]], np.float32)
    moved = policies.apply_strong(images, {"noise": noise}, policy)
    assert moved.numpy().ravel().tolist() == [0, 102, 255, 7]
    draw = policies.draw_strong(SEED, 4000, (1, 1, 2), policy)["noise"]
    assert draw.shape == (4000, 1, 1, 2)
    assert np.std(draw) == pytest.approx(policy.sigma, rel=0.05)
