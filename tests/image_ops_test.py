"""Image operations against golden files, hand-made images and each other.

`golden/` is written by tools/make_golden_images.py. All operations equal their
oracle to the pixel, with one exception: `sharpness` follows tensorflow-addons
and differs from Pillow by up to 1.5 + |1 - factor| gray levels.
"""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_metassl.data import image_ops

GOLDEN = pathlib.Path(__file__).parent / "golden/"
TFA = dict(np.load(GOLDEN / "tfa_image_ops.npz"))
PILLOW = dict(np.load(GOLDEN / "pillow_image_ops.npz"))
KINDS = ("rgb", "gray")


def run(function, *arguments):
    """Calls eagerly and, with an unknown N, in tf.data; both must agree."""
    eager = function(*(tf.constant(value) for value in arguments)).numpy()
    slices = tf.data.Dataset.from_tensor_slices(arguments)
    plain = tf.autograph.experimental.do_not_convert(function)
    mapped = slices.batch(len(arguments[0])).map(plain)
    np.testing.assert_array_equal(mapped.get_single_element().numpy(), eager)
    assert mapped.element_spec.shape[0] is None
    assert mapped.element_spec.shape[1:] == eager.shape[1:]
    assert mapped.element_spec.dtype == tf.uint8
    return eager


def moved(matrices, images, parameter, fill=128, interpolation="nearest"):
    def function(images, parameter):
        return image_ops.projective_transform(
            images, matrices(parameter), fill, interpolation
        )

    return run(function, images, parameter)


def look_up(table, images, *parameters):
    def function(images, *parameters):
        return image_ops.apply_lookup_table(images, table(images, *parameters))

    return run(function, images, *parameters)


def equalize(images):
    return image_ops.equalize_table(image_ops.histograms(images))


def autocontrast(images):
    return image_ops.autocontrast_table(image_ops.histograms(images))


def rotate(images, angle, interpolation="nearest"):
    height, width = images.shape[1:3]

    def matrices(angle):
        return image_ops.rotation_matrix(angle, height, width)

    return moved(matrices, images, angle, interpolation=interpolation)


def translate(images, shift):
    def matrices(shift):
        return image_ops.translation_matrix(shift[:, 0], shift[:, 1])

    return moved(matrices, images, shift)


def image(rows):
    """One gray image, `[1, H, W, 1]`."""
    return np.array(rows, np.uint8)[None, :, :, None]


def rows(images):
    return images[0, :, :, 0].tolist()


# Golden files.


