"""Networks: parameter counts, layers, inputs, errors."""

import re
import resource
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.helpers import mostly_exhaustive
from tf_metassl import models
from tf_metassl.meta import functional
from tf_metassl.models import bit, cnn13, costs, vit
from tf_metassl.models import layers as own_layers
from tf_metassl.ops import averaging

PHOTO = (32, 32, 3)


def shapes(name, image_shape=PHOTO, num_classes=10, **options):
    with costs.shapes_only():
        return models.build(name, image_shape, num_classes, **options)


def peak_mebibytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, num_classes, parameters",
    [
        ("wrn_28_2", 10, 1_467_610),
        ("wrn_28_2_mpl", 10, 1_472_170),
        ("wrn_28_2_fixmatch", 10, 1_469_642),
        ("cnn13", 10, 3_121_802),
        ("cnn13", 100, 3_133_412),
        ("cnn13_vat", 10, 3_121_802),
        ("cnn13_semi_meta", 10, 3_121_802),
        ("cnn13_fixmatch", 10, 3_123_850),
        ("cnn13_ict", 10, 3_125_908),
        ("cnn13_fast_swa", 10, 3_125_908),
        # A gain and a bias for each of 2,048 filters and 10 logits.
        ("cnn13_mean_teacher", 10, 3_121_802 - 10 + 2 * 10),
        ("resnet_50", 1000, 25_557_032 - 3 * 64 * (49 - 9)),
        # As documented by Keras, less 40 of batch norm's averages.
        ("efficientnet_b0", 1000, 5_288_548),
        ("efficientnet_b1", 1000, 7_794_184),
        ("efficientnet_b2", 1000, 9_109_994),
        ("efficientnet_b3", 1000, 12_233_232),
        ("efficientnet_b4", 1000, 19_341_616),
        ("efficientnet_b5", 1000, 30_389_784),
        ("efficientnet_b6", 1000, 43_040_704),
        ("efficientnet_b7", 1000, 66_347_960),
    ],
)
def test_trainable_parameters(name, num_classes, parameters):
    network = shapes(name, num_classes=num_classes)
    assert costs.of(network).trainable == parameters


@pytest.mark.parametrize(
    "name, image_shape, num_classes, parameters",
    [
        ("digits_cnn", (8, 8, 1), 10, 140_458),
        ("digits_pooling_cnn", (8, 8, 1), 10, 140_458),
        ("swwae_cnn", (96, 96, 3), 10, 7_643_082),
        ("small_cnn", (28, 28, 1), 10, 24_058),
        ("strided_cnn", (16, 16, 3), 10, 187_114),
        ("two_moons_mlp", (1, 1, 2), 2, 114),
        ("wrn_37_2", (96, 96, 3), 10, 5_929_434),
        ("resnet_50", (64, 64, 3), 1000, 25_557_032),
        ("resnet_152", (64, 64, 3), 1000, 60_192_808),
    ],
)
def test_trainable_parameters_at_other_sizes(
    name, image_shape, num_classes, parameters
):
    network = shapes(name, image_shape, num_classes)
    assert costs.of(network).trainable == parameters


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("resnext_101_32x4d", 44_177_704),
        ("resnext_101_64x4d", 83_455_272),
        ("resnext_101_32x16d", 194_026_792),
        ("resnext_101_32x48d", 828_411_176),
        ("senet_154", 115_088_984),
        ("densenet_264", 33_337_704),
        ("inception_v4", 42_679_816),
        ("bit_50_1", 25_549_352),
        ("bit_152_4", 936_533_224),
        ("vit_b16", 86_567_656),
        ("vit_l16", 304_326_632),
        ("vit_h14", 632_045_800),
        ("polynet", 95_366_600),
        ("pnasnet_5", 86_057_668),
    ],
)
def test_published_parameters_at_the_published_size(name, parameters):
    size = models.find(name).image_size
    network = shapes(name, (size, size, 3), 1000)
    assert costs.of(network).trainable == parameters


