"""Reduced Meta Pseudo Labels: the stage after the large teacher's."""

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
    values,
)
from tf_metassl import config
from tf_metassl.algorithms.reduced_meta_pseudo_labels import (
    ReducedStudent,
    corrector,
)
from tf_metassl.run import checkpoints, evaluation
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import build_experiment

NAME = "reduced_meta_pseudo_labels"


def large_logits():
    shape = (NUM_IMAGES, NUM_CLASSES)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def student(logits=None, **hp):
    """The algorithm of the student's stage, after `prepare`."""
    algorithm = tiny_algorithm(NAME, cls=ReducedStudent, **hp)
    algorithm.learn_from("large")
    algorithm.prepare(lambda _: large_logits() if logits is None else logits)
    return algorithm


def test_the_small_teacher_starts_as_the_large_one():
    logits = large_logits()
    teacher = corrector(NUM_CLASSES)
    np.testing.assert_allclose(
        softmax(teacher(logits).numpy()), softmax(logits), rtol=1e-5
    )
    assert teacher.count_params() == 3 * 64 + 64 + 64 * 3 + 3


def test_the_teacher_reads_the_rows_of_the_batch():
    logits = large_logits()
    algorithm = student(logits)
    batch = tiny_batch()
    batch["labeled"]["index"] = tf.constant(np.arange(40, 48))
    found = algorithm.teacher_pass(batch["labeled"], batch["unlabeled"])
    np.testing.assert_allclose(
        softmax(found[0].numpy()), softmax(logits[40:48]), rtol=1e-5
    )
    for group in found[1:]:
        np.testing.assert_allclose(
            softmax(group.numpy()), softmax(logits[:16]), rtol=1e-5
        )


def test_only_networks_that_see_images_are_evaluated():
    algorithm = student()
    assert set(algorithm.evaluated_networks) == {"student", "ema"}
    assert algorithm.views.unlabeled == ("strong",)


@pytest.mark.parametrize("feedback", ("taylor", "exact_soft"))
def test_the_feedback_moves_the_small_teacher(feedback, float64):
    """And nothing but it and the labeled loss does: there is no UDA loss."""

    def teachers_change(**hp):
        keras.utils.set_random_seed(1)
        algorithm = student(weight_decay=0.0, **hp)
        before = values(algorithm.teacher)
        algorithm.train_step(tiny_batch())
        return np.concatenate(
            [
                np.ravel(a - b)
                for a, b in zip(values(algorithm.teacher), before, strict=True)
            ]
        )

    off = teachers_change(feedback="off", pseudo_label="auto")
    with_feedback = teachers_change(feedback=feedback)
    opposite = teachers_change(feedback=feedback, feedback_sign=-1)
    term = with_feedback - off
    assert np.abs(term).max() > 1e-9
    np.testing.assert_allclose(opposite - off, -term, rtol=1e-4, atol=1e-12)


@pytest.mark.exhaustive
def test_one_step_on_two_replicas_is_that_of_one(two_replicas, float64):
    def trained(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = student(
                network=lambda role: tiny_network(role, sync=True)
            )
        dataset = tf.data.Dataset.from_tensors(tiny_batch(16, 32)).repeat(5)
        step = algorithm.make_train_function()
        iterator = iter(strategy.experimental_distribute_dataset(dataset))
        for _ in range(5):
            step(iterator)
        return all_values(algorithm), values(algorithm.teacher)

    one, two = trained(tf.distribute.get_strategy()), trained(two_replicas)
    assert_same(one[0], two[0], rtol=1e-6, atol=1e-9)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.exhaustive
def test_xla_equals_graph(float64):
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(1)
        algorithm = student(jit_compile=jit_compile)
        run(algorithm, tiny_batch())
        results.append(all_values(algorithm))
    assert_same(*results, rtol=1e-7, atol=1e-9)


def test_a_restored_student_goes_on_with_the_same_predictions(tmp_path):
    first = student()
    run(first, tiny_batch())
    path = checkpoints.save(tmp_path, first, 1, {})
    run(first, tiny_batch(seed=1))
    keras.utils.set_random_seed(99)
    second = tiny_algorithm(NAME, cls=ReducedStudent)
    checkpoints.restore(path, second)
    np.testing.assert_array_equal(second.predictions, large_logits())
    run(second, tiny_batch(seed=1))
    assert_same(all_values(first), all_values(second))


def test_micro_batches_are_refused_before_the_first_stage():
    """Whose own step could be divided, but not the student's."""
    with pytest.raises(ValueError, match="Use --remat"):
        tiny_algorithm(NAME, tsa_schedule="off", gradient_accumulation_steps=4)


@pytest.mark.slow
def test_the_stages_follow_one_another(tmp_path):
    settings = config.resolve(
        {
            "algo": NAME,
            "num_steps": 2,
            "student_steps": 2,
            "finetune_steps": 1,
            "batch_size": 8,
            "verbose": 0,
        }
    )
    built = build_experiment(settings, tmp_path)
    names, algorithms = [], []
    for stage in stage_lib.stages(built):
        algorithm = stage.build()
        stage_lib.run_stage(
            stage_lib.StageRun(built, algorithm, stage, tmp_path, tmp_path)
        )
        names.append(stage.name)
        algorithms.append(algorithm)
    assert names == ["train", "student", "finetune"]
    large, small, finetuned = algorithms
    np.testing.assert_allclose(
        small.predictions,
        evaluation.predict(built, large.deployable_model),
        rtol=1e-5,
        atol=1e-5,
    )
    assert finetuned.student.count_params() == small.student.count_params()
    assert small.student is not large.student
