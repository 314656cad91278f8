"""Training from Python gives what the command line gives."""

import re

import numpy as np
import pytest
import tensorflow as tf

import tf_metassl
from tests.image_folders import write_classes
from tf_metassl import config
from tf_metassl.data import sources
from tf_metassl.errors import ConfigError
from tf_metassl.run import checkpoints, experiment, resume

SHORT = {"num_steps": 4, "batch_size": 8, "num_validation": 60}


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


@pytest.fixture(scope="module")
def fitted(digits, tmp_path_factory):
    train, test = digits.train, digits.test
    return tf_metassl.fit(
        "fixmatch",
        labeled=(train.images, train.labels),
        test=(test.images, test.labels),
        class_names=digits.info.class_names,
        num_labeled=30,
        model="digits_cnn",
        weak_augmentation="affine",
        strong_augmentation="affine_digits",
        **{"learning_rate": 0.05, "weight_decay": 1e-4, "ema_decay": 0.9},
        **SHORT,
        run_dir=str(tmp_path_factory.mktemp("fit") / "run"),
    )


def variables(run_dir):
    """All values of the newest checkpoint, name -> array."""
    folder = resume.checkpoint_folder(run_dir, "train")
    newest = checkpoints.newest_whole(folder)
    reader = tf.train.load_checkpoint(
        str(next(newest.path.glob("*.index")))[:-6]
    )
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "OBJECT_GRAPH" not in name
    }


@pytest.mark.slow
def test_arrays_train_the_network_of_the_command_line(fitted, tmp_path):
    """Bit by bit: the same images in the same order, and the same settings."""
    given = {
        "algo": "fixmatch",
        "learning_rate": 0.05,
        "weight_decay": 1e-4,
        "ema_decay": 0.9,
        "verbose": 0,
        "run_dir": str(tmp_path / "run"),
    }
    run_dir = experiment.train(config.resolve({**given, **SHORT}))
    expected, found = variables(run_dir), variables(fitted.run_dir)
    assert expected.keys() == found.keys() and len(found) > 20
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def own_network(image_shape, num_classes):
    return tf.keras.Sequential(
        [
            tf.keras.Input(image_shape),
            tf.keras.layers.Rescaling(1 / 255),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(num_classes),
        ]
    )


@pytest.mark.slow
def test_a_function_that_makes_the_network(digits):
    train = digits.train
    fitted = tf_metassl.fit(
        "meta_semi",
        labeled=(train.images, train.labels),
        num_labeled=30,
        model=own_network,
        **SHORT,
    )
    assert fitted.config.model == f"{__name__}:own_network"
    assert fitted.predict(train.images[:3]).shape == (3,)
    # What cannot be made again is refused.
    for model in (lambda shape, classes: None, own_network((8, 8, 1), 3), 3):
        with pytest.raises(ConfigError, match="expected the name of a network"):
            tf_metassl.fit(labeled=(train.images, train.labels), model=model)