@pytest.mark.parametrize(
    "name, millions",
    [("amoebanet_a", 86.7), ("amoebanet_b", 557), ("amoebanet_c", 155.3)],
)
def test_parameters_that_are_published_in_millions(name, millions):
    size = models.find(name).image_size
    network = shapes(name, (size, size, 3), 1000)
    counted = costs.of(network).trainable
    assert counted == pytest.approx(millions * 1e6, rel=1e-3)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name, millions", [("efficientnet_l2", 480), ("efficientnet_b6_wide", 390)]
)
def test_the_largest_networks_without_their_memory(name, millions):
    size = models.find(name).image_size
    before = peak_mebibytes()
    network = shapes(name, (size, size, 3), 1000)
    counted = costs.of(network).trainable
    assert counted == pytest.approx(millions * 1e6, rel=0.02)
    # Keras gives waiting variables their values at the end of such a scope.
    with keras.StatelessScope():
        pass
    assert peak_mebibytes() - before < 4 * counted / 2**20 / 2


SMALLEST = [
    ("digits_cnn", (5, 8, 1)),
    ("small_cnn", (1, 1, 1)),
    ("strided_cnn", (1, 1, 3)),
    ("two_moons_mlp", (1, 1, 2)),
    ("wrn_10_1", (12, 8, 3)),
    ("wrn_13_1_mpl", (9, 8, 3)),
    ("wrn_10_1_fixmatch", (8, 8, 1)),
    *(
        (name, (12, 13, 3))
        for name in models.NETWORKS
        if name.startswith("cnn13")
    ),
    ("resnet_50", (8, 9, 1)),
    ("resnet_50", (64, 64, 3)),
    ("efficientnet_b0", (32, 33, 1)),
    ("bit_50_1", (8, 9, 1)),
    ("vit_b16", (16, 32, 1)),
]
# Those whose layers the others have, or that take seconds.
LIKE_OTHERS = (
    *("resnet_50", "efficientnet_b0", "vit_b16", "wrn_10_1_fixmatch"),
    *(n for n in models.NETWORKS if n.startswith("cnn13") and n != "cnn13"),
)
# Too deep to be computed in every test.
DEEP = [
    ("resnext_101_32x4d", (8, 9, 1)),
    ("densenet_264", (32, 33, 1)),
    ("inception_v4", (75, 76, 1)),
    ("pnasnet_5", (32, 33, 1)),
    ("polynet", (75, 76, 1)),
]


def random_images(image_shape, number=4):
    return np.random.default_rng(0).integers(
        0, 256, (number, *image_shape), np.uint8
    )


@pytest.mark.parametrize("name, image_shape", DEEP)
def test_deep_networks_give_logits_of_the_smallest_images(name, image_shape):
    network = shapes(name, image_shape, 7)
    assert network.input_shape == (None, *image_shape)
    assert network.output.dtype == "float32" and network.output.shape[1] == 7
    features, same = models.features(network).outputs
    last = network.get_layer("logits")
    assert isinstance(last, layers.Dense) and features is last.input
    assert same is network.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, image_shape",
    mostly_exhaustive(
        SMALLEST, [case for case in SMALLEST if case[0] not in LIKE_OTHERS]
    ),
)
def test_uint8_and_float_pixels_give_the_same_float32_logits(name, image_shape):
    network = models.build(name, image_shape, 7, dropout=0.5)
    images = random_images(image_shape)
    logits = network(images)
    assert logits.dtype == tf.float32 and logits.shape == (4, 7)
    np.testing.assert_array_equal(logits, network(images.astype(np.float32)))
    # The dense layer on top of the features gives the logits, and the averaged
    # copy is a copy.
    seen, same = models.features(averaging.copy_of(network))(images)
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-6)
    last = network.get_layer("logits")
    assert (
        isinstance(last, layers.Dense) and seen.shape[1] == last.input.shape[1]
    )
    if last.output is network.output:
        np.testing.assert_allclose(last(seen), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, image_shape",
    [
        ("wrn_10_1", (8, 8, 3)),
        ("cnn13_mean_teacher", (12, 12, 3)),
        ("resnet_50", (16, 16, 3)),
        ("efficientnet_b0", PHOTO),
    ],
)
def test_half_precision_inside_full_precision_outside(name, image_shape):
    images = random_images(image_shape)
    half = tf.cast(images, tf.float32) + 0.3
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = models.build(name, image_shape, 7)
    finally:
        keras.config.set_dtype_policy("float32")
    assert network(half, training=True).dtype == tf.float32
    assert models.features(network)(half)[0].dtype == tf.bfloat16
    assert {v.dtype for v in network.trainable_variables} == {"float32"}
    # bfloat16 cannot hold 200.3; scaled pixels are rounded only afterwards.
    scaled = keras.Model(network.input, network.layers[1].output)(half)
    np.testing.assert_allclose(scaled, half / 127.5 - 1, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, image_shape",
    [("wrn_13_1_mpl", (8, 8, 3)), ("cnn13_mean_teacher", (12, 12, 3))],
)
def test_forward_mode_agrees_with_the_gradient(name, image_shape, float64):
    network = models.build(name, image_shape, 4)
    images = tf.constant(random_images(image_shape), tf.float64)
    params, state = functional.parameters(network), functional.state(network)
    direction = [
        tf.random.stateless_normal(p.shape, (1, i), dtype=p.dtype)
        for i, p in enumerate(params)
    ]

    def loss(params):
        logits, _ = functional.call(network, params, state, images)
        return tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])

    with tf.autodiff.ForwardAccumulator(params, direction) as along:
        slope = along.jvp(loss(params))
    with tf.GradientTape() as tape:
        tape.watch(params)
        value = loss(params)
    gradient = functional.gradient(tape, value, params)
    products = [
        tf.reduce_sum(a * b) for a, b in zip(gradient, direction, strict=True)
    ]
    np.testing.assert_allclose(slope, tf.add_n(products), rtol=1e-9)


