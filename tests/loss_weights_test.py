"""Every term of a loss reaches the first layer of the network it trains."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.helpers import (
    NUM_CLASSES,
    NUM_IMAGES,
    pooling_network,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
    training_logits,
)
from tf_metassl.algorithms import ALGORITHMS, hyperparameters_class


def hyperparameters_of(name):
    return [
        field.name for field in dataclasses.fields(hyperparameters_class(name))
    ]


# Hyperparameters that weigh a term of the loss, of all methods.
WEIGHTS = [
    (name, setting)
    for name in ALGORITHMS
    for setting in hyperparameters_of(name)
    if setting.endswith("_weight")
]


# What the terms of a method need.
NETWORKS = {"swwae": pooling_network}


def gradients(name, **hp):
    """Role -> gradient of the first kernel in the first step, unclipped.

    Ramps have ended, every pseudo-label is confident enough, and what a method
    remembers of earlier steps is there.
    """
    at_once = {
        setting: 0
        for setting in hyperparameters_of(name)
        if setting.endswith("_ramp_steps")
        or setting in ("confidence_threshold", "labeled_warmup_steps")
    }
    keras.utils.set_random_seed(1)
    network = NETWORKS.get(name, tiny_network)
    algorithm = tiny_algorithm(
        name, network=network, weight_decay=0.0, **at_once | hp
    )
    batch = tiny_batch()
    # Else all images would be of one class.
    head = algorithm.student.get_layer("logits")
    (logits,) = training_logits(algorithm.student, batch["unlabeled"]["strong"])
    head.bias.assign(-logits.mean(0))
    table = np.random.default_rng(0).dirichlet([1] * NUM_CLASSES, NUM_IMAGES)
    if hasattr(algorithm, "learn_from"):
        algorithm.learn_from("teacher")
        algorithm.predictions.assign(np.log(table))
    if hasattr(algorithm, "ensemble"):
        momentum = algorithm.hyperparameters.ensemble_momentum
        algorithm.ensemble.assign((1 - momentum) * table)
        algorithm.num_predictions.assign(np.ones(NUM_IMAGES))
    if hasattr(algorithm, "bank"):
        # Else all but one of the few hidden units may be 0 for all images.
        bias = algorithm.projector.layers[0].bias
        bias.assign(np.ones(bias.shape))
        rows, width = algorithm.bank.shape
        algorithm.bank.assign(np.eye(width)[np.arange(rows) % width])
        algorithm.bank_label.assign(
            np.eye(NUM_CLASSES)[np.arange(rows) % NUM_CLASSES]
        )
    found = {}

    def captured(role, gradients):
        found[role] = gradients[0].numpy()

    algorithm.apply_gradients = captured
    algorithm.train_step(batch)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name, setting", WEIGHTS)
def test_a_term_has_a_gradient(name, setting, float64, eager):
    # Bases of SNTG, of which VAT alone has an entropy.
    bases = {
        ("sntg", "sntg_weight"): ("pi_model", "temporal_ensembling", "vat"),
        ("sntg", "entropy_weight"): ("vat",),
    }.get((name, setting), (None,))
    for base in bases:
        further = {"sntg_base": base} if base else {}
        # Not 0, with which some leave the term's images out of the batch.
        small = gradients(name, **further, **{setting: 1.0})
        large = gradients(name, **further, **{setting: 10.0})
        change = {
            role: np.abs(large[role] - small[role]).max() for role in small
        }
        assert max(change.values()) > 1e-4, (base, change)


def test_these_terms_are_among_them():
    named = {
        ("ict", "unlabeled_loss_weight"),
        ("vat", "entropy_weight"),
        ("remixmatch", "rotation_loss_weight"),
        ("enaet", "transformation_weight"),
        ("freematch", "fairness_weight"),
        ("simmatch", "instance_loss_weight"),
        ("crmatch", "feature_loss_weight"),
        ("meta_pseudo_labels", "uda_weight"),
        ("lga", "vat_weight"),
        ("swwae", "intermediate_weight"),
        ("cc_gan", "whole_image_weight"),
    }
    assert named <= set(WEIGHTS)
