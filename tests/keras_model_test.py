"""The methods as Keras models: compile, fit, evaluate, save and back."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_metassl
from tests.helpers import EXAMPLES, IMAGE_SHAPE, mostly_exhaustive, tiny_network
from tf_metassl import config
from tf_metassl.algorithms import ALGORITHMS, class_names
from tf_metassl.data import arrays, sources
from tf_metassl.data.datasets import DATASETS
from tf_metassl.errors import ConfigError
from tf_metassl.ops.schedules import WarmupSchedule
from tf_metassl.run import build, keras_model, stage
from tf_metassl.run.fitting import FittedClassifier

# So that every method trains all of its stages on a few images.
SHORT = {
    "meta_pseudo_labels": {"finetune_steps": 1},
    "reduced_meta_pseudo_labels": {"finetune_steps": 1},
    "noisy_student": {"confidence_threshold": 0.0, "num_rounds": 1},
    "ensemble_self_training": {"num_members": 1},
    **dict.fromkeys(
        ("simclr", "byol", "moco_v2", "pirl"), {"finetune_steps": 1}
    ),
    "pcl": {"finetune_steps": 1, "num_prototypes": 2, "cluster_start": 0},
    "billion_scale": {"finetune_steps": 1},
}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labeled = rng.integers(0, 256, (24, *IMAGE_SHAPE), np.uint8)
    unlabeled = rng.integers(0, 256, (40, *IMAGE_SHAPE), np.uint8)
    return labeled, rng.integers(0, 3, 24), unlabeled


def compiled(name="fixmatch", **options):
    keras.utils.set_random_seed(3)
    cls = {algo: cls for cls, algo in class_names().items()}[name]
    model = getattr(tf_metassl, cls)(
        tiny_network(), **SHORT.get(name, {}), **options
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def fit(model, images, unlabeled=True, **options):
    labeled, label, others = images
    pool = (others,) if unlabeled else ()
    options = {
        "weak": "none",
        "batch_size": 8,
        "steps_per_epoch": 2,
        "verbose": 0,
        **options,
    }
    return model.fit((labeled, label), *pool, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_exhaustive(ALGORITHMS, EXAMPLES))
def test_every_method_is_trained_saved_and_loaded(
    name, images, tmp_path, eager
):
    labeled, label, _ = images
    model = compiled(name)
    own = config.hyperparameters_class(name)
    history = fit(
        model, images, own.uses_unlabeled, validation_data=(labeled, label)
    )
    measured = model.evaluate(labeled, label, verbose=0, return_dict=True)
    logs = history.history
    assert np.isfinite(list(logs.values())).all() and history.epoch == [0]
    assert not {"pseudo_label_accuracy", "foreign_selected_share"} & logs.keys()
    assert model._training.algorithm.finished_steps == 2
    if not model._training.has_later_network:
        assert logs["val_accuracy"] == [measured["accuracy"]]
    expected = model.predict(labeled, verbose=0)
    assert np.mean(expected.argmax(1) == label) == pytest.approx(
        measured["accuracy"]
    )

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(labeled, verbose=0), expected)
    states = [
        [v.numpy() for v in one._training.algorithm.state_variables]
        for one in (model, loaded)
    ]
    for first, second in zip(*states, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["meta_semi", "meta_pseudo_labels"])
def test_a_loaded_model_goes_on_as_if_nothing_had_happened(
    name, images, tmp_path
):
    undisturbed = compiled(name)
    fit(undisturbed, images, epochs=3)
    # The callback of Keras, after every epoch.
    saved = tmp_path / "{epoch}.keras"
    first = compiled(name)
    fit(
        first,
        images,
        epochs=3,
        callbacks=[keras.callbacks.ModelCheckpoint(saved)],
    )
    second = keras.saving.load_model(tmp_path / "1.keras")
    with pytest.raises(ConfigError, match="trained for 2 steps"):
        fit(second, images, epochs=3, initial_epoch=2)
    with pytest.raises(ConfigError, match="trained on 64"):
        fit(second, (*images[:2], images[2][:8]), epochs=3, initial_epoch=1)
    history = fit(second, images, epochs=3, initial_epoch=1)
    assert history.epoch == [1, 2]
    expected = undisturbed.predict(images[0], verbose=0)
    for model in (first, second):
        got = model.predict(images[0], verbose=0)
        np.testing.assert_array_equal(got, expected)
    # To predict, the method need not be known.
    bare = keras.saving.load_model(tmp_path / "3.keras", compile=False)
    assert bare.predict(images[0], verbose=0).shape == expected.shape


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    mostly_exhaustive(["meta_semi", "meta_pseudo_labels"], ["meta_semi"]),
)
def test_it_trains_the_network_of_the_command_line(name, tmp_path):
    """Bit by bit, with the same network, settings and images."""
    digits = sources.load("digits")
    train, test = digits.train, digits.test
    settings = {
        "num_steps": 6,
        "evaluate_every": 3,
        "batch_size": 16,
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "weak_augmentation": "affine",
        "lr_schedule": "constant",
        "warmup_steps": 0,
        "model": "digits_cnn",
        "num_validation": 0,
    }
    # Meta-Semi as in the paper has no strong views.
    strong = {"strong": "affine_digits"} if name != "meta_semi" else {}
    settings |= {f"{k}_augmentation": v for k, v in strong.items()}
    data = (train.images[:80], train.labels[:80])
    fitted = tf_metassl.fit(
        name,
        labeled=data,
        unlabeled=train.images[80:200],
        test=(test.images, test.labels),
        class_names=digits.info.class_names,
        run_dir=str(tmp_path / "run"),
        **settings,
    )
    # The networks that a run begins with.
    resolved = fitted.config
    source = arrays.source(
        DATASETS["arrays"], data, train.images[80:200], test=data
    )
    begun = build.build_experiment(resolved, source=source).algorithm
    networks = {role: getattr(begun, role) for role in begun.roles}
    cls = {algo: cls for cls, algo in class_names().items()}[name]
    model = getattr(tf_metassl, cls)(
        networks.pop("student"), seed=resolved.seed, **networks
    )
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        weight_decay=1e-3,
    )
    model.fit(
        data,
        train.images[80:200],
        weak="affine",
        **strong,
        batch_size=16,
        unlabeled_batch_ratio=resolved.unlabeled_batch_ratio,
        epochs=2,
        steps_per_epoch=3,
        verbose=0,
    )
    experiment = build.build_experiment(resolved, source=source)
    *_, (_, last) = stage.restored_stages(experiment, fitted.run_dir)
    for expected, got in zip(
        last.deployable_model.get_weights(),
        model.trained_network().get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_datasets_functions_and_callbacks_of_keras(images, tmp_path):
    labeled, label, unlabeled = images

    def brighter(image, seed):
        return tf.image.stateless_random_brightness(
            tf.cast(image, tf.float32), 40.0, seed
        )

    results = []
    for pairs, others in [
        ((labeled, label), unlabeled),
        # Datasets of images, and of batches.
        (
            tf.data.Dataset.from_tensor_slices((labeled, label)),
            tf.data.Dataset.from_tensor_slices(unlabeled),
        ),
        (
            tf.data.Dataset.from_tensor_slices((labeled, label)).batch(5),
            tf.data.Dataset.from_tensor_slices(unlabeled).batch(7),
        ),
    ]:
        model = compiled()
        model.fit(
            pairs,
            others,
            weak=tf.image.stateless_random_flip_left_right,
            strong=brighter,
            batch_size=8,
            steps_per_epoch=2,
            verbose=0,
        )
        results.append(model.predict(labeled, verbose=0))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])

    # Keras' callbacks see the model and the measures of its network.
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, self.model, set(logs)))
            self.model.stop_training = epoch == 1

    validation = tf.data.Dataset.from_tensor_slices((labeled, label)).batch(9)
    model = compiled()
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", 0.5, patience=0)
    plateau.min_delta = 1e9
    history = fit(
        model,
        images,
        epochs=5,
        validation_data=validation,
        callbacks=[plateau, Spy()],
    )
    assert [(epoch, one is model) for epoch, one, _ in seen] == [
        (0, True),
        (1, True),
    ]
    assert {"val_loss", "val_accuracy", "loss"} <= seen[0][2]
    assert history.epoch == [0, 1]
    assert float(model.optimizer.learning_rate) < 0.1
    # One pass through 64 images, 16 a step.
    history = fit(
        compiled(unlabeled_loss_weight=0.5), images, steps_per_epoch=None
    )
    assert history.params["steps"] == 4


@pytest.mark.slow
def test_the_best_weights_are_those_of_the_network_that_predicts(images):
    labeled, label, _ = images
    model = compiled("mean_teacher", ema_decay=0.5)
    stop = keras.callbacks.EarlyStopping(
        "val_loss", mode="max", patience=2, restore_best_weights=True
    )
    history = fit(
        model,
        images,
        epochs=4,
        validation_data=(labeled, label),
        callbacks=[stop],
    )
    # The loss falls, so that the first epoch is the best one here.
    losses = history.history["val_loss"]
    assert len(losses) == 3 and np.argmax(losses) == 0
    loss, _ = model.evaluate(labeled, label, verbose=0)
    assert loss == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_further_networks_start_from_a_pretrained_one(images, tmp_path):
    network = tiny_network()
    network.layers[2].trainable = False
    frozen = network.layers[2].get_weights()
    model = tf_metassl.MetaPseudoLabels(network, finetune_steps=1)
    assert model.pretrained
    model.compile(keras.optimizers.SGD(0.1))
    fit(model, images)
    algorithm = model._training.algorithm
    for one in (algorithm.teacher, algorithm.ema, model.trained_network()):
        np.testing.assert_array_equal(one.layers[2].get_weights(), frozen)
    assert not model.trained_network().layers[2].trainable
    # The last layer is not that of the student.
    ours, theirs = (
        n.get_layer("logits").kernel.numpy()
        for n in (algorithm.student, algorithm.teacher)
    )
    assert not np.allclose(ours, theirs, atol=0.05)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, two in zip(loaded._initial(), model._initial(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not tf_metassl.MetaPseudoLabels(tiny_network()).pretrained


@pytest.mark.slow
def test_what_comes_out(images, tmp_path):
    labeled, _, _ = images
    model = compiled("mean_teacher", class_names=["a", "b", "c"])
    fit(model, images)
    network = model.trained_network()
    assert network.trainable and network.name == model.network.name
    np.testing.assert_array_equal(
        network.predict(labeled, verbose=0), model.predict(labeled, verbose=0)
    )
    model.export(tmp_path / "export" / "1")
    served = tf.saved_model.load(tmp_path / "export" / "1")
    answer = served.signatures["serving_default"](image=tf.constant(labeled))
    np.testing.assert_allclose(
        answer["probabilities"],
        tf.nn.softmax(model.predict(labeled, verbose=0)),
        atol=1e-6,
    )
    assert set(answer["class_name"].numpy()) <= {b"a", b"b", b"c"}


@pytest.mark.slow
def test_replicas_train_what_one_device_trains(images, two_replicas, float64):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            model = tf_metassl.FixMatch(
                tiny_network(sync=True), confidence_threshold=0.0
            )
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
        fit(model, images)
        results.append(model.network.get_weights())
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9)


def softmax_network():
    network = tiny_network()
    return keras.Model(network.input, keras.layers.Softmax()(network.output))


def test_what_cannot_be_used_is_refused(images):
    labeled, label, unlabeled = images
    network = tiny_network()
    make = functools.partial(pytest.raises, ConfigError)
    with make(match="its output is a softmax"):
        tf_metassl.MetaSemi(softmax_network())
    with make(match="not a Keras model"):
        tf_metassl.MetaSemi(lambda x: x)
    with make(match="which is not fixed"):
        tf_metassl.MetaSemi(
            keras.Sequential(
                [
                    keras.Input((None, None, 1)),
                    keras.layers.GlobalAveragePooling2D(),
                    keras.layers.Dense(3),
                ]
            )
        )
    with make(match="learning_rate is no hyperparameter.*ema_decay"):
        tf_metassl.MetaSemi(network, learning_rate=0.1)
    with make(match="ema_decay"):
        tf_metassl.MetaSemi(network, ema_decay=3.0)
    with make(match="FixMatch is fixmatch"):
        tf_metassl.FixMatch(network, algo="meta_semi")
    with make(match="fixmatch has no teacher"):
        tf_metassl.FixMatch(network, teacher=tiny_network())
    with make(match="expected 3, one for each"):
        tf_metassl.FixMatch(network, class_names=["a"])
    with pytest.raises(ConfigError, match="meta_semy"):
        tf_metassl.SemiSupervisedModel(network, algo="meta_semy")
    # A recipe is a method with settings.
    strong = tf_metassl.SemiSupervisedModel(network, algo="meta_semi_strong")
    assert strong._settings().hyperparameters.learned_view == "strong"

    model = tf_metassl.FixMatch(network)
    with make(match="call compile"):
        fit(model, images)
    with make(match="teacher_optimizer: --algo=fixmatch has no teacher"):
        model.compile("sgd", teacher_optimizer="sgd")
    model.compile("sgd")
    endless = tf.data.Dataset.from_tensor_slices((labeled, label)).repeat()
    for arguments, options, message in [
        (((labeled / 255.0, label), unlabeled), {}, "expected uint8"),
        (((labeled, label + 1), unlabeled), {}, "3 logits.*label 3"),
        ((endless, unlabeled), {}, "no end"),
        ((labeled, unlabeled), {}, "expected a pair"),
        (((labeled[:, 1:], label), unlabeled[:, 1:]), {}, "expects images of"),
        (((labeled, label), unlabeled), {"weak": "flop"}, "expected one of"),
        (((labeled, label), unlabeled), {"batch_size": 0}, "batch_size"),
        (((labeled, label), unlabeled), {"epochs": 0}, "less than epochs=0"),
        (
            ((labeled, label), unlabeled),
            {"callbacks": [keras.callbacks.BackupAndRestore("x")]},
            "initial_epoch",
        ),
    ]:
        with make(match=message):
            model.fit(*arguments, **{"weak": "none", "verbose": 0, **options})
    supervised = tf_metassl.Supervised(tiny_network())
    supervised.compile("sgd")
    with make(match="strong: --algo=supervised has no strong views"):
        supervised.fit((labeled, label), weak="none", strong="uda", verbose=0)
    swa = tf_metassl.FastSwa(tiny_network())
    swa.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))
    )
    with make(match="a schedule of its own"):
        fit(swa, images)


def test_a_method_with_a_schedule_makes_one_of_the_rate():
    model = compiled("fast_swa")
    settings = model._settings(num_steps=100, batch_size=8)
    optimizer = model._build_optimizer(settings, set(), "student")
    assert optimizer is model.optimizer
    schedule = optimizer._learning_rate
    assert isinstance(schedule, WarmupSchedule)
    assert (schedule.num_steps, schedule.cycle_steps > 0) == (100, True)
    teacher = compiled("meta_pseudo_labels", teacher_learning_rate=0.3)
    settings = teacher._settings(num_steps=100, batch_size=8)
    used = set()
    own = teacher._build_optimizer(settings, used, "student")
    other = teacher._build_optimizer(settings, used, "teacher")
    assert own is teacher.optimizer and other is not own
    assert float(other.learning_rate) == pytest.approx(0.3)
    assert float(own.learning_rate) == pytest.approx(0.1)
    assert other.momentum == 0.9


def test_its_configuration_is_plain_data():
    model = compiled("meta_semi", ema_decay=0.5)
    text = json.dumps(model.get_config())
    again = keras_model.MetaSemi.from_config(json.loads(text))
    assert again.hyperparameters == {"ema_decay": 0.5}
    assert "MetaSemi" in dir(keras_model)
    assert FittedClassifier is tf_metassl.FittedClassifier
    with pytest.raises(AttributeError, match="MetaSemy"):
        tf_metassl.MetaSemy  # noqa: B018