def test_golden_files_say_what_wrote_them():
    tfa = json.loads(str(TFA["versions"]))
    assert tfa["tensorflow-addons"] == "0.23.0"
    assert tfa["tensorflow-cpu"] == "2.15.1"
    assert "pillow" in json.loads(str(PILLOW["versions"]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", image_ops.INTERPOLATIONS)
def test_rotate_equals_tfa(kind, interpolation):
    result = rotate(TFA[kind], TFA["rotate/angle"], interpolation)
    expected = TFA[f"rotate_{interpolation}/{kind}"]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_translate_equals_tfa(kind):
    result = translate(TFA[kind], TFA["translate/shift"])
    np.testing.assert_array_equal(result, TFA[f"translate/{kind}"])


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shear_equals_tfa(name):
    matrices = getattr(image_ops, f"{name}_matrix")
    result = moved(matrices, TFA["rgb"], TFA["shear/level"])
    np.testing.assert_array_equal(result, TFA[f"{name}/rgb"])


@pytest.mark.parametrize("kind", KINDS)
def test_equalize_equals_tfa_and_pillow(kind):
    result = look_up(equalize, TFA[kind])
    np.testing.assert_array_equal(result, TFA[f"equalize/{kind}"])
    np.testing.assert_array_equal(result, PILLOW[f"equalize/{kind}"])


@pytest.mark.parametrize("kind", KINDS)
def test_sharpness_equals_tfa(kind):
    factor = TFA["sharpness/factor"]
    result = run(image_ops.sharpness, TFA[kind], factor)
    np.testing.assert_array_equal(result, TFA[f"sharpness/{kind}"])


@pytest.mark.parametrize("kind", KINDS)
def test_cutout_equals_tfa(kind):
    def function(images, center, half_width):
        center_y, center_x = tf.unstack(center, axis=1)
        return image_ops.cutout(images, center_y, center_x, half_width, 128)

    centers = TFA[f"cutout/center_{kind}"]
    result = run(function, TFA[kind], centers, TFA["cutout/half_width"])
    np.testing.assert_array_equal(result, TFA[f"cutout/{kind}"])


def test_blend_equals_tfa():
    factor = TFA["blend/factor"]
    result = run(image_ops.blend, TFA["rgb"], TFA["rgb_2"], factor)
    np.testing.assert_array_equal(result, TFA["blend/rgb"])


@pytest.mark.parametrize("kind", KINDS)
def test_tones_without_parameter_equal_pillow(kind):
    images = PILLOW[kind]
    result = look_up(autocontrast, images)
    np.testing.assert_array_equal(result, PILLOW[f"autocontrast/{kind}"])
    result = look_up(lambda x: image_ops.invert_table(tf.shape(x)[0]), images)
    np.testing.assert_array_equal(result, PILLOW[f"invert/{kind}"])


TONES = {
    "posterize": lambda images, bits: image_ops.posterize_table(bits),
    "solarize": lambda images, level: image_ops.solarize_table(level),
    "brightness": lambda images, factor: image_ops.brightness_table(factor),
    "contrast": lambda images, factor: image_ops.contrast_table(
        factor, image_ops.gray_mean(images)
    ),
}


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TONES)
def test_tones_with_parameter_equal_pillow(name, kind, turn):
    parameter = PILLOW[f"{name}_{turn}/parameter"]
    result = look_up(TONES[name], PILLOW[kind], parameter)
    np.testing.assert_array_equal(result, PILLOW[f"{name}_{turn}/{kind}"])


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_color_equals_pillow(kind, turn):
    factor = PILLOW[f"color_{turn}/parameter"]
    result = run(image_ops.color, PILLOW[kind], factor)
    np.testing.assert_array_equal(result, PILLOW[f"color_{turn}/{kind}"])


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_sharpness_is_near_pillow(kind, turn):
    factor = PILLOW[f"sharpness_{turn}/parameter"]
    result = run(image_ops.sharpness, PILLOW[kind], factor).astype(int)
    expected = PILLOW[f"sharpness_{turn}/{kind}"]
    difference = np.abs(result - expected).max(axis=(1, 2, 3))
    assert np.all(difference <= 1.5 + np.abs(1.0 - factor))


def test_every_autocontrast_table_equals_pillow():
    low, high = np.triu_indices(256)
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = np.arange(256) * scale[:, None] - (low * scale)[:, None]
    expected = np.clip(np.trunc(stretched), 0, 255)
    expected[low == high] = np.arange(256)
    counts = np.zeros([len(low), 1, 256], np.int32)
    counts[np.arange(len(low)), 0, low] = 1
    counts[np.arange(len(low)), 0, high] = 1
    tables = image_ops.autocontrast_table(counts)
    np.testing.assert_array_equal(tables[:, 0], expected)


# Hand-made images.


def test_quarter_turn_is_counter_clockwise():
    result = rotate(
        image([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.float32([np.pi / 2])
    )
    assert rows(result) == [[3, 6, 9], [2, 5, 8], [1, 4, 7]]


def test_translation_is_to_the_right_and_down():
    result = translate(
        image([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.float32([[1, 2]])
    )
    assert rows(result) == [[128, 128, 128], [128, 128, 128], [128, 1, 2]]


def test_shears_by_hand():
    source = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    level = np.float32([1.0])
    result = moved(image_ops.shear_x_matrix, source, level)
    assert rows(result) == [[1, 2, 3], [5, 6, 128], [9, 128, 128]]
    result = moved(image_ops.shear_y_matrix, source, level)
    assert rows(result) == [[1, 5, 9], [4, 8, 128], [7, 128, 128]]


def test_centered_shear_keeps_the_middle():
    source = image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])

    def matrices(level):
        shear = image_ops.shear_x_matrix(level)
        return image_ops.centered(shear, 3, 3)

    result = moved(matrices, source, np.float32([1.0]))
    assert rows(result) == [[128, 1, 2], [4, 5, 6], [8, 9, 128]]


def test_scale_two_shows_the_middle_half():
    source = image(np.arange(16).reshape(4, 4))

    def matrices(factor):
        return image_ops.scale_matrix(factor, 4, 4)

    result = moved(matrices, source, np.float32([2.0]))
    assert rows(result) == [
        [5, 5, 6, 6],
        [5, 5, 6, 6],
        [9, 9, 10, 10],
        [9, 9, 10, 10],
    ]


def test_bilinear_takes_the_mean_of_two_pixels():
    source = image([[10, 20, 40]])

    def matrices(dx):
        return image_ops.translation_matrix(dx, tf.zeros_like(dx))

    result = moved(matrices, source, np.float32([-0.5]), 0, "bilinear")
    assert rows(result) == [[15, 30, 20]]


def test_compose_applies_the_first_transform_first():
    source = image(np.arange(9).reshape(3, 3))
    zero, one = tf.constant([0.0]), tf.constant([1.0])
    right = image_ops.translation_matrix(one, zero)
    turn = image_ops.rotation_matrix([np.pi / 2], 3, 3)
    step = image_ops.projective_transform(source, right, 128)
    expected = image_ops.projective_transform(step, turn, 128)
    both = image_ops.compose(right, turn)
    result = image_ops.projective_transform(source, both, 128)
    np.testing.assert_array_equal(result, expected)
    assert rows(expected.numpy()) == [[1, 4, 7], [0, 3, 6], [128] * 3]


def test_projective_matrices_divide_by_the_third_coordinate():
    # x' = x / (0.5 x + 1): the output pixel 2 shows the input pixel 1.
    matrix = [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0]]
    result = image_ops.projective_transform(image([[10, 20, 30]]), matrix)
    assert rows(result.numpy()) == [[10, 20, 20]]
    composed = image_ops.compose(matrix, matrix)
    np.testing.assert_allclose(composed, [[1, 0, 0, 0, 1, 0, 1, 0]])


def test_histograms_count_per_image_and_channel():
    images = np.array([[[[0, 7], [0, 9]]], [[[255, 7], [3, 7]]]], np.uint8)
    counts = image_ops.histograms(images).numpy()
    assert counts.shape == (2, 2, 256)
    nonzero = {
        tuple(int(i) for i in key): int(counts[tuple(key)])
        for key in np.argwhere(counts)
    }
    assert nonzero == {
        (0, 0, 0): 2,
        (0, 1, 7): 1,
        (0, 1, 9): 1,
        (1, 0, 3): 1,
        (1, 0, 255): 1,
        (1, 1, 7): 2,
    }


def test_lookup_takes_the_table_of_its_image_and_channel():
    images = np.array([[[[0, 1], [2, 0]]], [[[0, 1], [2, 0]]]], np.uint8)
    table = np.zeros([2, 2, 256], np.uint8)
    table[:, :, :3] = np.arange(12).reshape(2, 2, 3) + 100
    result = run(image_ops.apply_lookup_table, images, table)
    expected = [[[[100, 104], [102, 103]]], [[[106, 110], [108, 109]]]]
    assert result.tolist() == expected
    result = run(image_ops.apply_lookup_table, images, table[:, :1])
    expected = [[[[100, 101], [102, 100]]], [[[106, 107], [108, 106]]]]
    assert result.tolist() == expected


def test_simple_tables_by_hand():
    source = np.concatenate([image([[0, 100, 255]])] * 4)
    result = look_up(
        lambda _, level: image_ops.solarize_table(level),
        source,
        np.int32([0, 100, 101, 409]),
    )
    assert result[:, 0, :, 0].tolist() == [
        [255, 155, 0],
        [0, 155, 0],
        [0, 100, 0],
        [0, 100, 255],
    ]
    result = look_up(
        lambda _, bits: image_ops.posterize_table(bits),
        source,
        np.int32([1, 2, 8, 11]),
    )
    assert result[:, 0, :, 0].tolist() == [
        [0, 0, 128],
        [0, 64, 192],
        [0, 100, 255],
        [0, 100, 255],
    ]
    factor = np.float32([0.0, 0.5, 1.0, 2.98])
    result = look_up(TONES["brightness"], source, factor)
    assert result[:, 0, :, 0].tolist() == [
        [0, 0, 0],
        [0, 50, 127],
        [0, 100, 255],
        [0, 255, 255],
    ]
    # The mean is 118.33, rounded 118.
    result = look_up(TONES["contrast"], source, factor)
    assert result[:, 0, :, 0].tolist() == [
        [118, 118, 118],
        [59, 109, 186],
        [0, 100, 255],
        [0, 64, 255],
    ]


def test_stretching_tables_by_hand():
    source = image([[100, 110], [120, 150]])
    assert rows(look_up(autocontrast, source)) == [[0, 51], [102, 255]]
    # Four pixels are too few for a step: nothing changes, as in Pillow.
    assert rows(look_up(equalize, source)) == rows(source)
    # 255 pixels of 10, 255 of 20, 2 of 30: step = 510 // 255 = 2.
    values = np.repeat([10, 20, 30], [255, 255, 2]).reshape(32, 16)
    result = look_up(equalize, image(values))
    assert np.unique(result).tolist() == [0, 128, 255]


def test_color_and_gray_by_hand():
    source = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]] * 2, np.uint8)
    assert image_ops.gray(source)[0, 0, :, 0].numpy().tolist() == [76, 150, 29]
    result = run(image_ops.color, source, np.float32([0.0, 2.0]))
    gray, strong = result[:, 0].tolist()
    assert gray == [[76] * 3, [150] * 3, [29] * 3]
    assert strong == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_sharpness_by_hand():
    source = np.concatenate([image([[0, 0, 0], [0, 130, 0], [0, 0, 13]])] * 3)
    result = run(image_ops.sharpness, source, np.float32([0.0, 1.0, 2.0]))
    # (5 * 130 + 13) / 13 = 51; 130 + (130 - 51) = 209; the border stays.
    assert result[:, 1, 1, 0].tolist() == [51, 130, 209]
    result[:, 1, 1] = 130
    np.testing.assert_array_equal(result, source)