def test_what_a_fitted_classifier_does(fitted, digits, tmp_path):
    images, labels = digits.test.images, digits.test.labels
    probs = fitted.predict_proba(images)
    assert probs.shape == (397, 10)
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(fitted.predict(images), probs.argmax(1))
    # Without the axis of channels.
    again = fitted.predict_proba(images[..., 0])
    np.testing.assert_array_equal(again, probs)
    measured = fitted.evaluate(images, labels)
    assert measured["accuracy"] == pytest.approx(
        fitted.results[-1]["test_accuracy"]
    )
    own = probs[np.arange(397), labels]
    assert measured["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    made, confidence = fitted.pseudo_label(images, min_confidence=0.3)
    assert np.array_equal(made >= 0, confidence >= 0.3)
    assert fitted.history[-1]["step"] == 4
    assert fitted.report.startswith("# fixmatch")
    assert fitted.class_names == digits.info.class_names
    folder = fitted.export(tmp_path / "model" / "1")
    served = tf.saved_model.load(folder).signatures["serving_default"]
    np.testing.assert_allclose(
        served(image=tf.constant(images))["confidence"], confidence, atol=1e-5
    )


@pytest.mark.slow
def test_datasets_are_arrays(digits, tmp_path):
    train = digits.train
    few = np.concatenate(
        [np.flatnonzero(train.labels == k)[:6] for k in range(3)]
    )
    pair = train.images[few], train.labels[few]
    common = {"model": "digits_cnn", **SHORT, "num_validation": 0}
    runs = {
        "arrays": (pair, train.images[:50]),
        "datasets": (
            tf.data.Dataset.from_tensor_slices(pair),
            tf.data.Dataset.from_tensor_slices(train.images[:50]),
        ),
    }
    found = []
    for name, (labeled, unlabeled) in runs.items():
        done = tf_metassl.fit(
            "fixmatch",
            labeled=labeled,
            unlabeled=unlabeled,
            run_dir=str(tmp_path / name),
            **common,
        )
        found.append(variables(done.run_dir))
        assert done.class_names == ("0", "1", "2")
        assert "held out because no others are given" in done.report
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value)


@pytest.mark.slow
def test_folders_are_those_of_the_command_line(tmp_path):
    write_classes(tmp_path / "labeled", count=6)
    write_classes(tmp_path / "test", count=2, start=900)
    done = tf_metassl.fit(
        "supervised",
        labeled=tmp_path / "labeled",
        test=str(tmp_path / "test"),
        model="digits_cnn",
        num_steps=2,
        batch_size=8,
        cache_dir=str(tmp_path / "cache"),
        run_dir=str(tmp_path / "run"),
    )
    assert done.config.dataset == "folder"
    files = sorted((tmp_path / "test").rglob("*.png"))
    assert done.predict(files).shape == (4,)
    with pytest.raises(ConfigError, match="nothing.png"):
        done.predict([tmp_path / "nothing.png"])


IMAGES = np.zeros((6, 8, 8, 1), np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    "given, words",
    (
        ({"labeled": IMAGES}, "labeled: expected a pair"),
        ({"labeled": (IMAGES / 255, LABELS)}, "expected uint8 images"),
        ({"labeled": (IMAGES[0, 0], LABELS)}, "got shape (8, 1)"),
        ({"labeled": (IMAGES, LABELS[:5])}, "expected 6 integer labels"),
        ({"labeled": (IMAGES, LABELS / 2)}, "integer labels, one per image"),
        ({"labeled": (IMAGES, LABELS - 2)}, "labels from -1 to"),
        ({"labeled": (IMAGES, -np.ones(6, int))}, "no image has a label"),
        ({"unlabeled": IMAGES[:, :4]}, "unlabeled: expected images of shape"),
        ({"unlabeled": "/x"}, "labeled: expected a folder, as for unlabeled"),
        ({"test": (IMAGES, LABELS + 1)}, "test: expected labels from 0 to 1"),
        ({"class_names": ["a"]}, "class_names: expected at least 2 names"),
        ({"labeled": (IMAGES[:2], LABELS[:2])}, "test: nothing can be held"),
        ({"num_stepss": 3}, "Unknown setting 'num_stepss'"),
        ({"num_steps": "3"}, "--num_steps='3': must be of type int"),
        ({"image_size": 3}, "no effect with --dataset=arrays"),
        ({"labeled": "/x", "class_names": ["a"]}, "Leave it out"),
    ),
)
def test_what_cannot_be_used_is_refused(given, words):
    given = {"labeled": (IMAGES, LABELS), **given}
    with pytest.raises(ConfigError, match=re.escape(words)):
        tf_metassl.fit("fixmatch", **given)


def test_the_command_line_says_where_the_images_were():
    settings = config.resolve({"dataset": "arrays"})
    with pytest.raises(ConfigError, match="were given to tf_metassl.fit"):
        sources.load("arrays", settings)


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = tf_metassl.fitt
