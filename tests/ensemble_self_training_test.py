"""Ensemble self-training: the average by hand, the stages, calibration."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    softmax,
    tiny_algorithm,
    tiny_batch,
)
from tf_metassl import config
from tf_metassl.run import build, calibration, evaluation, experiment, stage

NAME = "ensemble_self_training"


class Predictor:
    """Stands for the networks a and b."""

    def __init__(self):
        rng = np.random.default_rng(3)
        shape = NUM_IMAGES, NUM_CLASSES
        self.values = {n: softmax(rng.normal(size=shape)) for n in "ab"}

    def probabilities(self, network):
        return self.values[network]


def test_the_students_loss_by_hand(float64):
    algorithm = tiny_algorithm(NAME, unlabeled_loss_weight=2.0)
    algorithm.learn_from(["a", "b"])
    predict = Predictor()
    algorithm.prepare(predict)
    assert algorithm.views.unlabeled == ("strong",)
    batch = tiny_batch()
    labeled, unlabeled = batch["labeled"], dict(batch["unlabeled"])
    index = np.random.default_rng(0).permutation(NUM_IMAGES)[:16]
    unlabeled["index"] = tf.constant(index)
    images = tf.concat([labeled["strong"], unlabeled["strong"]], 0)
    probs = softmax(algorithm.student(images, training=True).numpy())
    label = labeled["label"].numpy()
    mean = (predict.values["a"] + predict.values["b"])[index] / 2
    expected = -np.log(probs[np.arange(8), label]).mean()
    expected += 2.0 * -(mean * np.log(probs[8:])).sum(1).mean()
    loss = algorithm.compute_losses(
        {"labeled": labeled, "unlabeled": unlabeled}
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_a_member_sees_labeled_images_alone():
    algorithm = tiny_algorithm(NAME, learned_view="weak")
    assert algorithm.views.labeled == ("weak",)
    assert algorithm.views.unlabeled == ()
    labeled = tiny_batch()["labeled"]
    probs = softmax(algorithm.student(labeled["weak"], training=True).numpy())
    expected = -np.log(probs[np.arange(8), labeled["label"].numpy()]).mean()
    loss = algorithm.compute_losses({"labeled": labeled})
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.exhaustive
def test_members_differ_and_the_student_learns_their_calibrated_mean(tmp_path):
    given = {
        "algo": NAME,
        "num_members": 2,
        "num_steps": 3,
        "evaluate_every": 3,
        "batch_size": 8,
        "num_validation": 40,
        "verbose": 0,
        "run_dir": str(tmp_path / "run"),
    }
    settings = config.resolve(given)
    assert settings.hyperparameters.member_steps == 3
    run_dir = experiment.train(settings)
    built = build.build_experiment(settings)
    stages = dict(
        (found.name, algorithm)
        for found, algorithm in stage.restored_stages(built, run_dir)
    )
    assert list(stages) == ["train", "member_2", "student"]
    networks = [stages[name].deployable_model for name in ("train", "member_2")]
    logits = [evaluation.predict(built, network) for network in networks]
    assert not np.allclose(*logits)
    rows = built.splits.validation
    labels = built.source.train.labels[rows]
    fitted = [calibration.fit(values[rows], labels) for values in logits]
    assert all(one.num_images == 40 for one in fitted)
    expected = np.mean(
        [f.probabilities(v) for f, v in zip(fitted, logits, strict=True)], 0
    )
    np.testing.assert_allclose(
        softmax(stages["student"].predictions.numpy()), expected, atol=1e-6
    )
    rows = np.arange(3)
    assert stages["student"].select_unlabeled(rows) is rows