def test_sharpness_keeps_images_without_an_inside():
    source = image([[1, 200], [3, 4], [90, 6]])
    result = run(image_ops.sharpness, source, np.float32([2.0]))
    np.testing.assert_array_equal(result, source)


def test_blend_rounds_as_asked():
    first, second = image([[0, 10, 250]]), image([[5, 5, 255]])
    half, beyond = np.float32([0.5]), np.float32([3.0])
    assert rows(run(image_ops.blend, first, second, half)) == [[2, 8, 252]]

    def down(first, second, factor):
        return image_ops.blend(first, second, factor, "down")

    assert rows(run(down, first, second, half)) == [[2, 7, 252]]
    assert rows(run(down, first, second, beyond)) == [[15, 0, 255]]


def test_cutout_is_clipped_at_the_border():
    def function(images, y, x, half_width):
        return image_ops.cutout(images, y, x, half_width, 7)

    source = np.full([3, 3, 4, 1], 200, np.uint8)
    y, x = np.int32([0, 1, 2]), np.int32([0, 2, 3])
    result = run(function, source, y, x, np.int32([1, 1, 0]))
    keep = [200] * 4
    assert result[..., 0].tolist() == [
        [[7, 200, 200, 200], keep, keep],
        [[200, 7, 7, 200], [200, 7, 7, 200], keep],
        [keep, keep, keep],
    ]