@pytest.mark.parametrize(
    "name", ("digits_cnn", "cnn13_mean_teacher", "efficientnet_b0", "resnet_50")
)
def test_batch_norm_can_be_synchronized_everywhere(name):
    def settings(network):
        for layer in network.layers:
            if isinstance(layer, keras.Model):
                yield from settings(layer)
            elif hasattr(layer, "synchronized"):
                yield layer.synchronized

    for synchronized in (False, True):
        network = shapes(name, synchronized=synchronized)
        assert set(settings(network)) == {synchronized}
        with costs.shapes_only():
            twin = keras.models.clone_model(network)
        assert set(settings(twin)) == {synchronized}


def test_pixels_are_scaled_by_the_datasets_statistics():
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    network = models.build("wrn_10_1", (8, 8, 3), 7, mean=mean, std=std)
    first = keras.Model(network.input, network.layers[1].output)
    images = random_images((8, 8, 3))
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(first(images), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(
        ValueError, match="1 values.*got 3 and 3: change --norm"
    ):
        models.build("wrn_10_1", (8, 8, 1), 7, mean=mean, std=std)


def made_by(tensor):
    """The layer that a Keras tensor comes from."""
    return tensor._keras_history.operation


def shortcut_sources(name):
    """What the 1x1 convolutions of a wide residual network are applied to."""
    return [
        type(made_by(layer.input)).__name__
        for layer in shapes(name, (8, 8, 3)).layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
    ]


def test_wide_residual_variants():
    assert shortcut_sources("wrn_16_2") == ["LeakyReLU"] * 3
    assert shortcut_sources("wrn_16_2_mpl") == ["LeakyReLU"] * 2
    assert shortcut_sources("wrn_16_2_fixmatch") == ["LeakyReLU", "Add", "Add"]
    found = {}
    for name in ("wrn_10_2", "wrn_10_2_mpl", "wrn_10_2_fixmatch"):
        network = models.build(name, (8, 8, 3), 10)
        kinds = {type(layer).__name__: layer for layer in network.layers}
        kernel = network.get_layer("logits").kernel.numpy()
        found[name] = (
            kinds["LeakyReLU"].negative_slope,
            kinds["BatchNormalization"].momentum,
            kinds["BatchNormalization"].epsilon,
            kinds["Conv2D"].use_bias,
            bool(np.abs(kernel).max() <= 10**-0.5),
        )
    assert found["wrn_10_2"] == (0.1, 0.999, 1e-3, False, True)
    assert found["wrn_10_2_mpl"] == (0.2, 0.99, 1e-3, False, True)
    assert found["wrn_10_2_fixmatch"][:4] == (0.1, 0.999, 1e-3, True)


@pytest.mark.parametrize(
    "name, image_shape",
    [("wrn_10_1_mpl", (8, 8, 3)), ("cnn13_ict", (12, 12, 3))],
)
def test_initial_weights_follow_the_seed(name, image_shape):
    def kernels():
        network = models.build(name, image_shape, 10)
        return [
            v.numpy() for v in network.trainable_variables if v.name == "kernel"
        ]

    teacher, student = kernels(), kernels()
    keras.utils.set_random_seed(0)
    for a, b, c in zip(teacher, student, kernels(), strict=True):
        assert not np.array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_four_scales_end_at_an_eighth_of_the_size():
    network = shapes("wrn_13_1", (32, 32, 3))
    pooling = network.layers[-2]
    assert pooling.input.shape == (None, 4, 4, 128)
    assert shapes("wrn_10_1", PHOTO).layers[-2].input.shape == (None, 8, 8, 64)


def test_the_registry_and_cnn13_know_the_same_variants():
    named = [
        network.options["variant"]
        for name, network in models.NETWORKS.items()
        if name.startswith("cnn13")
    ]
    assert named == list(cnn13.VARIANTS)


def kinds_in_order(name, **options):
    """The names of the layers' classes in the first third of a CNN-13."""
    network = shapes(name, (12, 12, 3), **options)
    return [type(layer).__name__ for layer in network.layers[2:14]]


def test_cnn13_variants():
    block = ["Conv2D", "BatchNormalization", "LeakyReLU"]
    plain = kinds_in_order("cnn13")
    assert plain == [*block * 3, "MaxPooling2D", "Dropout", "Conv2D"]
    assert kinds_in_order("cnn13", dropout=0.0)[9:] == [
        "MaxPooling2D",
        *block[:2],
    ]
    assert kinds_in_order("cnn13_semi_meta")[10] == "SpatialDropout2D"
    assert kinds_in_order("cnn13_fixmatch")[:3] == [block[0], *block[:0:-1]]
    assert kinds_in_order("cnn13_ict")[:3] == ["WeightNormConv2D", *block[1:]]
    assert kinds_in_order("cnn13_mean_teacher")[:4] == [
        "GaussianNoise",
        "WeightNormConv2D",
        "MeanOnlyBatchNormalization",
        "LeakyReLU",
    ]


def test_residual_stems_and_strides():
    def body(size):
        return shapes("resnet_50", (size, size, 3)).get_layer("resnet50")

    small, large = body(32), body(64)
    assert small.get_layer("conv1_conv").output.shape == (None, 32, 32, 64)
    assert small.output.shape == (None, 4, 4, 2048)
    assert large.get_layer("conv1_conv").kernel_size == (7, 7)
    assert large.output.shape == (None, 2, 2, 2048)
    assert small.get_layer("conv3_block1_1_conv").strides == (1, 1)
    assert small.get_layer("conv3_block1_2_conv").strides == (2, 2)
    assert not any(v.name == "bias" for v in small.variables)


def test_weight_norm_by_hand():
    layer = own_layers.WeightNormDense(1, use_bias=False)
    layer.build((None, 2))
    # 3 / 5 * 2 and 4 / 5 * 2, whatever the length of the kernel is.
    for scale in (1.0, 10.0):
        kernel = np.float32([[3 * scale], [4 * scale]])
        layer.set_weights([kernel, np.float32([2])])
        np.testing.assert_allclose(layer(np.eye(2)), [[1.2], [1.6]], rtol=1e-6)
    # Unit variance in, variance 2 out: what a rectifier halves.
    layer = own_layers.WeightNormConv2D(64, 3, use_bias=False)
    images = np.random.default_rng(0).normal(size=(8, 9, 9, 16))
    assert np.var(layer(images)) == pytest.approx(2, rel=0.1)


def test_standardized_convolution_by_hand(tmp_path):
    x = keras.Input((1, 2, 1))
    layer = bit.StandardizedConv2D(1, (1, 2), use_bias=False)
    network = keras.Model(x, layer(x))
    layer.set_weights([np.float32([3, 7]).reshape(1, 2, 1, 1)])
    images = np.float32([[1, 0], [0, 1], [5, 5]]).reshape(3, 1, 2, 1)
    # Weights of -1 and 1.
    np.testing.assert_allclose(
        network(images)[:, 0, 0, 0], [-1, 1, 0], atol=1e-5
    )
    network.save(tmp_path / "a.keras")
    read = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(read.get_weights()[0], layer.get_weights()[0])


def test_tokens_by_hand():
    layer = vit.Tokens()
    patches = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    layer.build(patches.shape)
    layer.token.assign([[[100, 200]]])
    layer.positions.assign(np.full([1, 4, 2], 0.5))
    tokens = layer(patches).numpy()
    np.testing.assert_array_equal(tokens[:, 0], [[100.5, 200.5]] * 2)
    np.testing.assert_array_equal(tokens[:, 1:], patches + 0.5)


def test_squeeze_and_excitation_and_groups():
    network = shapes("senet_154", (32, 32, 3))
    assert sum(isinstance(x, layers.Multiply) for x in network.layers) == 50
    groups = {x.groups for x in network.layers if isinstance(x, layers.Conv2D)}
    assert groups == {1, 64}
    assert network.layers[-3].input.shape == (None, 4, 4, 2048)
    bit_network = shapes("bit_50_1", (32, 32, 3))
    kinds = {type(x) for x in bit_network.layers}
    assert layers.BatchNormalization not in kinds
    assert layers.GroupNormalization in kinds and layers.Conv2D not in kinds


def test_mean_only_batch_norm_by_hand():
    layer = own_layers.MeanOnlyBatchNormalization(momentum=0.9)
    x = np.float32([[1, 10], [3, 30]])
    layer.build(x.shape)
    layer.bias.assign([0.5, 0])
    np.testing.assert_allclose(
        layer(x, training=True), [[-0.5, -10], [1.5, 10]]
    )
    np.testing.assert_allclose(layer.moving_mean, [2, 20], rtol=1e-6)
    np.testing.assert_allclose(layer(x), [[-0.5, -10], [1.5, 10]], rtol=1e-6)


def test_drop_block_by_hand(monkeypatch):
    # 4 x 5 positions and regions of 2 x 2, which 3 x 4 corners can begin.
    # 0.3 of the values, so that a corner is drawn with 0.3 * 20 / (4 * 12).
    noise = np.full([2, 3, 4, 1], 0.126, np.float32)
    noise[0, 1, 2] = noise[0, 0, 2] = noise[1, 2, 0] = 0.124
    monkeypatch.setattr(
        keras.random, "uniform", lambda shape, dtype, seed: noise
    )
    layer = own_layers.DropBlock(0.3, size=2)
    kept = np.ones([2, 4, 5, 1])
    kept[0, :3, 2:4] = 0
    kept[1, 2:, :2] = 0
    x = np.random.default_rng(0).normal(size=kept.shape).astype(np.float32)
    expected = x * kept
    expected[0] *= 20 / 14
    expected[1] *= 20 / 16
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-6)
    np.testing.assert_array_equal(layer(x), x)
    layer.progress = lambda: 0.99  # A corner is drawn with 0.12375.
    np.testing.assert_array_equal(layer(x, training=True), x)


