"""Dash against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    assert_same,
    fixmatch_predictions,
    labeled_losses,
    run,
    sharp_algorithm,
    tiny_algorithm,
    tiny_batch,
    trained_under,
)
from tf_metassl.algorithms import hyperparameters_class


def at_step(algorithm, step, first_loss=None):
    algorithm.optimizer.iterations.assign(step)
    if first_loss is not None:
        algorithm.first_loss.assign(first_loss)


def test_the_threshold_by_hand():
    algorithm = tiny_algorithm(
        "dash",
        labeled_warmup_steps=4,
        loss_threshold_steps=3,
        loss_threshold_factor=2.0,
        loss_threshold_divisor=4.0,
        min_loss_threshold=0.1,
    )
    found = []
    for step in (0, 4, 6, 7, 9, 10, 13):
        at_step(algorithm, step, 0.8)
        found.append(float(algorithm.threshold()))
    constant = hyperparameters_class("dash")(loss_threshold_divisor=1.0)
    assert set(constant.without_effect) == {"loss_threshold_steps"}
    # 1.6, then a quarter of it every three steps, but at least 0.1.
    expected = [1.6, 1.6, 1.6, 0.4, 0.4, 0.1, 0.1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("step, sharpened", [(5, True), (50, False)])
def test_dash_by_hand(step, sharpened, float64):
    batch = tiny_batch()
    algorithm = sharp_algorithm(
        "dash",
        labeled_warmup_steps=2,
        loss_threshold_steps=10,
        loss_threshold_divisor=1.5,
        min_loss_threshold=0.3,
        temperature=0.5,
        unlabeled_loss_weight=3.0,
    )
    at_step(algorithm, step, 0.6)
    labeled, weak, strong = fixmatch_predictions(algorithm, batch)
    loss = float(algorithm.compute_losses(batch))
    # What is measured after the warm-up stays.
    assert float(algorithm.first_loss) == 0.6

    threshold = 0.6 * 1.0001 if sharpened else 0.3
    mask = -np.log(weak.max(1)) <= threshold
    assert 0 < mask.sum() < 16
    target = np.eye(3)[weak.argmax(1)]
    if sharpened:
        target = weak**2 / (weak**2).sum(1, keepdims=True)
    losses = -(target * np.log(strong)).sum(1)
    # The mean over the selected images, not over all.
    expected = labeled_losses(batch, labeled).mean()
    expected += 3.0 * losses[mask].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(
        algorithm.metric("selected_share"), mask.mean(), rtol=1e-6
    )


def test_the_warm_up_learns_labeled_images_and_measures_their_loss():
    algorithm = tiny_algorithm("dash", labeled_warmup_steps=3)
    label = tf.one_hot([0, 0], 3)
    sure = tf.constant([[9.0, 0.0, 0.0]] * 4)
    expected = 0.0
    for step, prob in enumerate([0.5, 0.25, 0.8, 0.4, 0.9]):
        at_step(algorithm, step)
        rest = (1 - prob) / 2
        logits = tf.math.log([[prob, rest, rest]] * 2)
        _, weight = algorithm.targets(label, logits, sure, None)
        # Three steps of warm-up; the first of the selection is measured too.
        assert weight.numpy().tolist() == [float(step >= 3)] * 4
        if step == 0:
            expected = -np.log(prob)
        elif step <= 3:
            expected = 0.9 * expected - 0.1 * np.log(prob)
        assert float(algorithm.first_loss) == pytest.approx(expected, rel=1e-5)


def test_a_loss_at_the_threshold_is_selected():
    logits = tf.constant([[np.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]], tf.float32)
    loss = -tf.nn.log_softmax(logits)[0, 0]
    algorithm = tiny_algorithm(
        "dash", labeled_warmup_steps=0, min_loss_threshold=float(loss)
    )
    at_step(algorithm, 9, 0.1)
    target, weight = algorithm.targets(
        tf.one_hot([0], 3), logits[:1], logits, 0
    )
    assert weight.numpy().tolist() == [1, 0]
    # At the lower bound targets are one-hot.
    np.testing.assert_array_equal(target[0], [1, 0, 0])


def test_without_a_selected_image_the_loss_is_zero():
    algorithm = tiny_algorithm("dash")
    losses = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        loss = algorithm.unlabeled_loss(losses, tf.zeros([2]))
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, losses), [0, 0])


def test_no_gradient_passes_through_targets_and_threshold():
    algorithm = sharp_algorithm("dash", labeled_warmup_steps=0)
    at_step(algorithm, 1, 9.0)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 8, 3)).astype(np.float32)
    logits = [tf.Variable(draw) for draw in draws]
    with tf.GradientTape() as tape:
        target, weight = algorithm.targets(
            tf.one_hot([0] * 8, 3), *logits, None
        )
        total = tf.reduce_sum(target[:, 0] * weight)
    assert float(total) > 0
    assert tape.gradient(total, logits) == [None, None]


@pytest.mark.slow
def test_replicas_share_the_threshold(two_replicas, float64):
    """Past the warm-up, which the tests of all methods do not reach."""
    settings = {
        "labeled_warmup_steps": 2,
        "loss_threshold_steps": 1,
        "min_loss_threshold": 0.9,
    }
    batches = [tiny_batch(16, 32, seed=seed) for seed in range(8)]
    (one, metrics), (two, _) = (
        trained_under(strategy, "dash", batches, **settings)
        for strategy in (tf.distribute.get_strategy(), two_replicas)
    )
    assert 0 < metrics["selected_share"] < 1
    assert_same(one, two, rtol=1e-5, atol=1e-7)


def test_the_selection_trains():
    algorithm = tiny_algorithm(
        "dash", labeled_warmup_steps=1, loss_threshold_factor=9.0
    )
    batches = [tiny_batch(seed=seed) for seed in range(2)]
    assert run(algorithm, batches[0])["unlabeled_loss"] == 0
    assert run(algorithm, batches[1])["unlabeled_loss"] > 0
