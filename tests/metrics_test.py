"""The confusion matrix against scikit-learn."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as oracle

from tf_metassl.ops import metrics
from tf_metassl.ops.metrics import ClassEntropy, ConfusionMatrix


def test_accuracy_and_macro_f1_with_masked_rows():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 90).astype(np.int32)
    logits = rng.normal(size=(90, 5)).astype(np.float32)
    mask = (np.arange(90) < 83).astype(np.float32)
    metric = ConfusionMatrix(5, name="student")
    for part in np.split(np.arange(90), 3):
        metric.update_state(label[part], logits[part], mask[part])
    true, predicted = label[:83], logits[:83].argmax(1)
    result = {k: float(v) for k, v in metric.result().items()}
    np.testing.assert_array_equal(
        metric.counts.value, oracle.confusion_matrix(true, predicted)
    )
    np.testing.assert_allclose(
        result["student_accuracy"],
        oracle.accuracy_score(true, predicted),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        result["student_macro_f1"],
        oracle.f1_score(true, predicted, average="macro"),
        rtol=1e-6,
    )
    metric.reset_state()
    assert tf.reduce_sum(metric.counts.value) == 0
    assert float(metric.result()["student_accuracy"]) == 0


def test_values_are_counted_in_intervals():
    metric = metrics.Histogram(-1.0, 1.0, 4)
    metric.update_state(tf.constant([-7.0, -0.6, -0.5, 0.0, 0.49, 0.5]))
    metric.update_state(tf.constant([1.0, 3.0]))
    assert metric.counts.numpy().tolist() == [2, 1, 2, 3]
    assert metric.edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert metric.result() == {}


def test_macro_f1_counts_only_classes_that_are_there():
    """Three of five classes: perfect predictions give 1, as a test needs."""
    label = np.array([0, 1, 1, 3], np.int32)
    metric = ConfusionMatrix(5, name="a")
    metric.update_state(label, np.eye(5, dtype=np.float32)[label], np.ones(4))
    assert float(metric.result()["a_macro_f1"]) == 1
    assert metrics.macro_f1(metric.counts.value) == 1
    # One of class 1 is taken for class 4, which has no image: 1, 2/3 and 1.
    metric.reset_state()
    predicted = np.eye(5, dtype=np.float32)[[0, 1, 4, 3]]
    metric.update_state(label, predicted, np.ones(4))
    for value in (
        float(metric.result()["a_macro_f1"]),
        metrics.macro_f1(metric.counts.value),
    ):
        np.testing.assert_allclose(value, (1 + 2 / 3 + 1) / 3, rtol=1e-6)


def test_macro_f1_of_nothing():
    assert metrics.macro_f1(np.zeros([3, 3])) == 0
    assert float(ConfusionMatrix(3, name="a").result()["a_macro_f1"]) == 0


def test_macro_f1_with_all_classes_has_the_bits_that_it_had():
    """Runs of earlier versions are resumed with the same numbers."""
    rng = np.random.default_rng(0)
    for size in (2, 3, 10, 37, 100, 1000):
        metric = ConfusionMatrix(size, name="a")
        counts = rng.integers(0, 50, (size, size)) + np.eye(size, dtype=int)
        metric.counts.assign(counts.astype(np.float32))
        counts = tf.convert_to_tensor(metric.counts)
        total = tf.reduce_sum(counts, 0) + tf.reduce_sum(counts, 1)
        f1 = tf.math.divide_no_nan(2 * tf.linalg.diag_part(counts), total)
        expected = tf.reduce_mean(f1).numpy()
        assert metric.result()["a_macro_f1"].numpy() == expected


def test_the_true_class_among_the_five_likeliest():
    # Sorted from the likeliest down: 6 5 4 3 2 | 1 0.
    logits = np.arange(7, dtype=np.float32)[np.newaxis].repeat(7, axis=0)
    is_correct = metrics.in_top_5(np.arange(7), logits)
    np.testing.assert_array_equal(is_correct, [0, 0, 1, 1, 1, 1, 1])


def test_class_entropy():
    metric = ClassEntropy(4)
    assert float(metric.result()) == 0.0
    metric.update_state(np.eye(4, dtype=np.float32)[[0, 0]])
    assert float(metric.result()) == 0.0
    metric.update_state(np.eye(4, dtype=np.float32)[[1, 1]] * 0.3)
    # Half and half: log 2 / log 4.
    np.testing.assert_allclose(float(metric.result()), 0.5, rtol=1e-6)
    metric.update_state(np.eye(4, dtype=np.float32)[[2, 3, 2, 3]])
    np.testing.assert_allclose(float(metric.result()), 1.0, rtol=1e-6)


def local(metric, strategy):
    return [
        [part.numpy() for part in strategy.experimental_local_results(v.value)]
        for v in metric.variables
    ]


def test_parts_of_replicas_are_saved_without_rounding(two_replicas):
    with two_replicas.scope():
        old, new = keras.metrics.Mean(name="m"), keras.metrics.Mean(name="m")
        entropy = ClassEntropy(3, name="e")
    one = keras.metrics.Mean(name="m")

    def update():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # 1e8 + 1 is no float32: the sum of the parts is not what they were.
        old.update_state(tf.where(replica == 0, 1e8, 1.0))
        entropy.update_state(tf.one_hot([replica], 3))

    two_replicas.run(update)
    saved = json.loads(
        json.dumps(metrics.reader([old, entropy], two_replicas)())
    )
    assert saved == {
        "m": [[1e8, 1.0], [1.0, 1.0]],
        "e": [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]],
    }
    metrics.from_lists([new], two_replicas, saved)
    assert local(new, two_replicas) == local(old, two_replicas)
    metrics.from_lists([keras.metrics.Mean(name="new")], two_replicas, saved)
    # Fewer replicas get the sum.
    metrics.from_lists([one], tf.distribute.get_strategy(), saved)
    assert float(one.result()) == float(old.result()) == 5e7
    # More get it, too.
    back = metrics.reader([one], tf.distribute.get_strategy())()
    metrics.from_lists([new], two_replicas, back)
    assert local(new, two_replicas) == [[1e8, 0.0], [2.0, 0.0]]


def test_macro_f1_is_over_the_classes_that_have_examples():
    perfect = np.diag([3.0, 0.0, 5.0])
    assert metrics.macro_f1(perfect) == 1.0
    # One of class 0 is taken for class 1, which has no examples.
    confusion = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    assert metrics.macro_f1(confusion) == pytest.approx((0.8 + 1.0) / 2)
    counted = metrics.ConfusionMatrix(3, name="net")
    label = np.array([0, 0, 0, 2, 2, 2, 2])
    predicted = np.array([0, 0, 1, 2, 2, 2, 2])
    counted.update_state(label, np.eye(3)[predicted], np.ones(7))
    assert float(counted.result()["net_macro_f1"]) == pytest.approx(0.9)
    assert metrics.macro_f1(np.zeros((2, 2))) == 0.0


def test_what_was_never_updated_is_not_measured():
    lists = {
        "mean": [[0.0], [2.0]],
        "never": [[0.0, 0.0], [0.0, 0.0]],
        "on one replica": [[0.0, 0.0], [0.0, 1.0]],
        "entropy": [[[0.0, 3.0]]],
        "no entropy": [[[0.0, 0.0]]],
    }
    assert metrics.measured(lists) == {"mean", "on one replica", "entropy"}
    mean = keras.metrics.Mean(name="loss")
    read = metrics.reader([mean], tf.distribute.get_strategy())
    assert metrics.measured(read()) == set()
    mean.update_state(0.0)
    assert metrics.measured(read()) == {"loss"}


def test_the_first_divergence_of_any_replica_is_found(two_replicas):
    with two_replicas.scope():
        watch = metrics.DivergenceWatch(2.0)
    losses = tf.constant([[1.0, 1.0], [1.0, 3.0], [5.0, 1.0]])

    @tf.function
    def run(number):
        def step():
            context = tf.distribute.get_replica_context()
            place = context.replica_id_in_sync_group
            watch.note(losses[number - 1, place], number)

        two_replicas.run(step)

    run(tf.constant(1))
    assert watch.first(two_replicas) is None
    run(tf.constant(2))
    run(tf.constant(3))
    assert watch.first(two_replicas) == (2, 3.0)
    watch.reset()
    assert watch.first(two_replicas) is None