def test_drop_block_drops_its_rate_and_keeps_the_sum():
    x = tf.ones([64, 9, 8, 16])
    y = own_layers.DropBlock(0.1, size=3)(x, training=True).numpy()
    # Regions overlap: 1 - (1 - 0.1 / 9)^9 of the inner values.
    assert 0.08 < (y == 0).mean() < 0.1
    np.testing.assert_allclose(y.mean((1, 2, 3)), np.ones(64), rtol=1e-5)
    # A region is never larger than the map.
    small = own_layers.DropBlock(0.5)(tf.ones([8, 2, 2, 50]), training=True)
    whole = small.numpy().reshape(8, 4, 50)
    assert ((whole == 0).all(1) | (whole > 0).all(1)).all()


def test_drop_block_is_in_the_last_two_stages_of_a_residual_network():
    body = shapes("resnet_50", dropblock=0.1).get_layer("resnet50")
    rates = [
        layer.rate
        for layer in body.layers
        if isinstance(layer, own_layers.DropBlock)
    ]
    # Four in each of 6 and 3 blocks.
    assert sorted(rates) == [0.025] * 24 + [0.1] * 12
    plain = shapes("resnet_50").get_layer("resnet50")
    assert not any(
        isinstance(layer, own_layers.DropBlock) for layer in plain.layers
    )
    with pytest.raises(
        ValueError, match="--dropblock at 0, or use .*resnet_50"
    ):
        models.build("wrn_10_1", PHOTO, 10, dropblock=0.1)


