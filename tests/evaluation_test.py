"""Evaluated networks and the rows of the final table."""

import json
import types

import keras
import numpy as np
import pytest

from tests.helpers import tiny_algorithm
from tf_metassl import config
from tf_metassl.errors import CheckpointError, ConfigError
from tf_metassl.run import evaluation, report
from tf_metassl.run.build import build_experiment


@pytest.fixture(scope="module")
def experiment():
    """Evaluated in batches that do not divide any split."""
    settings = {"num_labeled": 30, "num_validation": 50, "eval_batch_size": 32}
    return build_experiment(config.resolve({"algo": "supervised", **settings}))


@pytest.mark.parametrize("split", ["labeled", "validation", "test"])
def test_accuracy_is_that_of_the_images_of_the_split(experiment, split):
    algorithm = experiment.algorithm
    images = experiment.images(split)
    pixels = images.read(range(len(images)))
    found = evaluation.evaluate(experiment, algorithm, split)
    assert set(found) == {
        f"{role}_{name}"
        for role in ("student", "ema")
        for name in ("accuracy", "macro_f1")
    }
    for role, network in algorithm.evaluated_networks.items():
        predicted = np.argmax(network(pixels, training=False), axis=1)
        expected = np.mean(predicted == images.labels)
        assert found[f"{role}_accuracy"] == pytest.approx(expected, abs=1e-6)


def test_predictions_are_in_the_order_of_the_rows(experiment):
    network, train = experiment.algorithm.student, experiment.source.train
    found = evaluation.predict(experiment, network)
    assert found.shape == (len(train), 10)
    pixels = train.read(range(len(train)))
    expected = network(pixels, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ema_decay, role", [(0.9, "ema"), (0.0, "student")])
def test_the_average_is_deployed_if_there_is_one(ema_decay, role):
    algorithm = tiny_algorithm("supervised", ema_decay=ema_decay)
    assert evaluation.deployable_role(algorithm) == role


def test_final_metrics_have_a_row_per_network(monkeypatch):
    numbers = {
        "validation": {"student_accuracy": 0.1, "ema_accuracy": 0.2},
        "test": {
            "student_accuracy": 0.3,
            "ema_accuracy": 0.4,
            "ema_top_5_accuracy": 0.9,
            "ema_loss": 5.0,
        },
    }
    monkeypatch.setattr(
        evaluation, "evaluate", lambda _, __, split: numbers[split]
    )
    algorithm = tiny_algorithm("supervised", ema_decay=0.9)
    experiment = types.SimpleNamespace(has_validation=True, real_labels=None)
    assert evaluation.final_metrics(experiment, algorithm, "finetune") == [
        {
            "stage": "finetune",
            "network": "student",
            "deployed": False,
            "validation_accuracy": 0.1,
            "test_accuracy": 0.3,
        },
        {
            "stage": "finetune",
            "network": "ema",
            "deployed": True,
            "validation_accuracy": 0.2,
            "test_accuracy": 0.4,
            "test_top_5_accuracy": 0.9,
        },
    ]


def test_without_validation_images_only_the_test_images_are_evaluated():
    built = build_experiment(
        config.resolve({"algo": "supervised", "num_validation": 0})
    )
    assert built.examples.shape == (16, 8, 8, 1)
    rows = evaluation.final_metrics(built, built.algorithm, "train")
    assert {"test_accuracy", "test_macro_f1"} < set(rows[0])
    assert not any(name.startswith("validation") for name in rows[0])
    assert "validation" not in report.table(rows)


def test_the_median_is_taken_of_every_number():
    rows = [
        {"network": "ema", "deployed": True, "test_accuracy": accuracy}
        for accuracy in (0.5, 0.9, 0.6, 0.8)
    ]
    assert evaluation.median_row(rows) == {
        "network": "ema",
        "deployed": True,
        "test_accuracy": pytest.approx(0.7),
    }


def test_too_few_checkpoints_for_a_median(tmp_path):
    algorithm = tiny_algorithm("supervised")
    with pytest.raises(CheckpointError, match="has kept 0 checkpoints"):
        evaluation.median_metrics(None, algorithm, "train", tmp_path, 3)


def test_precision_on_sets_of_labels_is_in_the_final_table(tmp_path):
    settings = {"algo": "supervised", "num_validation": 0}
    plain = build_experiment(config.resolve(settings))
    logits = evaluation.predict(
        plain, plain.algorithm.ema, plain.images("test")
    )
    best = logits.argmax(axis=1)
    # Right, right among others, wrong; all others have no label.
    sets = [[] for _ in best]
    sets[3], sets[5] = [int(best[3])], sorted({int(best[5]), 4, 8})
    sets[7] = [int(best[7] + 1) % 10]
    path = tmp_path / "real.json"
    path.write_text(json.dumps(sets))
    keras.utils.set_random_seed(0)
    built = build_experiment(
        config.resolve({**settings, "real_labels": str(path)})
    )
    built.algorithm.ema.set_weights(plain.algorithm.ema.get_weights())
    rows = evaluation.final_metrics(built, built.algorithm, "train")
    assert rows[-1]["network"] == "ema"
    assert rows[-1]["test_real_precision"] == pytest.approx(2 / 3)
    assert "test ReaL" in report.table(rows)
    path.write_text(json.dumps(sets[1:]))
    with pytest.raises(ConfigError, match=f"{len(sets)} test images, got"):
        build_experiment(built.config)