def test_flip_mirrors_only_the_chosen_images():
    source = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3)
    result = run(image_ops.flip_horizontal, source, np.array([False, True]))
    assert result.tolist() == [
        [[[0, 1, 2], [3, 4, 5]]],
        [[[9, 10, 11], [6, 7, 8]]],
    ]


def test_pad_and_crop_by_hand():
    source = np.concatenate([image([[1, 2, 3], [4, 5, 6], [7, 8, 9]])] * 3)
    y, x = np.int32([0, 2, 4]), np.int32([2, 2, 0])

    def reflect(images, y, x):
        return image_ops.pad_and_crop(images, y, x, 2)

    def constant(images, y, x):
        return image_ops.pad_and_crop(images, y, x, 2, "constant", 128)

    middle = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert run(reflect, source, y, x)[..., 0].tolist() == [
        [[7, 8, 9], [4, 5, 6], [1, 2, 3]],
        middle,
        [[9, 8, 7], [6, 5, 4], [3, 2, 1]],
    ]
    assert run(constant, source, y, x)[..., 0].tolist() == [
        [[128] * 3, [128] * 3, [1, 2, 3]],
        middle,
        [[128, 128, 7], [128] * 3, [128] * 3],
    ]


def test_pad_and_crop_equals_numpy():
    images = TFA["rgb"]
    y, x = np.int32([0, 1, 2, 5, 9, 10]), np.int32([10, 7, 0, 5, 3, 1])
    padded = np.pad(images, [[0, 0], [5, 5], [5, 5], [0, 0]], "reflect")
    expected = [
        one[a : a + 24, b : b + 20]
        for one, a, b in zip(padded, y, x, strict=True)
    ]
    result = image_ops.pad_and_crop(images, y, x, 5)
    np.testing.assert_array_equal(result, expected)