@pytest.mark.parametrize("synchronized", (True, False))
def test_mean_only_batch_norm_on_two_replicas(two_replicas, synchronized):
    x = np.float32([[1], [3], [5], [11]])
    with two_replicas.scope():
        layer = own_layers.MeanOnlyBatchNormalization(0.5, synchronized)
        layer.build(x.shape)
    rows = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(
            np.split(x, 2)[context.replica_id_in_sync_group]
        )
    )
    run = tf.function(
        lambda rows: two_replicas.run(
            lambda r: layer(r, training=True), (rows,)
        )
    )
    result = np.concatenate(two_replicas.experimental_local_results(run(rows)))
    expected = x - 5 if synchronized else [[-1], [1], [-3], [3]]
    np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize(
    "name, image_shape, message",
    [
        (
            "resnet",
            PHOTO,
            "--model=resnet: must be one of digits_cnn, digits_pooling_cnn, "
            "swwae_cnn, small_cnn",
        ),
        ("wrn_28", PHOTO, "--model=wrn_28: must be one of"),
        ("wrn_30_2", PHOTO, "--model=wrn_30_2: the depth .* 6 n . 4"),
        ("wrn_4_1", PHOTO, "--model=wrn_4_1: the depth"),
        ("wrn_28_0", PHOTO, "--model=wrn_28_0: .* its width at least 1"),
        ("cnn13", (11, 32, 3), "--model=cnn13 needs .* 12x12 .* got 11x32"),
        ("efficientnet_b0", (28, 28, 1), "at least 32x32 .*--image_size"),
        ("vit_b16", (16, 20, 3), "multiples of 16, got 16x20"),
    ],
)
def test_impossible_networks_are_refused(name, image_shape, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, image_shape, 10)


