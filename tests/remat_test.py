"""Recomputed activations: the same numbers, the same gradients of any order."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.helpers import (
    EXAMPLES,
    NUM_CLASSES,
    mostly_exhaustive,
    run,
    tiny_algorithm,
    tiny_batch,
    values,
)
from tf_metassl import models
from tf_metassl.algorithms import ALGORITHMS
from tf_metassl.algorithms.reduced_meta_pseudo_labels import ReducedStudent
from tf_metassl.meta import functional
from tf_metassl.ops import remat
from tf_metassl.ops.losses import cross_entropy

# The loss on features is added to the method of its base.
SNTG = [
    ("sntg", {"sntg_base": "temporal_ensembling"}),
    ("sntg", {"sntg_base": "vat"}),
]


def residual_network(name="student", dropout=0.0):
    """Two residual blocks, batch norm and, if asked for, dropout."""
    pixels = keras.Input((6, 5, 1), dtype=keras.config.floatx())
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    for _ in range(2):
        y = layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))
        if dropout:
            y = layers.Dropout(dropout)(y)
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(NUM_CLASSES, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def pair(dropout=0.0):
    """The same network without and with recomputation."""
    networks = []
    for recompute in (False, True):
        keras.utils.set_random_seed(1)
        network = residual_network(dropout=dropout)
        if recompute:
            remat.switch_on(network)
        networks.append(network)
    return networks


def images_and_labels():
    batch = tiny_batch(8, 8)["labeled"]
    return batch["weak"], tf.one_hot(
        batch["label"], NUM_CLASSES, dtype="double"
    )


def loss_at(network, params):
    images, label = images_and_labels()
    logits, state = functional.call(
        network, params, functional.state(network), images
    )
    return cross_entropy(label, logits), state


def first_order(network):
    params = functional.parameters(network)
    with tf.GradientTape() as tape:
        tape.watch(params)
        losses, state = loss_at(network, params)
        loss = tf.reduce_mean(losses)
    return losses, state, functional.gradient(tape, loss, params)


def second_order(network):
    """Meta-Semi's meta gradient: through the gradient of the gradient."""
    params = functional.parameters(network)
    weight = tf.ones([8], params[0].dtype)
    with tf.GradientTape() as outer:
        outer.watch(weight)
        with tf.GradientTape() as inner:
            inner.watch(params)
            loss = tf.reduce_sum(weight * loss_at(network, params)[0])
        gradient = functional.gradient(inner, loss, params)
        ahead = [p - 0.1 * g for p, g in zip(params, gradient, strict=True)]
        loss = tf.reduce_mean(loss_at(network, ahead)[0])
    return outer.gradient(loss, weight)


def forward_mode(network):
    params = functional.parameters(network)
    tangent = [0.1 * tf.ones_like(p) for p in params]
    with tf.autodiff.ForwardAccumulator(params, tangent) as along:
        losses, _ = loss_at(network, params)
    return along.jvp(losses)


@pytest.mark.slow
@pytest.mark.parametrize(
    "jit_compile", mostly_exhaustive((False, True), [False])
)
@pytest.mark.parametrize("what", (first_order, second_order, forward_mode))
def test_it_changes_no_number(what, jit_compile, float64):
    plain, recomputed = (
        tf.function(what, jit_compile=jit_compile)(network)
        for network in pair(dropout=0.4)
    )
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        plain,
        recomputed,
    )


def test_nothing_between_the_parts_is_kept_for_the_gradient():
    """The backward pass of a graph reads what the forward pass left."""
    network = pair()[1]
    params = functional.parameters(network)
    (parts,) = network.recomputed_parts.sections
    assert len(parts) > 1

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(params)
            with tf.name_scope("forward"):
                loss = tf.reduce_sum(
                    functional.call(
                        network,
                        params,
                        functional.state(network),
                        images_and_labels()[0],
                    )[0]
                )
        with tf.name_scope("backward"):
            return tape.gradient(loss, params)

    operations = step.get_concrete_function().graph.get_operations()
    repeated = [op for op in operations if op.name.startswith("backward")]
    kept = {
        tensor.name: tensor.shape
        for op in repeated
        for tensor in op.inputs
        if tensor.name.startswith("forward/")
        and tensor.shape.rank == 4
        and tensor.shape[0] == 8  # Kernels have another first axis.
    }
    # The input, and one activation per cut between two parts.
    assert len(kept) <= len(parts), kept
    again = [op for op in repeated if op.type == "Conv2D"]
    assert len(again) == sum(op.type == "Conv2D" for op in operations) // 2


