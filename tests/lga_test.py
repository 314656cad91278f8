"""Label gradient alignment: derivatives by differences, the loss by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    central_difference,
    gradient_of,
    inner_product,
    loss_and_gradient,
    numpy_cross_entropy,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
)
from tf_metassl.algorithms.lga import moved
from tf_metassl.meta import functional, label_gradients
from tf_metassl.ops.losses import cross_entropy


def logits_at(algorithm, images):
    """Predictions of a group as a function of the student's parameters."""
    state = functional.state(algorithm.student)
    pixels = tf.cast(images, "float64")
    return lambda params: functional.call(
        algorithm.student, params, state, pixels
    )[0]


def gradient_by(algorithm, images, label):
    """The gradient of the mean cross-entropy, in a pass of its own."""
    logits = logits_at(algorithm, images)
    return gradient_of(
        lambda params: tf.reduce_mean(cross_entropy(label, logits(params))),
        algorithm.student,
    )


def labels(batch, seed=0):
    """One-hot labels of the labeled group, some of the unlabeled one."""
    rng = np.random.default_rng(seed)
    one_hot = np.eye(NUM_CLASSES)[batch["labeled"]["label"].numpy()]
    return tf.constant(one_hot), rng.dirichlet([1] * NUM_CLASSES, 16)


def distance(algorithm, batch, one_hot, label):
    """The squared distance of both gradients."""
    images = (batch["labeled"]["weak"], batch["unlabeled"]["weak"])
    first, second = (
        gradient_by(algorithm, i, y)
        for i, y in zip(images, (one_hot, tf.constant(label)), strict=True)
    )
    change = [a - b for a, b in zip(first, second, strict=True)]
    return float(inner_product(change, change))


def aligned(algorithm, batch, one_hot, label):
    """What `alignment` finds for a batch."""
    return label_gradients.alignment(
        logits_at(algorithm, batch["unlabeled"]["weak"]),
        lambda logits: tf.constant(label),
        functional.parameters(algorithm.student),
        gradient_by(algorithm, batch["labeled"]["weak"], one_hot),
    )


def test_the_derivative_by_finite_differences(float64):
    algorithm, batch = tiny_algorithm("lga"), tiny_batch()
    one_hot, label = labels(batch)
    found = aligned(algorithm, batch, one_hot, label)

    def at(label):
        return distance(algorithm, batch, one_hot, label)

    np.testing.assert_allclose(found.distance, at(label), rtol=1e-9)
    np.testing.assert_allclose(
        found.derivative, central_difference(at, label), rtol=1e-6, atol=1e-9
    )


def test_a_step_brings_the_gradients_nearer(float64):
    algorithm, batch = tiny_algorithm("lga"), tiny_batch()
    one_hot, label = labels(batch)
    before = distance(algorithm, batch, one_hot, label)
    for _ in range(3):
        found = aligned(algorithm, batch, one_hot, label)
        label = moved(tf.constant(label), found.derivative, 0.02).numpy()
        np.testing.assert_allclose(label.sum(-1), 1.0)
        after = distance(algorithm, batch, one_hot, label)
        assert after < before
        before = after


def test_labels_are_moved_by_hand(float64):
    label = tf.constant([[0.5, 0.5], [1.0, 0.0]])
    # Slopes (1, -1) and (2, -2), whose root mean square is sqrt(2.5).
    derivative = tf.constant([[3.0, 1.0], [0.0, -4.0]], "float64")
    step = 0.1 * np.sqrt(2.5)
    np.testing.assert_allclose(
        moved(tf.cast(label, "float64"), derivative, step),
        [[0.4, 0.6], [0.8, 0.2]],
    )
    # No derivative, no step.
    np.testing.assert_array_equal(
        moved(tf.cast(label, "float64"), 0.0 * derivative, step), label
    )


@pytest.mark.parametrize("vat_weight", (0.0, 0.5))
def test_the_loss_by_hand(vat_weight, float64):
    algorithm = tiny_algorithm(
        "lga",
        unlabeled_loss_weight=3.0,
        unlabeled_ramp_steps=0,
        vat_weight=vat_weight,
    )
    batch = tiny_batch()
    one_hot, stored = labels(batch)
    index = 3 * np.arange(16) % NUM_IMAGES
    batch["unlabeled"]["index"] = tf.constant(index)
    # Half of the images have been seen.
    table = np.zeros((NUM_IMAGES, NUM_CLASSES))
    table[index[:8]] = stored[:8]
    algorithm.imputed_labels.assign(table)
    labeled, unlabeled = (
        training_logits(algorithm.student, batch[group]["weak"])[0]
        for group in ("labeled", "unlabeled")
    )
    label = np.where(np.arange(16)[:, None] < 8, stored, softmax(unlabeled))
    found = aligned(algorithm, batch, one_hot, label)
    label = moved(tf.constant(label), found.derivative, 0.1).numpy()
    expected = numpy_cross_entropy(one_hot.numpy(), labeled)
    expected += 3.0 * numpy_cross_entropy(label, unlabeled)
    if vat_weight:
        state = functional.state(algorithm.student)
        losses = algorithm.adversarial_losses(
            functional.parameters(algorithm.student),
            state,
            tf.cast(batch["unlabeled"]["weak"], "float64"),
            tf.constant(unlabeled),
        )
        expected += vat_weight * np.mean(losses)
    loss, gradient = loss_and_gradient(algorithm, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    after = algorithm.imputed_labels.numpy()
    np.testing.assert_allclose(after[index], label, rtol=1e-9)
    assert not after[np.setdiff1d(np.arange(NUM_IMAGES), index)].any()
    np.testing.assert_allclose(
        algorithm.metric("gradient_distance"), found.distance
    )
    if not vat_weight:
        # The labels are constants of the update: were they differentiated
        # through, the gradient would be another one.
        parts = (
            gradient_by(algorithm, batch["labeled"]["weak"], one_hot),
            gradient_by(
                algorithm, batch["unlabeled"]["weak"], tf.constant(label)
            ),
        )
        for got, a, b in zip(gradient, *parts, strict=True):
            np.testing.assert_allclose(got, a + 3.0 * b, rtol=1e-7, atol=1e-10)


def test_labels_stay_first_predictions_at_rate_0():
    algorithm = tiny_algorithm("lga", label_learning_rate=0.0)
    batch = tiny_batch()
    (logits,) = training_logits(algorithm.student, batch["unlabeled"]["weak"])
    for _ in range(2):
        algorithm.train_step(batch)
        np.testing.assert_allclose(
            algorithm.imputed_labels.numpy()[:16], softmax(logits), rtol=1e-4
        )


@pytest.mark.slow
def test_labels_are_the_same_on_two_replicas(two_replicas, float64):
    batch = tiny_batch(16, 32)
    tables = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm(
                "lga", network=lambda role: tiny_network(role, sync=True)
            )
        step = algorithm.make_train_function()
        dataset = tf.data.Dataset.from_tensors(batch)
        step(iter(strategy.experimental_distribute_dataset(dataset)))
        tables.append(algorithm.imputed_labels.value)
    local = [
        r.numpy() for r in two_replicas.experimental_local_results(tables[1])
    ]
    np.testing.assert_array_equal(*local)
    # A distance per replica, of gradients that are not summed, has another
    # derivative.
    np.testing.assert_allclose(tables[0].numpy(), local[0], rtol=1e-7)
