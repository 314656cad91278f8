"""Noisy Student: filter, balance, rounds, and going on after a kill."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    all_values,
    assert_same,
    run,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
)
from tf_metassl import config
from tf_metassl.algorithms.noisy_student import balanced
from tf_metassl.errors import ConfigError
from tf_metassl.ops import metrics
from tf_metassl.run import evaluation
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import build_experiment


def test_the_most_confident_are_taken_and_the_few_repeated():
    probs = np.array(
        [
            [0.6, 0.2, 0.2],
            [0.8, 0.1, 0.1],
            [0.3, 0.35, 0.35],
            [0.7, 0.2, 0.1],
            [0.1, 0.5, 0.4],
            [0.9, 0.0, 0.1],
        ]
    )
    chosen = balanced(probs, 0.4, 3)
    # Class 0: the best three of four; class 1: one, three times; class 2: none.
    assert chosen.tolist() == [5, 1, 3, 4, 4, 4]
    assert balanced(probs, 0.35, 2).tolist() == [5, 1, 4, 2]
    assert balanced(probs, 0.95, 2).size == 0


def student_of(logits, **hp):
    """An algorithm in its first round, taught by given predictions."""
    algorithm = tiny_algorithm("noisy_student", **hp)
    algorithm.learn_from("teacher")

    def predict(network):
        assert network == "teacher"
        return logits

    algorithm.prepare(predict)
    return algorithm


def random_logits():
    shape = (NUM_IMAGES, NUM_CLASSES)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_the_teachers_stage_sees_labeled_images_alone():
    algorithm = tiny_algorithm("noisy_student", label_smoothing=0.0)
    assert algorithm.views.unlabeled == ()
    batch = tiny_batch()
    labeled = batch["labeled"]
    probs = softmax(algorithm.student(labeled["strong"], training=True).numpy())
    expected = -np.log(probs[np.arange(8), labeled["label"].numpy()]).mean()
    loss = algorithm.compute_losses({"labeled": labeled})
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    rows = np.array([4, 2])
    assert algorithm.select_unlabeled(rows) is rows


@pytest.mark.parametrize("kind", ("soft", "one_hot"))
def test_the_students_loss_by_hand(kind, float64):
    logits = random_logits()
    algorithm = student_of(
        logits,
        pseudo_label=kind,
        label_smoothing=0.3,
        unlabeled_loss_weight=2.0,
    )
    assert algorithm.views.unlabeled == ("strong",)
    batch = tiny_batch()
    labeled, unlabeled = batch["labeled"], dict(batch["unlabeled"])
    index = np.random.default_rng(0).permutation(NUM_IMAGES)[:16]
    unlabeled["index"] = tf.constant(index)
    images = tf.concat([labeled["strong"], unlabeled["strong"]], 0)
    probs = softmax(algorithm.student(images, training=True).numpy())
    target = softmax(logits[index])
    if kind == "one_hot":
        target = np.eye(NUM_CLASSES)[target.argmax(1)]
    label = np.eye(NUM_CLASSES)[labeled["label"].numpy()] * 0.7 + 0.1
    expected = -(label * np.log(probs[:8])).sum(1).mean()
    expected -= 2.0 * (target * np.log(probs[8:])).sum(1).mean()
    loss = algorithm.compute_losses(
        {"labeled": labeled, "unlabeled": unlabeled}
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_pool_is_filtered_and_balanced():
    logits = random_logits() * 3.0
    algorithm = student_of(logits, confidence_threshold=0.8)
    rows = np.arange(5, 50)
    chosen = algorithm.select_unlabeled(rows)
    probs = softmax(logits)[chosen]
    assert probs.max(1).min() >= 0.8
    assert np.bincount(probs.argmax(1)).tolist() == [15, 15, 15]
    assert set(chosen) <= set(rows)
    unsure = student_of(logits * 0, confidence_threshold=0.34)
    with pytest.raises(ValueError, match="confidence_threshold=0.34. Lower it"):
        unsure.select_unlabeled(rows)


def test_a_students_step_is_the_same_on_two_replicas(two_replicas, float64):
    logits = random_logits()

    def trained(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm(
                "noisy_student",
                network=lambda role: tiny_network(role, sync=True),
            )
        algorithm.learn_from("teacher")
        algorithm.prepare(lambda network: logits)
        dataset = tf.data.Dataset.from_tensors(tiny_batch(16, 32))
        step = algorithm.make_train_function()
        step(iter(strategy.experimental_distribute_dataset(dataset)))
        return all_values(algorithm)

    assert_same(
        trained(tf.distribute.get_strategy()),
        trained(two_replicas),
        rtol=1e-6,
        atol=1e-9,
    )


SHORT = {
    "algo": "noisy_student",
    "num_steps": 3,
    "round_steps": 2,
    "num_rounds": 2,
    "batch_size": 8,
    "confidence_threshold": 0.0,
    "verbose": 0,
}


@pytest.mark.exhaustive
def test_rounds_teach_one_another_and_can_be_resumed(tmp_path):
    """A run that is killed between rounds ends like one that is not."""

    def stages(run_dir, count):
        run_dir.mkdir(exist_ok=True)
        built = build_experiment(config.resolve(SHORT), run_dir)
        algorithms = []
        for stage in stage_lib.stages(built)[:count]:
            algorithm = stage.build()
            stage_lib.run_stage(
                stage_lib.StageRun(built, algorithm, stage, run_dir, run_dir)
            )
            algorithms.append(algorithm)
        return built, algorithms

    built, (teacher, first, second) = stages(tmp_path / "whole", 3)
    for one, other in ((teacher, first), (first, second)):
        np.testing.assert_allclose(
            other.predictions,
            evaluation.predict(built, one.deployable_model),
            rtol=1e-5,
            atol=1e-5,
        )
    start = all_values(first)["student"], all_values(second)["student"]
    assert not np.array_equal(start[0][0], start[1][0])

    stages(tmp_path / "killed", 2)
    _, again = stages(tmp_path / "killed", 3)
    assert_same(all_values(second), all_values(again[2]))
    # The restored table, too: it was not computed again.
    np.testing.assert_array_equal(first.predictions, again[1].predictions)


@pytest.mark.exhaustive
def test_a_student_is_the_same_under_xla(float64):
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        algorithm = student_of(random_logits(), jit_compile=jit_compile)
        run(algorithm, tiny_batch())
        results.append(all_values(algorithm))
    assert_same(*results, rtol=1e-7, atol=1e-9)


def test_a_teacher_without_confidence_ends_in_one_message():
    built = build_experiment(
        config.resolve({"algo": "noisy_student", "confidence_threshold": 0.9})
    )
    student = built.algorithm.rebuild(6)
    student.learn_from("teacher")
    # All classes are equally likely.
    student.prepare(lambda network: np.zeros(student.predictions.shape))
    with pytest.raises(ConfigError, match="Lower it, and add --allow_changed="):
        built.pools(student)


def test_the_teachers_stage_measures_no_pseudo_labels():
    algorithm = tiny_algorithm("noisy_student")
    algorithm.train_step(tiny_batch())
    read = metrics.reader(
        algorithm.train_metrics, algorithm.distribute_strategy
    )
    assert metrics.measured(read()) == {"loss", "labeled_accuracy"}