def users_network(
    image_shape=(8, 8, 3),
    num_classes=3,
    *,
    input_dtype="float32",
    kind="float32",
    activation=None,
    name="logits",
):
    x = keras.Input(image_shape, dtype=input_dtype)
    y = layers.Rescaling(1 / 255)(x)
    y = layers.Conv2D(4, 3)(y)
    y = layers.BatchNormalization()(y)
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.Dense(num_classes, activation=activation, dtype=kind, name=name)(
        y
    )
    return keras.Model(x, y)


class Subclassed(keras.Model):
    pass


def returns_a_layer(image_shape, num_classes):
    return layers.Dense(num_classes)


def returns_a_subclass(image_shape, num_classes):
    return Subclassed()


def with_another_input(image_shape, num_classes):
    return users_network((9, 9, 3), num_classes)


def with_uint8_input(image_shape, num_classes):
    return users_network(image_shape, num_classes, input_dtype="uint8")


def with_another_output(image_shape, num_classes):
    return users_network(image_shape, num_classes + 1)


def with_half_precision(image_shape, num_classes):
    return users_network(image_shape, num_classes, kind="bfloat16")


def with_softmax(image_shape, num_classes):
    return users_network(image_shape, num_classes, activation="softmax")


def without_name(image_shape, num_classes):
    return users_network(image_shape, num_classes, name="top")


def sequential(image_shape, num_classes):
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Flatten(),
            layers.Dense(num_classes, name="logits"),
        ]
    )


NOT_A_FUNCTION = 3
HERE = "tests.models_test"


