"""Temporal Ensembling: the recursion over epochs by hand."""

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    loss_and_gradient,
    numpy_cross_entropy,
    perturb,
    softmax,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
)


def logits_of(algorithm, batch):
    return training_logits(
        algorithm.student, batch["labeled"]["weak"], batch["unlabeled"]["weak"]
    )


def test_three_epochs_by_hand(float64):
    algorithm = tiny_algorithm(
        "temporal_ensembling",
        unlabeled_loss_weight=30.0,
        unlabeled_ramp_steps=0,
        ensemble_momentum=0.6,
    )
    batch = tiny_batch()
    index = 3 * np.arange(16) % NUM_IMAGES
    batch["unlabeled"]["index"] = tf.constant(index)
    label = batch["labeled"]["label"].numpy()
    ensemble = np.zeros((16, NUM_CLASSES))
    for epoch in range(3):
        labeled, unlabeled = logits_of(algorithm, batch)
        probs = softmax(unlabeled)
        expected = numpy_cross_entropy(label, labeled)
        if epoch:
            target = ensemble / (1 - 0.6**epoch)
            np.testing.assert_allclose(target.sum(-1), np.ones(16), rtol=1e-6)
            expected += 30 * ((probs - target) ** 2).sum() / (16 * 3)
        loss, _ = loss_and_gradient(algorithm, batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        ensemble = 0.6 * ensemble + 0.4 * probs
        table = algorithm.ensemble.numpy()
        np.testing.assert_allclose(table[index], ensemble, rtol=1e-6)
        assert np.count_nonzero(table) == ensemble.size
        perturb(algorithm.student, seed=epoch)
    counts = np.zeros(NUM_IMAGES)
    counts[index] = 3
    np.testing.assert_array_equal(algorithm.num_predictions, counts)


def test_an_image_seen_for_the_first_time_has_no_loss_and_no_gradient(float64):
    batch, network = tiny_batch(), tiny_network()
    results = []
    for weight in (0.0, 100.0):
        algorithm = tiny_algorithm(
            "temporal_ensembling",
            unlabeled_loss_weight=weight,
            unlabeled_ramp_steps=0,
            network=lambda role: network,
        )
        results.append(loss_and_gradient(algorithm, batch))
    (loss, gradient), (weighted, weighted_gradient) = results
    assert np.isfinite(loss)
    np.testing.assert_allclose(loss, weighted, rtol=1e-12)
    for a, b in zip(gradient, weighted_gradient, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_ensemble_is_the_same_on_two_replicas(two_replicas):
    batch = tiny_batch(16, 32)
    # The last image of the first replica comes again on the second, as where
    # an epoch ends inside a batch: its first prediction counts.
    index = np.arange(32)
    index[20] = 15
    batch["unlabeled"]["index"] = tf.constant(index)
    tables = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            algorithm = tiny_algorithm("temporal_ensembling")
        step = algorithm.make_train_function()
        dataset = tf.data.Dataset.from_tensors(batch)
        step(iter(strategy.experimental_distribute_dataset(dataset)))
        tables.append(algorithm.ensemble.value)
        np.testing.assert_allclose(tables[-1][20], np.zeros(NUM_CLASSES))
    local = [
        r.numpy() for r in two_replicas.experimental_local_results(tables[1])
    ]
    np.testing.assert_array_equal(*local)
    assert (local[0][:20] > 0).all()
