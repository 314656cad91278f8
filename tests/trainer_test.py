"""Metrics and evaluation, which Keras' training loops use."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    all_values,
    assert_same,
    on_replicas,
    run,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
)
from tf_metassl import config
from tf_metassl.contract import FOREIGN, DatasetInfo
from tf_metassl.models.layers import DropBlock
from tf_metassl.ops.metrics import ConfusionMatrix
from tf_metassl.run import report
from tf_metassl.run.build import build_algorithm


def test_a_metric_is_the_mean_of_what_was_tracked():
    algorithm = tiny_algorithm("supervised")
    algorithm.track("loss", 1.0)
    algorithm.track("loss", 4.0)
    assert algorithm.metric("loss") == 2.5
    algorithm.track("labeled_accuracy", [1.0, 0.0, 1.0], weight=[1, 1, 0])
    assert algorithm.metric("labeled_accuracy") == 0.5
    with pytest.raises(KeyError):
        algorithm.metric("unlabeled_loss")


def test_shares_are_tracked_as_their_sum_over_replicas(two_replicas):
    with two_replicas.scope():
        algorithm = tiny_algorithm("supervised")

    def track(replica):
        share = tf.cast(replica, tf.float32) + 1.0
        algorithm.track_share("loss", share)
        return share

    assert on_replicas(two_replicas, track) == [1, 2]
    assert algorithm.metric("loss") == 3
    one = tiny_algorithm("supervised")
    one.track_share("loss", 3.0)
    assert one.metric("loss") == 3


def test_pseudo_labels_count_where_the_true_label_is_known():
    algorithm = tiny_algorithm("fixmatch")
    pseudo_label = tf.one_hot([0, 1, 2, 0], 3)
    algorithm.track_pseudo_labels(
        tf.constant([0, 0, 2, -1]), pseudo_label, tf.constant([1.0, 1, 0, 1])
    )
    assert algorithm.metric("pseudo_label_accuracy") == pytest.approx(2 / 3)
    assert algorithm.metric("selected_pseudo_label_accuracy") == 0.5
    share = np.array([0.5, 0.25, 0.25])
    expected = -(share * np.log(share)).sum() / np.log(3)
    assert algorithm.metric("pseudo_label_entropy") == pytest.approx(expected)


def test_foreign_images_count_apart():
    algorithm = tiny_algorithm("fixmatch")
    algorithm.track_pseudo_labels(
        tf.constant([0, 1, FOREIGN, FOREIGN, FOREIGN, -1]),
        tf.one_hot([0, 1, 0, 1, 2, 2], 3),
        tf.constant([1.0, 0, 1, 0, 0, 1]),
    )
    assert algorithm.metric("pseudo_label_accuracy") == 1.0
    share = algorithm.metric("foreign_selected_share")
    assert share == pytest.approx(1 / 3)


def test_metrics_are_reset_and_returned_by_name():
    algorithm = tiny_algorithm("fixmatch")
    first = run(algorithm, tiny_batch())
    assert list(first) == list(algorithm.metric_names)
    for name, value in first.items():
        assert algorithm.metric(name) == value
    algorithm.reset_metrics()
    assert algorithm.metric("loss") == 0


def evaluation_batches():
    labeled = tiny_batch(24)["labeled"]
    return tf.data.Dataset.from_tensor_slices(
        {
            "image": labeled["clean"],
            "label": labeled["label"],
            "mask": tf.ones([24]),
        }
    ).batch(8)


def test_evaluation_runs_only_the_networks_that_are_asked_for():
    algorithm = tiny_algorithm("supervised")
    batches, counted = evaluation_batches(), []
    for role, network in algorithm.evaluated_networks.items():
        call = network.call

        def spy(*args, call=call, role=role, **options):
            counted.append(role)
            return call(*args, **options)

        network.call = spy
    options = {"verbose": 0, "return_dict": True}
    found = algorithm.evaluate(batches, networks=("ema",), **options)
    assert set(found) == {"ema_accuracy", "ema_macro_f1"}
    assert counted == ["ema"]
    assert algorithm.confusion("ema").sum() == 24
    assert algorithm.confusion("student").sum() == 0
    both = algorithm.evaluate(batches, **options)
    assert list(both)[:2] == ["student_accuracy", "student_macro_f1"]
    # Each choice is traced once, whatever was evaluated in between.
    assert found == algorithm.evaluate(batches, networks=("ema",), **options)
    assert counted == ["ema", "student", "ema"]
    assert {name: both[name] for name in found} == found


def test_evaluation_reads_its_metrics_once(monkeypatch):
    algorithm = tiny_algorithm("supervised")
    result, read = ConfusionMatrix.result, []

    def noted(self):
        read.append(self.name)
        return result(self)

    monkeypatch.setattr(ConfusionMatrix, "result", noted)
    found = algorithm.evaluate(evaluation_batches(), verbose=0)
    assert read == ["student", "ema"] and len(found) == 4


def test_evaluation_reads_every_batch_and_keeps_the_training_function():
    algorithm = tiny_algorithm("supervised", steps_per_execution=4)
    algorithm.evaluate(evaluation_batches(), verbose=0)
    assert algorithm.confusion("student").sum() == 24
    assert algorithm.steps_per_execution == 4


def test_of_many_classes_the_five_likeliest_are_counted():
    names = tuple(map(str, range(100)))
    algorithm = build_algorithm(
        config.resolve({"algo": "supervised"}),
        DatasetInfo("digits", names, (8, 8, 1)),
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    label = rng.integers(0, 100, 40).astype(np.int32)
    mask = (np.arange(40) < 35).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices(
        {"image": image, "label": label, "mask": mask}
    ).batch(20)
    found = algorithm.evaluate(batches, verbose=0, return_dict=True)
    for role, network in algorithm.evaluated_networks.items():
        logits = np.asarray(network(image, training=False))[:35]
        likeliest = np.argsort(-logits, axis=1)[:, :5]
        is_correct = (likeliest == label[:35, np.newaxis]).any(axis=1)
        assert found[f"{role}_top_5_accuracy"] == pytest.approx(
            is_correct.mean()
        )
    row = {
        f"{split}_{name}": 0.5
        for split in ("validation", "test")
        for name in report.MEASURES
    }
    row |= {"stage": "train", "network": "ema", "deployed": True}
    assert "| validation accuracy | validation top-5 |" in report.table([row])


def network_with_drop_block(role):
    network = tiny_network(role)
    pooling = network.layers[-2]
    x = DropBlock(0.5, size=2)(pooling.input)
    logits = network.layers[-1](pooling(x))
    return keras.Model(network.input, logits, name=role)


def with_drop_block():
    algorithm = tiny_algorithm("supervised", network=network_with_drop_block)
    algorithm.compile(
        optimizers={"student": keras.optimizers.SGD(0.1)}, dropblock_steps=4
    )
    return algorithm


def test_the_rate_of_drop_block_rises_over_the_run():
    algorithm = with_drop_block()
    (layer,) = (x for x in algorithm.student.layers if isinstance(x, DropBlock))
    shares = []
    for _ in range(6):
        shares.append(float(layer.progress()))
        run(algorithm, tiny_batch())
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1]
    algorithm.elapsed = tf.Variable(0.3)
    assert float(layer.progress()) == pytest.approx(0.3)


def test_the_draws_of_drop_block_are_part_of_the_state():
    first, second = with_drop_block(), with_drop_block()
    run(first, tiny_batch(), tiny_batch())
    for variable, other in zip(
        second.state_variables, first.state_variables, strict=True
    ):
        variable.assign(other.value)
    for algorithm in (first, second):
        run(algorithm, tiny_batch())
    assert_same(all_values(first), all_values(second))


def test_steps_are_traced_without_autograph(monkeypatch):
    """It takes more than half of the time of tracing and converts nothing."""
    algorithm = tiny_algorithm("supervised")
    found, train_step = [], algorithm.train_step

    def spy(batch):
        found.append(tf.__internal__.autograph.control_status_ctx().status)
        return train_step(batch)

    monkeypatch.setattr(algorithm, "train_step", spy)
    batches = tf.data.Dataset.from_tensors(tiny_batch()).repeat()
    algorithm.make_train_function()(iter(batches))
    assert [status.name for status in found] == ["DISABLED"]