# Properties of all operations.

FACTOR = np.float32([0.0, 0.3, 0.7, 1.0, 1.6, 2.98])
WHOLE = np.int32([0, 3, 5, 1, 4, 2])
OPERATIONS = {
    "projective_transform": (
        lambda x, a: image_ops.projective_transform(
            x, image_ops.rotation_matrix(a, *x.shape[1:3]), 128
        ),
        FACTOR,
    ),
    "equalize": (
        lambda x, _: image_ops.apply_lookup_table(x, equalize(x)),
        FACTOR,
    ),
    "autocontrast": (
        lambda x, _: image_ops.apply_lookup_table(x, autocontrast(x)),
        FACTOR,
    ),
    "contrast": (
        lambda x, f: image_ops.apply_lookup_table(x, TONES["contrast"](x, f)),
        FACTOR,
    ),
    "color": (image_ops.color, FACTOR),
    "sharpness": (image_ops.sharpness, FACTOR),
    "blend": (lambda x, f: image_ops.blend(255 - x, x, f), FACTOR),
    "cutout": (lambda x, i: image_ops.cutout(x, i, i, i, 9), WHOLE),
    "flip_horizontal": (
        lambda x, i: image_ops.flip_horizontal(x, i % 2 == 0),
        WHOLE,
    ),
    "pad_and_crop": (lambda x, i: image_ops.pad_and_crop(x, i, i, 3), WHOLE),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_images_do_not_see_each_other(name, kind):
    function, parameter = OPERATIONS[name]
    images = TFA[kind]
    result = run(function, images, parameter)
    order = np.array([3, 5, 0, 4, 1, 2])
    permuted = function(images[order], parameter[order])
    np.testing.assert_array_equal(permuted, result[order])
    single = function(images[4:5], parameter[4:5])
    np.testing.assert_array_equal(single, result[4:5])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_empty_batch_stays_empty(name):
    function, parameter = OPERATIONS[name]
    result = function(TFA["rgb"][:0], parameter[:0])
    assert result.shape == (0, 24, 20, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_neutral_parameters_change_nothing(kind):
    images = TFA[kind]
    height, width = images.shape[1:3]
    zero, one = tf.zeros(6), tf.ones(6)
    nothing = tf.zeros(6, tf.int32)
    matrices = [
        image_ops.rotation_matrix(zero, height, width),
        image_ops.shear_x_matrix(zero),
        image_ops.shear_y_matrix(zero),
        image_ops.translation_matrix(zero, zero),
        image_ops.scale_matrix(one, height, width),
    ]
    tables = [
        image_ops.identity_table(6),
        image_ops.solarize_table(nothing + 256),
        image_ops.posterize_table(nothing + 8),
        image_ops.brightness_table(one),
        image_ops.contrast_table(one, image_ops.gray_mean(images)),
    ]
    results = [
        image_ops.projective_transform(images, matrix, 128, interpolation)
        for matrix in matrices + [image_ops.compose(*matrices)]
        for interpolation in image_ops.INTERPOLATIONS
    ]
    results += [image_ops.apply_lookup_table(images, t) for t in tables]
    results += [
        image_ops.color(images, one),
        image_ops.sharpness(images, one),
        image_ops.blend(255 - images, images, one),
        image_ops.cutout(images, nothing, nothing, nothing),
        image_ops.flip_horizontal(images, tf.zeros(6, tf.bool)),
        image_ops.pad_and_crop(images, nothing + 3, nothing + 3, 3),
    ]
    for result in results:
        np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 254, 255])
