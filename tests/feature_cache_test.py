"""Training on stored features of frozen layers."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import values
from tf_metassl import config
from tf_metassl.contract import view_kind
from tf_metassl.data import pipeline, sources
from tf_metassl.data.cached_views import CachedViews
from tf_metassl.errors import ConfigError
from tf_metassl.run import (
    build,
    classifier,
    experiment,
    feature_cache,
    initial_weights,
)

SETTINGS = {
    "dataset": "digits",
    "num_steps": 4,
    "evaluate_every": 2,
    "batch_size": 16,
    "num_validation": 20,
    "verbose": 0,
    "freeze": "backbone",
    "cache_features": 2,
}
CHANGING = ("enaet", "remixmatch", "vat", "lga", "swwae", "cc_gan", "pirl")
# Their views are not stored.
CONTRASTIVE = ("simclr", "byol", "moco_v2", "pcl")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests of this file, as the runs of a user share it."""
    folder = tmp_path_factory.getbasetemp() / "feature_cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def settings(algo, **given):
    return config.resolve({"algo": algo, **SETTINGS, **given})


def test_a_stored_view_is_drawn_for_each_image():
    policy = CachedViews(first=3, count=2)
    images = np.arange(400 * 5, dtype=np.float32).reshape(400, 5, 1, 1)
    seed = tf.constant([1, 2])
    draw = policy.draw(seed, 400, (5, 1, 1), (1, 1))
    seen = policy.apply(images, draw, (1, 1))
    assert seen.shape == (400, 1, 1, 1) and seen.dtype == tf.float32
    view = seen.numpy().ravel() - images[:, 0, 0, 0]
    assert set(view) == {3.0, 4.0} and 0.4 < np.mean(view == 3) < 0.6
    np.testing.assert_array_equal(view, draw["view"])


def test_features_are_those_of_the_views():
    built = build.build_experiment(settings("fixmatch"))
    source, features = built.source, built.features
    assert features.train.pixels.shape == (len(source.train), 5, 1, 128)
    policies = pipeline.augmentation(source, built.config)
    first = source.train.gather(np.arange(256))
    apply = pipeline_features(built.backbone)
    np.testing.assert_allclose(
        features.train.pixels[:256, 2, 0], apply(first), rtol=1e-5, atol=1e-6
    )
    for kind, number, row in (("weak", 1, 1), ("strong", 0, 3)):
        view, _ = pipeline.view_of(
            first,
            kind,
            tf.constant([0, number], tf.int32),
            256,
            slice(0, 256),
            policies,
            (8, 8),
        )
        stored = features.train.pixels[:256, row, 0]
        np.testing.assert_allclose(stored, apply(view), rtol=1e-5, atol=1e-6)
        assert np.abs(stored - features.train.pixels[:256, 2, 0]).max() > 1e-3
    np.testing.assert_allclose(
        features.test.pixels[:10, 0, 0],
        apply(source.test.gather(np.arange(10))),
        rtol=1e-5,
        atol=1e-6,
    )


def pipeline_features(network):
    from tf_metassl import models

    return lambda images: models.features(network)(images, training=False)[0]


def test_the_features_are_computed_once(cache, capsys):
    build.build_experiment(settings("fixmatch"))
    before = sorted(p.stat().st_mtime_ns for p in cache.rglob("*.f32"))
    capsys.readouterr()
    # Neither the method nor the seed of batches changes them.
    build.build_experiment(settings("mixmatch", split_seed=1))
    assert "Computing" not in capsys.readouterr().err
    after = sorted(p.stat().st_mtime_ns for p in cache.rglob("*.f32"))
    assert before == after


@pytest.mark.slow
@pytest.mark.parametrize(
    "algo",
    # One with each use of views, heads, teachers and stages.
    (
        *("supervised_mixup", "ict", "sntg", "fixmatch", "mixmatch"),
        *("meta_semi", "meta_pseudo_labels", "noisy_student"),
    ),
)
def test_methods_train_on_features(algo):
    built = build.build_experiment(settings(algo))
    algorithm = built.algorithm
    kinds = {
        view_kind(view)
        for view in (*algorithm.views.labeled, *algorithm.views.unlabeled)
    }
    assert kinds <= {"weak", "strong", "clean"}
    before = values(algorithm.student)
    algorithm.fit(
        built.training_data(algorithm, 0),
        steps_per_epoch=2,
        shuffle=False,
        verbose=0,
    )
    changed = [
        np.abs(new - old).max()
        for old, new in zip(before, values(algorithm.student), strict=True)
    ]
    assert len(changed) == 2 and min(changed) > 0


@pytest.mark.parametrize("algo", CHANGING)
def test_methods_that_change_images_refuse_features(algo):
    with pytest.raises(ConfigError, match="changes images"):
        settings(algo)
    with pytest.raises(ConfigError, match="--freeze=backbone"):
        settings("fixmatch", freeze="none")


@pytest.mark.parametrize("algo", CONTRASTIVE)
def test_methods_with_contrastive_views_refuse_features(algo):
    with pytest.raises(ConfigError, match="reads contrastive ones"):
        settings(algo)


def test_the_exported_network_takes_images(tmp_path):
    run = experiment.train(settings("fixmatch", run_dir=str(tmp_path / "run")))
    again = settings("fixmatch", run_dir=str(run))
    built = build.build_experiment(again)
    images = built.source.test.take(np.arange(50))
    # Without the images of the run, as on another machine.
    of_run = classifier.from_run(again, run)
    from_bytes = classifier.from_saved_model(run / "export" / "1")
    exported, *_ = of_run.networks.values()
    logits = exported(images.images)
    served = from_bytes.networks["export"](images.images)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        np.exp(served), probs / probs.sum(1, keepdims=True), atol=1e-5
    )
    layers = initial_weights.load(config.resolve({"init_weights": str(run)}))
    stored = built.backbone.get_weights()
    given = [value for layer in layers for value in layer.get_weights()]
    assert len(given) == len(stored) - 2
    # A run with other frozen layers is not the same run.
    (run / feature_cache.WEIGHTS).write_bytes(b"")
    with pytest.raises(ConfigError, match="frozen layers"):
        classifier.from_run(again, run)


def test_evaluation_agrees_with_the_whole_network():
    built = build.build_experiment(settings("fixmatch"))
    whole = built.whole(built.algorithm.deployable_model)
    images = built.source.test.images
    expected = np.asarray(whole(images, training=False)).argmax(1)
    from tf_metassl.run import evaluation

    found = evaluation.evaluate(built, built.algorithm, "test")
    accuracy = np.mean(expected == built.source.test.labels)
    assert found["ema_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_sources_of_features_have_their_dtype():
    pixels = np.zeros((2, 1, 1, 3), np.float32)
    labels = np.zeros(2, np.int32)
    assert sources.Images(pixels, labels).gather([0]).dtype == tf.float32
    with pytest.raises(ValueError, match="uint8"):
        sources.Images(pixels.astype(np.float64), labels)
