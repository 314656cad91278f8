"""Billion-scale SSL: the ranking, the student's labels, and its stages."""

import numpy as np
import pytest

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    run,
    softmax,
    tiny_algorithm,
    tiny_batch,
    training_logits,
)
from tf_metassl import config
from tf_metassl.algorithms.billion_scale import first_of_each_class
from tf_metassl.run import evaluation
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import build_experiment

PROBS = np.array(
    [
        [0.6, 0.3, 0.1],
        [0.8, 0.1, 0.1],
        [0.3, 0.4, 0.3],
        [0.5, 0.1, 0.4],
        [0.1, 0.5, 0.4],
    ]
)


def rows(table):
    return [np.flatnonzero(table[:, k]).tolist() for k in range(3)]


def test_the_first_of_each_class_by_hand():
    # Images 0 and 2 are ranked for the second class although it is not 0's
    # most probable one.
    assert rows(first_of_each_class(PROBS, 2, 3)) == [[0, 1], [2, 4], [3, 4]]
    # Ranked for its best class only: none is left for the last class.
    assert rows(first_of_each_class(PROBS, 2, 1)) == [[0, 1], [2, 4], []]
    assert rows(first_of_each_class(PROBS, 9, 1)) == [[0, 1, 3], [2, 4], []]
    assert first_of_each_class(PROBS, 9, 10).all()


def student_of(probs, **hp):
    """An algorithm in the student's stage, taught by given predictions."""
    algorithm = tiny_algorithm("billion_scale", **hp)
    logits = np.zeros((NUM_IMAGES, NUM_CLASSES), np.float32)
    logits[: len(probs)] = np.log(probs)
    algorithm.learn_from("teacher")
    algorithm.prepare(lambda network: logits)
    return algorithm


def test_an_image_is_in_the_pool_once_for_each_of_its_classes():
    algorithm = student_of(PROBS, images_per_class=2, classes_per_image=3)
    pool = algorithm.select_unlabeled(np.array([4, 3, 2, 1, 0]))
    assert sorted(pool) == [0, 1, 2, 3, 4, 4]
    table = algorithm.ranked.numpy()
    assert table.sum() == 6
    np.testing.assert_array_equal(table[4], [0, 1, 1])
    # Half of 5 / 3, rounded up.
    algorithm = student_of(PROBS)
    assert sorted(algorithm.select_unlabeled(np.arange(5))) == [1, 3, 4]


def test_the_students_loss_by_hand(float64):
    algorithm = student_of(PROBS)
    table = np.zeros((NUM_IMAGES, NUM_CLASSES), np.float32)
    table[:16, 1] = 1
    table[3] = [1, 0, 1]
    algorithm.ranked.assign(table)
    batch = tiny_batch()
    unlabeled = batch["unlabeled"]
    label = np.ones(16, int)
    label[3] = 0 if unlabeled["label_draw"].numpy()[3] < 0.5 else 2
    (logits,) = training_logits(algorithm.student, unlabeled["weak"])
    losses = -np.log(softmax(logits)[np.arange(16), label])
    # No labeled image is seen.
    loss = algorithm.compute_losses({"unlabeled": unlabeled})
    np.testing.assert_allclose(float(loss), losses.mean(), rtol=1e-6)
    correct = label == unlabeled["oracle_label"].numpy()
    assert algorithm.metric("pseudo_label_accuracy") == pytest.approx(
        correct.mean()
    )


def test_the_teacher_sees_labeled_images_alone():
    algorithm = tiny_algorithm("billion_scale")
    assert algorithm.views.unlabeled == ()
    pool = np.array([4, 2])
    assert algorithm.select_unlabeled(pool) is pool
    run(algorithm, tiny_batch())


def test_stages_follow_each_other():
    settings = {"algo": "billion_scale", "num_steps": 2, "student_steps": 3}
    experiment = build_experiment(
        config.resolve({**settings, "finetune_steps": 1, "num_labeled": 40})
    )
    stages = stage_lib.stages(experiment)
    assert [s.name for s in stages] == ["train", "student", "finetune"]
    teacher = stages[0].build()
    student = stages[1].build()
    assert student is not teacher
    student.prepare(evaluation.Predictor(experiment))
    labeled, unlabeled = experiment.pools(student)
    assert labeled.views == () and unlabeled.views == ("weak",)
    found = np.unique(unlabeled.rows, return_counts=True)
    counts = student.ranked.numpy().sum(1)
    np.testing.assert_array_equal(found[0], np.flatnonzero(counts))
    np.testing.assert_array_equal(found[1], counts[counts > 0])
    next(iter(experiment.training_data(student, 0)))
    finetuned = stages[2].build()
    for a, b in zip(
        finetuned.student.get_weights(),
        student.deployable_model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
