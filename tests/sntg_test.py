"""SNTG: pairs, graph and contrastive loss by hand, on every base."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    loss_and_gradient,
    perturb,
    tiny_algorithm,
    tiny_batch,
    training_logits,
)
from tf_metassl import models
from tf_metassl.algorithms.sntg import graph_losses, pairs
from tf_metassl.meta import functional

SETTINGS = {"unlabeled_loss_weight": 5.0, "unlabeled_ramp_steps": 0}


def test_pairs_are_made_in_blocks_of_two_labeled_rows():
    labeled = tf.constant([[1.0], [2], [3], [4]])
    unlabeled = tf.constant([[10.0], [11], [12], [13], [14], [15], [16], [17]])
    first, second = pairs(labeled, unlabeled)
    np.testing.assert_array_equal(first[:, 0], [1, 2, 10, 3, 4, 14])
    np.testing.assert_array_equal(second[:, 0], [11, 12, 13, 15, 16, 17])
    with pytest.raises(ValueError, match="--batch_size that is an even"):
        pairs(labeled[:3], unlabeled[:6])


def test_graph_losses_by_hand():
    first = tf.constant([[0.0, 0.0], [0.0, 0.0], [0.6, 0.0], [3.0, 0.0]])
    second = tf.constant([[0.0, 2.0], [0.6, 0.0], [0.0, 0.0], [0.0, 0.0]])
    losses = graph_losses(first, second, tf.constant([1.0, 1.0, 0.0, 0.0]))
    # d^2 is 2, 0.18, 0.18, 4.5: a mean over the two features.
    apart = (1 - np.sqrt(0.18)) ** 2
    np.testing.assert_allclose(losses, [2, 0.18, apart, 0], rtol=1e-6)


@pytest.mark.parametrize("same", (0.0, 1.0))
def test_equal_features_have_a_finite_gradient(same):
    features, same = tf.constant([[0.5, 0.5]]), tf.constant([same])
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = graph_losses(features, tf.stop_gradient(features), same)
    assert np.isfinite(tape.gradient(loss, features)).all()


def target_and_features(algorithm, batch, base):
    """Classes of the graph and features of both groups, by hand."""
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    student = algorithm.student
    groups = {
        "pi_model": ("weak_1", "weak_2"),
        "temporal_ensembling": ("weak",),
        "vat": ("weak",),
    }[base]
    images = [labeled["weak"], *(unlabeled[view] for view in groups)]
    batches = [images[:1], images[1:]] if base == "vat" else [images]
    logits, features = [], []
    for group in batches:
        (f, y), _ = functional.call(
            models.features(student),
            functional.parameters(student),
            functional.state(student),
            tf.concat(group, 0),
        )
        features.append(f.numpy())
        logits.append(y.numpy())
    features, logits = np.concatenate(features), np.concatenate(logits)
    target = logits[-16:].argmax(-1)
    if base == "temporal_ensembling":
        index = unlabeled["index"].numpy()
        target = algorithm.ensemble.numpy()[index].argmax(-1)
    return target, features[:8], features[8:24]


@pytest.mark.parametrize("base", ("pi_model", "temporal_ensembling", "vat"))
def test_the_base_and_the_neighbor_loss_are_added(base, float64):
    batch = tiny_batch()
    plain = tiny_algorithm(base, **SETTINGS)
    algorithm = tiny_algorithm(
        "sntg",
        sntg_base=base,
        sntg_weight=0.4,
        network=lambda role: plain.student,
        **SETTINGS,
    )
    if base == "temporal_ensembling":
        # The ensemble must be of another mind than the present student.
        for a in (plain, algorithm):
            table = np.random.default_rng(0).random(a.ensemble.shape)
            a.ensemble.assign(0.4 * table)
            a.num_predictions.assign(np.ones(a.num_predictions.shape))
    target, features_l, features_u = target_and_features(algorithm, batch, base)
    expected, _ = loss_and_gradient(plain, batch)
    actual, gradient = loss_and_gradient(algorithm, batch)
    label = batch["labeled"]["label"].numpy()
    total = 0
    for block in range(4):
        rows = np.concatenate(
            [features_l[2 * block :][:2], features_u[4 * block :][:4]]
        )
        # True labels stand for the predictions of labeled images.
        classes = np.concatenate(
            [label[2 * block :][:2], target[4 * block :][:4]]
        )
        for one, other in ((0, 3), (1, 4), (2, 5)):
            square = ((rows[one] - rows[other]) ** 2).mean()
            if classes[one] == classes[other]:
                total += square
            else:
                total += max(0, 1 - np.sqrt(square)) ** 2
    expected += 5 * 0.4 * total / 12
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradient)


def test_the_logits_are_those_of_the_student():
    algorithm, batch = tiny_algorithm("sntg"), tiny_batch()
    perturb(algorithm.student)
    images = batch["unlabeled"]["weak"]
    (expected,) = training_logits(algorithm.student, images)
    (output,) = algorithm.student_pass(images)
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5)
    assert output.features.shape == (16, 4)


def test_the_shared_network_adds_no_variables():
    sntg, base = tiny_algorithm("sntg"), tiny_algorithm("pi_model")
    assert len(sntg.weights) == len(base.weights)
    assert len({id(v) for v in sntg.variables}) == len(sntg.variables)


def test_equal_numbers_of_both_kinds_are_paired_in_all_ways():
    labeled = tf.reshape(tf.range(8.0), [8, 1])
    first, second = pairs(labeled, labeled + 100.0)
    found = list(zip(first[:, 0].numpy(), second[:, 0].numpy(), strict=True))
    assert found[:4] == [(0, 2), (1, 102), (100, 3), (101, 103)]
    assert found[4:] == [(4, 6), (5, 106), (104, 7), (105, 107)]
    with pytest.raises(ValueError, match="a multiple of 4 for each replica"):
        pairs(labeled[:6], labeled[:6])