def test_parts_of_a_wide_resnet_end_at_its_blocks():
    network = models.build("wrn_16_1", (8, 8, 3), 10)
    parts = remat.segments(network)
    assert 3 <= len(parts) <= 9
    x = tf.random.stateless_uniform((2, 8, 8, 3), (0, 1), 0, 255)
    expected = network(x)
    for part in parts:
        x = part(x)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    shared = [v for part in parts for v in part.weights]
    assert {id(v) for v in shared} == {id(v) for v in network.weights}
    assert len(shared) == len(network.weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, hp",
    mostly_exhaustive(
        [
            ("supervised", {}),
            ("meta_semi", {}),
            ("meta_semi", {"meta_gradient": "forward_mode"}),
            ("meta_pseudo_labels", {}),
            ("meta_pseudo_labels", {"feedback": "exact_soft"}),
            ("sntg", {}),
            ("sntg", {"sntg_base": "vat"}),
            ("remixmatch", {}),
            ("enaet", {}),
        ],
        [("supervised", {}), ("meta_semi", {}), ("sntg", {})],
    ),
)
def test_a_step_is_the_same(name, hp, float64, eager):
    results = []
    for recompute in (False, True):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(
            name,
            network=lambda role: residual_network(role, dropout=0.2),
            recompute=recompute,
            **hp,
        )
        step = algorithm.make_train_function()
        for seed in range(3):
            batch = tiny_batch(seed=seed)
            step(iter(tf.data.Dataset.from_tensors(batch)))
        results.append(
            [
                value
                for role in algorithm.roles
                for value in values(getattr(algorithm, role))
            ]
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.fixture
def run_whole(monkeypatch):
    """Names of the networks that run in training mode in one piece."""
    names, whole = set(), residual_network()
    functional_model = type(whole)
    call = functional_model.call

    def spied(self, inputs, training=None, mask=None, **kwargs):
        if training and len(self.layers) >= len(whole.layers):
            names.add(self.name)
        return call(self, inputs, training=training, mask=mask, **kwargs)

    monkeypatch.setattr(functional_model, "call", spied)
    return names


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, hp",
    mostly_exhaustive(
        [*((name, {}) for name in ALGORITHMS), *SNTG],
        [*((name, {}) for name in EXAMPLES), *SNTG],
    ),
)
def test_no_method_runs_a_network_in_one_piece(name, hp, run_whole, eager):
    algorithm = tiny_algorithm(
        name, network=residual_network, recompute=True, **hp
    )
    algorithm.train_step(tiny_batch())
    assert not run_whole


def test_without_remat_the_network_runs_in_one_piece(run_whole):
    tiny_algorithm("sntg", network=residual_network).train_step(tiny_batch())
    assert run_whole == {"student_features"}


@pytest.mark.parametrize(
    "name, cls",
    [
        ("meta_pseudo_labels", None),
        ("reduced_meta_pseudo_labels", ReducedStudent),
    ],
)
def test_finetuning_recomputes_too(name, cls, run_whole, eager):
    algorithm = tiny_algorithm(
        name, cls=cls, network=residual_network, recompute=True
    )
    algorithm.train_step(tiny_batch())
    (stage,) = algorithm.later_stages()
    run(stage.build(), tiny_batch())
    assert not run_whole


def test_a_network_that_is_not_functional_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="--remat cuts functional"):
        remat.switch_on(Subclassed())


def test_networks_that_call_a_layer_twice_are_refused():
    x = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    network = keras.Model(x, keras.layers.Dense(2)(shared(shared(x))))
    with pytest.raises(ValueError, match="shared is called 2 times"):
        remat.switch_on(network)
