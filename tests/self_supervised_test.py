"""SimCLR, BYOL and MoCo v2: their losses by hand, and what must not happen."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    on_replicas,
    perturb,
    run,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl.algorithms.byol import Byol
from tf_metassl.meta import functional
from tf_metassl.ops import averaging, replicas
from tf_metassl.run import collapse

METHODS = ("simclr", "byol", "moco_v2")
every_method = pytest.mark.parametrize("name", METHODS)
with_target = pytest.mark.parametrize("name", ("byol", "moco_v2"))


def views_of(batch):
    group = batch["unlabeled"]
    return group["contrastive_1"], group["contrastive_2"]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@every_method
def test_labels_train_the_last_layer_alone(name):
    """The features of a batch do not depend on its labels."""
    results = []
    for shift in (0, 1):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(name)
        batch = tiny_batch()
        label = batch["labeled"]["label"]
        batch["labeled"]["label"] = (label + shift) % NUM_CLASSES
        run(algorithm, batch)
        results.append(values(algorithm.student))
    *body, kernel, bias = zip(*results, strict=True)
    for one, two in body:
        np.testing.assert_array_equal(one, two)
    for one, two in (kernel, bias):
        assert np.abs(one - two).max() > 1e-3


@every_method
def test_the_probe_sees_what_evaluation_sees(name):
    algorithm = tiny_algorithm(name)
    perturb(algorithm.student)
    labeled = tiny_batch()["labeled"]
    before = values(algorithm.student)
    loss = algorithm._probe_loss(labeled)
    logits = algorithm.student(labeled["weak"], training=False)
    expected = keras.losses.sparse_categorical_crossentropy(
        labeled["label"], logits, from_logits=True
    )
    assert float(loss) == pytest.approx(float(tf.reduce_mean(expected)))
    for old, new in zip(before, values(algorithm.student), strict=True):
        np.testing.assert_array_equal(old, new)


@every_method
def test_heads_are_trained_and_saved_but_not_exported(name):
    algorithm = tiny_algorithm(name)
    saved = {id(v) for v in algorithm.state_variables}
    before = [values(head) for head in algorithm.heads]
    run(algorithm, tiny_batch())
    for head, old in zip(algorithm.heads, before, strict=True):
        assert {id(v) for v in head.weights} <= saved
        for start, now in zip(old, values(head), strict=True):
            assert np.any(start != now)
    exported = {id(v) for v in algorithm.deployable_model.weights}
    heads = {id(v) for head in algorithm.heads for v in head.weights}
    assert not exported & heads


@every_method
def test_finetuning_starts_from_the_features_and_the_probe(name):
    algorithm = tiny_algorithm(name, finetune_steps=4, finetune_batch_size=8)
    run(algorithm, tiny_batch())
    (stage,) = algorithm.later_stages()
    assert (stage.name, stage.num_steps, stage.batch_size) == ("finetune", 4, 8)
    finetuner = stage.build()
    for one, two in zip(
        values(finetuner.student),
        values(algorithm.deployable_model),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    rate = finetuner.optimizer.learning_rate
    assert float(rate) == pytest.approx(
        algorithm.hyperparameters.finetune_learning_rate
    )
    start = values(algorithm.student)
    run(finetuner, *(tiny_batch(seed=seed) for seed in range(4)))
    assert float(finetuner.optimizer.learning_rate) == pytest.approx(
        0, abs=1e-9
    )
    for one, two in zip(start, values(algorithm.student), strict=True):
        np.testing.assert_array_equal(one, two)
    assert tiny_algorithm(name, finetune_steps=0).later_stages() == []


@with_target
def test_the_target_is_moved_but_not_trained(name):
    algorithm = tiny_algorithm(name, target_decay=0.75)
    trained = {id(v) for v in algorithm.trained_variables("student")}
    for network, average in algorithm.averaged:
        perturb(network)
        assert not average.trainable_variables
        assert not trained & {id(v) for v in average.weights}
    before = [values(average) for _, average in algorithm.averaged]
    run(algorithm, tiny_batch())
    for (network, average), old in zip(algorithm.averaged, before, strict=True):
        for start, now, student in zip(
            old, values(average), values(network), strict=True
        ):
            np.testing.assert_allclose(
                now, 0.75 * start + 0.25 * student, rtol=1e-5, atol=1e-6
            )


@with_target
def test_no_gradient_reaches_the_target(name):
    algorithm = tiny_algorithm(name)
    batch = tiny_batch()
    weights = [v for _, a in algorithm.averaged for v in a.weights]
    with tf.GradientTape() as tape:
        for variable in weights:
            tape.watch(variable.value)
        loss = algorithm.compute_losses(batch)
    gradients = tape.gradient(loss, [v.value for v in weights])
    assert all(g is None for g in gradients)


# SimCLR.


def test_simclr_with_its_networks_by_hand(float64):
    algorithm = tiny_algorithm("simclr", contrast_temperature=0.3)
    batch = tiny_batch()
    images = tf.cast(tf.concat(views_of(batch), 0), tf.float64)
    features, _ = functional.call(
        algorithm.student_and_features,
        functional.parameters(algorithm.student_and_features),
        functional.state(algorithm.student_and_features),
        images,
    )[0]
    rows, _ = functional.call(
        algorithm.projector,
        functional.parameters(algorithm.projector),
        functional.state(algorithm.projector),
        features,
    )
    rows = unit(rows.numpy())
    total = 0.0
    for i in range(32):
        partner = (i + 16) % 32
        others = [k for k in range(32) if k != i]
        powers = np.exp(rows[others] @ rows[i] / 0.3)
        total -= np.log(np.exp(rows[partner] @ rows[i] / 0.3) / powers.sum())
    algorithm.compute_losses(batch)
    assert algorithm.metric("representation_loss") == pytest.approx(
        total / 32, rel=1e-6
    )


# BYOL.


def test_byol_with_its_networks_by_hand(float64):
    algorithm = tiny_algorithm("byol")
    for _, average in algorithm.averaged:
        perturb(average, seed=3)
    batch = tiny_batch()
    images = tf.cast(tf.concat(views_of(batch), 0), tf.float64)

    def training(network, inputs, weights=None):
        outputs, _ = functional.call(
            network,
            weights or functional.parameters(network),
            functional.state(network),
            inputs,
        )
        return outputs[0] if isinstance(outputs, list | tuple) else outputs

    prediction = target = images
    for network, average in algorithm.averaged:
        prediction = training(network, prediction)
        target = training(
            network, target, averaging.parameters(average, network)
        )
    prediction = training(algorithm.predictor, prediction)
    prediction, target = unit(prediction.numpy()), unit(target.numpy())
    crossed = np.concatenate([target[16:], target[:16]])
    expected = ((prediction - crossed) ** 2).sum() / 16
    algorithm.compute_losses(batch)
    assert algorithm.metric("representation_loss") == pytest.approx(
        expected, rel=1e-6
    )


def test_byols_decay_rises_to_1_as_a_cosine():
    algorithm = tiny_algorithm("byol", target_decay=0.9, target_decay_steps=100)
    decays = [float(algorithm.decay_at(tf.constant(t))) for t in (0, 50, 100)]
    np.testing.assert_allclose(decays, [0.9, 0.95, 1.0], rtol=1e-6)
    assert float(algorithm.decay_at(tf.constant(150))) == pytest.approx(1.0)
    constant = tiny_algorithm("byol", target_decay=0.9, target_decay_steps=0)
    assert constant.decay_at(tf.constant(70)) == 0.9


class WithoutPredictor(Byol):
    """A mistake that the projections of all images collapse with."""

    def predict_targets(self, rows):
        return rows


@pytest.mark.slow
def test_collapse_without_a_predictor_is_seen():
    spreads = {}
    for cls in (Byol, WithoutPredictor):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm("byol", cls=cls, target_decay=0.9)
        for seed in range(150):
            metrics = run(algorithm, tiny_batch(seed=seed % 4))
        spreads[cls] = metrics["feature_std"]
    row = {"step": 150, "feature_std": spreads[WithoutPredictor]}
    assert "projections of all images are nearly the same" in (
        collapse.collapsed(row)
    )
    assert collapse.collapsed({"step": 1, "feature_std": spreads[Byol]}) is None


# MoCo v2.


def test_the_queue_keeps_the_newest_keys_in_order():
    algorithm = tiny_algorithm("moco_v2", queue_size=5, projection_size=2)
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    algorithm.queue.assign(rows[:5] + 100)
    replicas.enqueue(algorithm.queue, tf.constant(rows[:3]))
    np.testing.assert_array_equal(
        algorithm.queue.numpy(), [*(rows[3:5] + 100), *rows[:3]]
    )
    # A batch that is larger than the queue.
    replicas.enqueue(algorithm.queue, tf.constant(rows))
    np.testing.assert_array_equal(algorithm.queue.numpy(), rows[3:])


def test_moco_compares_with_the_queue_before_this_batch(float64):
    algorithm = tiny_algorithm(
        "moco_v2", queue_size=20, contrast_temperature=0.4
    )
    for _, average in algorithm.averaged:
        perturb(average, seed=3)
    queue = algorithm.queue.numpy()
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-6)
    batch = tiny_batch()
    first, second = (tf.cast(v, tf.float64) for v in views_of(batch))
    keys = algorithm.keys(second).numpy()
    features, _ = functional.call(
        algorithm.student_and_features,
        functional.parameters(algorithm.student_and_features),
        functional.state(algorithm.student_and_features),
        first,
    )[0]
    queries, _ = functional.call(
        algorithm.projector,
        functional.parameters(algorithm.projector),
        functional.state(algorithm.projector),
        features,
    )
    expected = 0.0
    for query, key in zip(unit(queries.numpy()), keys, strict=True):
        logits = np.append(queue @ query, key @ query) / 0.4
        expected += np.log(np.exp(logits).sum()) - logits[-1]
    algorithm.compute_losses(batch)
    assert algorithm.metric("representation_loss") == pytest.approx(
        expected / 16, rel=1e-6
    )
    np.testing.assert_allclose(
        algorithm.queue.numpy(), np.concatenate([queue[16:], keys]), rtol=1e-6
    )


def test_a_key_depends_on_its_own_image_alone():
    algorithm = tiny_algorithm("moco_v2")
    images = views_of(tiny_batch())[1]
    whole = algorithm.keys(images).numpy()
    np.testing.assert_allclose(
        algorithm.keys(images[:3]).numpy(), whole[:3], rtol=1e-4, atol=1e-6
    )


def test_the_queue_is_the_same_on_every_replica(two_replicas):
    keys = tf.reshape(tf.range(16, dtype=tf.float32), [8, 2])
    with two_replicas.scope():
        algorithm = tiny_algorithm("moco_v2", queue_size=6, projection_size=2)

    def step(replica):
        replicas.enqueue(algorithm.queue, tf.reshape(keys, [2, 4, 2])[replica])
        return tf.convert_to_tensor(algorithm.queue.value)

    for queue in on_replicas(two_replicas, step):
        np.testing.assert_array_equal(queue, keys[2:])