@pytest.mark.parametrize("function", ("users_network", "sequential"))
def test_a_network_of_ones_own(function):
    network = models.build(
        f"{HERE}:{function}",
        (8, 8, 3),
        3,
        synchronized=True,
        network_name="student",
    )
    assert network.name == "student"
    images = random_images((8, 8, 3))
    twin = averaging.copy_of(network)
    np.testing.assert_allclose(network(images), twin(images), rtol=1e-6)
    seen, logits = models.features(network)(images)
    np.testing.assert_allclose(network.get_layer("logits")(seen), logits)
    for layer in twin.layers:
        assert getattr(layer, "synchronized", True)


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such_module:f", "cannot import no_such_module .* current folder"),
        (f"{HERE}:no_such", "tests.models_test has no function no_such"),
        (f"{HERE}:NOT_A_FUNCTION", "has no function NOT_A_FUNCTION"),
        (f"{HERE}:returns_a_layer", "it returned Dense, not a Keras model"),
        (f"{HERE}:returns_a_subclass", "input of Subclassed is not declared"),
        (f"{HERE}:with_another_input", r"its input has the shape \(9, 9, 3\)"),
        (f"{HERE}:with_uint8_input", "its input is uint8"),
        (f"{HERE}:with_another_output", r"its output has the shape \(4,\)"),
        (
            f"{HERE}:with_half_precision",
            "its output is bfloat16: give the last",
        ),
        (f"{HERE}:with_softmax", "its output is a softmax"),
        ("os:system", "failed with TypeError"),
    ],
)
def test_unusable_networks_of_ones_own(name, message):
    with pytest.raises(
        ValueError, match=f"--model={re.escape(name)}: .*{message}"
    ):
        models.build(name, (8, 8, 3), 3)


def test_settings_that_ones_own_network_must_have_inside():
    for options in ({"dropout": 0.5}, {"mean": [0.5] * 3, "std": [0.5] * 3}):
        with pytest.raises(ValueError, match="leave --dropout at 0"):
            models.build(f"{HERE}:users_network", (8, 8, 3), 3, **options)
    network = models.build(f"{HERE}:without_name", (8, 8, 3), 3)
    with pytest.raises(ValueError, match="--model. `logits`"):
        models.features(network)


def test_costs_by_hand():
    x = keras.Input((6, 5, 3))
    y = layers.Conv2D(4, 3, strides=2, padding="same")(x)  # 3x3x4
    y = layers.BatchNormalization()(y)
    inner = keras.Sequential(
        [keras.Input((3, 3, 4)), layers.DepthwiseConv2D(3, use_bias=False)]
    )  # 1x1x4
    y = layers.Flatten()(inner(y))
    y = own_layers.WeightNormDense(2, dtype="bfloat16")(layers.Dropout(0.5)(y))
    assert costs.of(keras.Model(x, y)) == costs.Costs(
        trainable=(27 * 4 + 4) + 8 + 36 + (8 + 2 + 2),
        averages=8,
        flops=2 * (27 * 4 * 9 + 36 * 1 + 8),
        activation_bytes=4 * (36 + 36 + 4 + 4 + 4) + 2 * 2,
    )


def test_costs_of_attention_by_hand():
    x = keras.Input((5, 6))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    found = costs.of(keras.Model(x, y))
    # Query, key, value and output; then 5 x 5 products for each feature.
    assert found.flops == 2 * (4 * 5 * 36 + 2 * 25 * 6)
    assert found.trainable == 4 * (36 + 6)


def test_costs_of_wrn_28_2():
    # Every scale has a quarter of the positions and four times the weights of
    # the one before, but the first shortcut and convolution of the first.
    stem = 32 * 32 * 9 * 3 * 16
    first = 32 * 32 * (16 * 32 + 9 * 16 * 32 + 7 * 9 * 32 * 32)
    second = 16 * 16 * (32 * 64 + 9 * 32 * 64 + 7 * 9 * 64 * 64)
    third = 8 * 8 * (64 * 128 + 9 * 64 * 128 + 7 * 9 * 128 * 128)
    found = costs.of(shapes("wrn_28_2"))
    assert found.flops == 2 * (stem + first + second + third + 128 * 10)
    assert found.flops == 428_706_304
    # Batch-norm averages: a mean and a variance for each input of a 3x3
    # convolution in the blocks, and of the pooling; a count for each layer.
    inputs = (16 + 7 * 32) + (32 + 7 * 64) + (64 + 7 * 128) + 128
    assert found.averages == 2 * inputs + 25
