"""SimMatch against NumPy, and its memory bank."""

import numpy as np
import tensorflow as tf

from tests.helpers import (
    labeled_losses,
    on_replicas,
    run,
    sharp_algorithm,
    softmax,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl.algorithms import hyperparameters_class
from tf_metassl.algorithms.simmatch import propagated
from tf_metassl.run import checkpoints


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_propagation_by_hand():
    probs = tf.constant([[0.5, 0.25, 0.25]])
    # Two images of class 0, one of class 2; the last row is empty.
    label = tf.constant([[1.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    similarities = tf.constant([[0.25, 0.25, 0.5, 0.0]])
    pseudo_label, similar = propagated(probs, similarities, label, 0.75)
    # 3/4 p + 1/4 (0.5, 0, 0.5).
    np.testing.assert_allclose(pseudo_label, [[0.5, 0.1875, 0.3125]])
    # 0.125, 0.125 and 0.125, normalized.
    np.testing.assert_allclose(similar, [[1 / 3, 1 / 3, 1 / 3, 0]], rtol=1e-6)


def test_with_an_empty_bank_the_classifier_is_alone():
    probs = tf.constant([[0.5, 0.25, 0.25]])
    pseudo_label, similar = propagated(
        probs, tf.constant([[0.5, 0.5]]), tf.zeros([2, 3]), 0.5
    )
    np.testing.assert_array_equal(pseudo_label, probs)
    np.testing.assert_array_equal(similar, [[0, 0]])
    algorithm = tiny_algorithm("simmatch", bank_size=20)
    assert run(algorithm, tiny_batch())["instance_loss"] == 0
    assert run(algorithm, tiny_batch())["instance_loss"] > 0


def filled(algorithm, rows, seed=0):
    """Fills all but the oldest `rows` of the bank."""
    rng = np.random.default_rng(seed)
    size, width = algorithm.bank.shape
    bank = unit(rng.normal(size=(size, width)))
    label = np.eye(3)[rng.integers(0, 3, size)]
    bank[:rows] = label[:rows] = 0
    algorithm.bank.assign(bank)
    algorithm.bank_label.assign(label)
    return bank, label


def test_simmatch_by_hand(float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "simmatch",
        bank_size=12,
        projection_size=5,
        confidence_threshold=0.6,
        statistics_decay=0.5,
        similarity_temperature=0.2,
        semantic_share=0.7,
        instance_loss_weight=2.0,
        unlabeled_loss_weight=3.0,
    )
    algorithm.optimizer.iterations.assign(7)
    algorithm.mean_probs.assign([0.5, 0.3, 0.2])
    bank, label = filled(algorithm, 4)
    groups = [batch["labeled"]["weak"]]
    groups += [batch["unlabeled"][view] for view in ("weak", "strong")]
    features, logits = algorithm.student_and_features(
        tf.concat(groups, 0), training=True
    )
    labeled, weak, strong = np.split(softmax(logits.numpy()), [8, 24])
    embeddings = unit(algorithm.projector(features).numpy())
    loss = float(algorithm.compute_losses(batch))

    current = 0.5 * np.array([0.5, 0.3, 0.2]) + 0.5 * weak.mean(0)
    unlabeled_loss, instance_loss, selected = 0.0, 0.0, 0
    for row in range(16):
        p = weak[row] * (1 / 3 + 1e-6) / (current + 1e-6)
        p /= p.sum()
        # Over the eight images of the bank before this step, not over time.
        q_weak, q_strong = (
            softmax(bank[4:] @ embeddings[start + row] / 0.2)
            for start in (8, 24)
        )
        similar = q_weak * p[label[4:].argmax(1)]
        similar /= similar.sum()
        instance_loss -= (similar * np.log(q_strong)).sum() / 16
        target = 0.7 * p + 0.3 * q_weak @ label[4:]
        if target.max() >= 0.6:
            selected += 1
            unlabeled_loss -= (target * np.log(strong[row])).sum() / 16
    assert 0 < selected < 16
    expected = labeled_losses(batch, labeled).mean()
    expected += 3.0 * unlabeled_loss + 2.0 * instance_loss
    np.testing.assert_allclose(loss, expected, rtol=1e-7)
    # The labeled images of this step come in afterwards.
    np.testing.assert_allclose(
        algorithm.bank, np.concatenate([bank[8:], embeddings[:8]]), rtol=1e-7
    )
    np.testing.assert_array_equal(
        algorithm.bank_label[4:], np.eye(3)[batch["labeled"]["label"].numpy()]
    )


def test_the_bank_keeps_the_newest_images_in_order():
    algorithm = tiny_algorithm("simmatch", bank_size=5, projection_size=2)
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    label = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]]
    algorithm.enqueue(tf.constant(rows[:2]), tf.constant(label[:2]))
    np.testing.assert_array_equal(algorithm.bank[3:], rows[:2])
    np.testing.assert_array_equal(algorithm.bank_label[:3], np.zeros((3, 3)))
    # A batch that is larger than the bank.
    algorithm.enqueue(tf.constant(rows), tf.constant(label))
    np.testing.assert_array_equal(algorithm.bank, rows[3:])
    np.testing.assert_array_equal(algorithm.bank_label, label[3:])


def test_the_bank_is_the_same_on_every_replica(two_replicas):
    rows = tf.reshape(tf.range(16, dtype=tf.float32), [2, 4, 2])
    label = tf.one_hot([[0, 1, 2, 0], [1, 2, 0, 1]], 3)
    with two_replicas.scope():
        algorithm = tiny_algorithm("simmatch", bank_size=6, projection_size=2)

    def step(replica):
        algorithm.enqueue(rows[replica], label[replica])
        return tf.concat([algorithm.bank.value, algorithm.bank_label.value], 1)

    both = tf.reshape(tf.concat([rows, label], 2), [8, 5])
    for bank in on_replicas(two_replicas, step):
        np.testing.assert_array_equal(bank, both[2:])


def test_the_bank_is_part_of_a_checkpoint(tmp_path):
    first = tiny_algorithm("simmatch", bank_size=12)
    run(first, tiny_batch())
    path = checkpoints.save(tmp_path, first, 1, {})
    second = tiny_algorithm("simmatch", bank_size=12)
    checkpoints.restore(path, second)
    assert second.bank.numpy().any()
    for name in ("bank", "bank_label", "mean_probs"):
        np.testing.assert_array_equal(
            getattr(second, name), getattr(first, name)
        )


def test_no_gradient_passes_through_the_targets_and_the_bank():
    probs = tf.Variable([[0.5, 0.25, 0.25]])
    similarities = tf.Variable([[0.5, 0.5]])
    with tf.GradientTape() as tape:
        results = propagated(probs, similarities, tf.eye(3)[:2], 0.5)
        total = tf.add_n([tf.reduce_sum(r[:, :1]) for r in results])
    assert tape.gradient(total, [probs, similarities]) == [None, None]


def test_the_strong_view_alone_learns_similarities(float64):
    """The projector's gradient is that with constant targets."""
    batch = tiny_batch()
    algorithm = tiny_algorithm("simmatch", bank_size=12, confidence_threshold=1)
    filled(algorithm, 0)
    views = (
        batch["labeled"]["weak"],
        *(batch["unlabeled"][view] for view in ("weak", "strong")),
    )
    features, logits = algorithm.forward(algorithm.student_and_features, *views)
    probs = algorithm.uniformly_aligned(tf.nn.softmax(logits[1]))
    weak = tf.math.l2_normalize(algorithm.projector(features[1]), -1)
    _, similar = propagated(
        probs,
        tf.nn.softmax(algorithm.similarities(weak)),
        algorithm.bank_label.value,
        0.9,
    )
    similar = similar.numpy()
    variables = [v.value for v in algorithm.projector.trainable_variables]
    with tf.GradientTape() as tape:
        strong = tf.math.l2_normalize(algorithm.projector(features[2]), -1)
        logits = algorithm.similarities(strong)
        losses = -tf.reduce_sum(similar * tf.nn.log_softmax(logits), 1)
        loss = tf.reduce_mean(losses)
    expected = tape.gradient(loss, variables)
    with tf.GradientTape() as tape:
        loss = algorithm.compute_losses(batch)
    for a, b in zip(tape.gradient(loss, variables), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)
        assert np.abs(b).max() > 1e-9


def test_the_projector_is_trained():
    algorithm = tiny_algorithm("simmatch", bank_size=12)
    before = values(algorithm.projector)
    run(algorithm, tiny_batch(), tiny_batch(seed=1))
    for a, b in zip(before, values(algorithm.projector), strict=True):
        assert not np.array_equal(a, b)


def test_alignment_can_be_switched_off():
    algorithm = tiny_algorithm("simmatch", uniform_alignment=False)
    probs = tf.constant([[0.5, 0.25, 0.25]])
    assert algorithm.uniformly_aligned(probs) is probs
    np.testing.assert_allclose(algorithm.mean_probs, [1 / 3] * 3)


def test_settings_without_effect():
    cls = hyperparameters_class("simmatch")
    assert cls().without_effect == {}
    assert set(cls(uniform_alignment=False).without_effect) == {
        "statistics_decay"
    }
    assert cls(instance_loss_weight=0.0).without_effect == {}
    off = cls(instance_loss_weight=0.0, semantic_share=1.0)
    assert set(off.without_effect) == {
        "similarity_temperature",
        "bank_size",
        "projection_size",
    }