def test_strong_factors_clip_and_do_not_wrap_around(value):
    images = np.full([2, 5, 5, 3], value, np.uint8)
    images[:, 2, 2] = 255 - value
    middle = int(images[0, 2, 2, 0]) >= value
    factor = np.float32([2.98, 20.0])
    for result in (
        look_up(TONES["contrast"], images, factor),
        run(image_ops.sharpness, images, factor),
    ):
        # Strong factors must not turn the darker color into the brighter.
        inside, outside = result[:, 2, 2, 0], result[:, 0, 0, 0]
        assert np.all((inside >= outside) == middle)
    brightness = look_up(TONES["brightness"], images, factor)
    expected = np.minimum(images * factor[:, None, None, None], 255)
    np.testing.assert_array_equal(brightness, np.floor(expected))


# Errors say what was expected and what came.

X = np.zeros([2, 4, 4, 3], np.uint8)
ERRORS = {
    "a float image": (
        lambda: image_ops.cutout(X / 255.0, [0, 0], [0, 0], [1, 1]),
        r"images: expected uint8 \[N, H, W, C\].*got float64 \(2, 4, 4, 3\)",
    ),
    "a single image": (
        lambda: image_ops.histograms(X[0]),
        r"images: expected uint8 \[N, H, W, C\].*got uint8 \(4, 4, 3\)",
    ),
    "a scalar factor": (
        lambda: image_ops.sharpness(X, 2.0),
        r"factor: expected a tensor of rank 1, got shape \(\)",
    ),
    "too few factors": (
        lambda: image_ops.color(X, [2.0]),
        r"factor: expected one value for each of 2 images, got 1",
    ),
    "a float threshold": (
        lambda: image_ops.solarize_table([128.0]),
        r"threshold: expected integers, got float32",
    ),
    "float bits": (
        lambda: image_ops.posterize_table([4.0]),
        r"bits: expected integers, got float32",
    ),
    "a matrix per batch": (
        lambda: image_ops.projective_transform(X, [[0.0] * 8]),
        r"matrices: expected \[2, 8\] .* got \(1, 8\)",
    ),
    "an unknown interpolation": (
        lambda: image_ops.projective_transform(X, tf.zeros([2, 8]), 0, "cubic"),
        r"interpolation: expected one of nearest, bilinear, got 'cubic'",
    ),
    "a fill value of 1000": (
        lambda: image_ops.cutout(X, [0, 0], [0, 0], [1, 1], 1000),
        r"fill_value: expected 0 ... 255, got 1000",
    ),
    "a table of integers": (
        lambda: image_ops.apply_lookup_table(
            X, tf.zeros([2, 3, 256], tf.int32)
        ),
        r"table: expected uint8 \[2, 3 or 1, 256\].*got int32 \(2, 3, 256\)",
    ),
    "a table of two channels": (
        lambda: image_ops.apply_lookup_table(
            X, tf.zeros([2, 2, 256], tf.uint8)
        ),
        r"table: expected uint8 \[2, 3 or 1, 256\].*got uint8 \(2, 2, 256\)",
    ),
    "histograms of an image": (
        lambda: image_ops.equalize_table(X),
        r"histograms: expected int32 \[N, C, 256\], got uint8 \(2, 4, 4, 3\)",
    ),
    "two channels": (
        lambda: image_ops.color(X[..., :2], [1.0, 1.0]),
        r"images: expected 1 or 3 channels, got 2",
    ),
    "different images": (
        lambda: image_ops.blend(X, X[:, :3], [1.0, 1.0]),
        r"same shape, got \(2, 4, 4, 3\) and \(2, 3, 4, 3\)",
    ),
    "an unknown rounding": (
        lambda: image_ops.blend(X, X, [1.0, 1.0], "up"),
        r"rounding: expected one of nearest, down, got 'up'",
    ),
    "an integer flip": (
        lambda: image_ops.flip_horizontal(X, [0, 1]),
        r"flip: expected bool \[N\], got int32",
    ),
    "a padding as large as the image": (
        lambda: image_ops.pad_and_crop(X, [0, 0], [0, 0], 4),
        r"padding: expected 0 ... 3 .* got 4",
    ),
    "an unknown mode": (
        lambda: image_ops.pad_and_crop(X, [0, 0], [0, 0], 1, "wrap"),
        r"mode: expected one of reflect, constant, got 'wrap'",
    ),
    "nothing to compose": (image_ops.compose, r"at least one matrix"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, function",
    [("smooth", image_ops.smoothed), ("blur", image_ops.blurred)],
)
def test_filters_equal_pillow(name, function, kind):
    actual = run(function, PILLOW[kind])
    np.testing.assert_array_equal(actual, PILLOW[f"{name}/{kind}"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("method", image_ops.RESAMPLING)
def test_enlarging_is_within_one_gray_level_of_pillow(method, turn, kind):
    case = f"rescale_{method}_{turn}"

    def function(images, margin):
        return image_ops.enlarge_center(images, margin, method)

    margin = PILLOW[f"{case}/parameter"].astype(np.float32)
    actual = run(function, PILLOW[kind], margin).astype(int)
    difference = np.abs(actual - PILLOW[f"{case}/{kind}"])
    if method == "box":
        assert not difference.any()
    elif method == "nearest":
        # Where two pixels are equally near: one column of one image.
        assert (difference > 0).mean() < 0.01
    else:
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02


def test_a_whole_window_is_the_image_and_a_half_is_twice_as_large():
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1) * 3

    def window(*box, size):
        matrices = image_ops.window_matrix(*([float(b)] for b in box), size)
        return image_ops.projective_transform(
            images, matrices, 0, "bilinear", size
        ).numpy()

    np.testing.assert_array_equal(window(0, 0, 8, 8, size=(8, 8)), images)
    np.testing.assert_array_equal(
        window(2, 3, 4, 5, size=(4, 5)), images[:, 2:6, 3:8]
    )
    expected = tf.floor(
        tf.image.resize(images[:, 2:6, 2:6].astype(np.float32), (8, 8))
    )
    # At the window's own edge tf.image.resize has no pixels outside of it.
    np.testing.assert_array_equal(
        window(2, 2, 4, 4, size=(8, 8))[:, 1:-1, 1:-1],
        expected.numpy()[:, 1:-1, 1:-1].astype(np.uint8),
    )


def test_center_crop():
    images = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(
        image_ops.center_crop(images, 4, 2)[0, :, :, 0],
        images[0, 1:5, 2:4, 0],
    )


def blurred_by_hand(image, sigma, radius):
    """A Gaussian of [H, W, C], pixel by pixel, borders reflected."""
    height, width, _ = image.shape
    offset = np.arange(-radius, radius + 1)
    weight = np.exp(-(offset**2) / (2 * sigma**2))
    weight /= weight.sum()
    padded = np.pad(
        image.astype(np.float64),
        [[radius, radius], [radius, radius], [0, 0]],
        "reflect",
    )
    side = 2 * radius + 1
    result = np.empty(image.shape)
    for y in range(height):
        for x in range(width):
            window = padded[y : y + side, x : x + side]
            result[y, x] = np.einsum("y,x,yxc->c", weight, weight, window)
    return result


@pytest.mark.parametrize("radius", (1, 3))
def test_gaussian_blur_by_hand(radius):
    images = PILLOW["rgb"]
    sigma = np.linspace(0.1, 2.0, len(images))
    result = image_ops.gaussian_blur(images, sigma, radius).numpy()
    expected = np.stack(
        [
            blurred_by_hand(image, s, radius)
            for image, s in zip(images, np.float32(sigma), strict=True)
        ]
    )
    # Rounded to the nearest integer, but for float32 near a half.
    assert np.abs(result - expected).max() < 0.5 + 1e-3
    # A sigma of a tenth of a pixel changes nothing, radius 0 neither.
    np.testing.assert_array_equal(result[0], images[0])
    np.testing.assert_array_equal(
        image_ops.gaussian_blur(images, sigma, 0), images
    )
    with pytest.raises(ValueError, match="radius: expected 0"):
        image_ops.gaussian_blur(images, sigma, 200)


def test_hue_is_that_of_pillow_for_every_kind_of_color():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 32, 32, 3))
    near = np.clip(noise // 16 + 100, 0, 255)
    few = rng.choice([0, 1, 127, 254, 255], (8, 32, 32, 3))
    images = np.concatenate([noise, near, few]).astype(np.uint8)
    factor = np.linspace(-0.5, 0.5, len(images)).astype(np.float32)
    result = image_ops.hue(images, factor).numpy()
    for image, turn, got in zip(images, factor, result, strict=True):
        hue, saturation, value = Image.fromarray(image).convert("HSV").split()
        moved = (np.int32(hue) + int(turn * 255)) % 256
        hue = Image.fromarray(np.uint8(moved), "L")
        merged = Image.merge("HSV", (hue, saturation, value))
        np.testing.assert_array_equal(got, np.asarray(merged.convert("RGB")))


def test_hue_leaves_gray_images_and_refuses_others():
    gray = PILLOW["gray"]
    factor = np.full(len(gray), 0.3, np.float32)
    np.testing.assert_array_equal(image_ops.hue(gray, factor), gray)
    with pytest.raises(ValueError, match="expected 1 or 3 channels, got 2"):
        image_ops.hue(np.zeros([1, 4, 4, 2], np.uint8), [0.1])


def test_gray_copy_is_pillows_luminance():
    images = PILLOW["rgb"]
    result = image_ops.gray_copy(images).numpy()
    for image, got in zip(images, result, strict=True):
        gray = Image.fromarray(image).convert("L").convert("RGB")
        np.testing.assert_array_equal(got, np.asarray(gray))
