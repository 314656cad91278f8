"""Losses of projections by hand, in NumPy and on two replicas."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import central_difference, on_replicas
from tf_metassl.ops import projections, replicas


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def nt_xent_by_hand(first, second, temperature):
    """Equation 1, view by view; `[N]`."""
    rows = unit(np.concatenate([first, second]))
    size, losses = len(first), []
    for i in range(2 * size):
        partner = (i + size) % (2 * size)
        scores = np.exp(rows @ rows[i] / temperature)
        others = scores.sum() - scores[i]
        losses.append(-np.log(scores[partner] / others))
    return np.reshape(losses, [2, size]).mean(axis=0)


def test_nt_xent_of_two_images_on_paper():
    # Both views of the first image point up, those of the second to the right;
    # lengths do not matter. Every view has one partner with cosine 1 and two
    # others with cosine 0.
    first = tf.constant([[0.0, 2.0], [3.0, 0.0]])
    second = tf.constant([[0.0, 5.0], [1.0, 0.0]])
    expected = -np.log(np.e**2 / (np.e**2 + 2))
    np.testing.assert_allclose(
        projections.nt_xent(first, second, 0.5), [expected] * 2, rtol=1e-6
    )
    # With itself, the view would be its own best match.
    assert expected == pytest.approx(0.2395, abs=1e-4)


@pytest.mark.parametrize("temperature", (0.1, 0.5, 2.0))
def test_nt_xent_by_hand(temperature):
    first, second = np.random.default_rng(0).normal(size=(2, 6, 4))
    np.testing.assert_allclose(
        projections.nt_xent(
            tf.constant(first), tf.constant(second), temperature
        ),
        nt_xent_by_hand(first, second, temperature),
    )


def test_nt_xent_has_the_gradient_of_its_formula():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 4))
    first, second = tf.Variable(first), tf.Variable(second)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(projections.nt_xent(first, second, 0.5))
    gradients = tape.gradient(loss, [first, second])
    for gradient, expected in zip(
        gradients,
        (
            central_difference(
                lambda x: nt_xent_by_hand(x, second.numpy(), 0.5).sum(),
                first.numpy(),
            ),
            central_difference(
                lambda x: nt_xent_by_hand(first.numpy(), x, 0.5).sum(),
                second.numpy(),
            ),
        ),
        strict=True,
    ):
        np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_the_negatives_are_those_of_all_replicas(two_replicas):
    """Losses and gradients are those of the whole batch on one device."""
    rows = np.random.default_rng(0).normal(size=(2, 6, 4))

    def losses_and_gradients(first, second):
        first, second = map(tf.convert_to_tensor, (first, second))
        with tf.GradientTape() as tape:
            tape.watch([first, second])
            losses = projections.nt_xent(first, second, 0.5)
            loss = replicas.share_of_mean(losses)
        gradients = tape.gradient(loss, [first, second])
        return tf.concat([losses[:, None], *gradients], axis=1)

    whole = losses_and_gradients(*rows).numpy()
    parts = on_replicas(
        two_replicas,
        lambda replica: losses_and_gradients(
            *tf.unstack(
                tf.gather(tf.reshape(rows, [2, 2, 3, 4]), replica, axis=1)
            )
        ),
    )
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-9)


def test_info_nce_on_paper():
    # Cosine 1 with the key; 0 and -1 with the negatives; temperature 1/2.
    losses = projections.info_nce(
        tf.constant([[3.0, 0.0]]),
        tf.constant([[7.0, 0.0]]),
        tf.constant([[0.0, 1.0], [-1.0, 0.0]]),
        0.5,
    )
    expected = -np.log(np.e**2 / (np.e**2 + 1 + np.e**-2))
    np.testing.assert_allclose(losses, [expected], rtol=1e-6)


def test_noise_contrast_on_paper():
    # Cosine 1 with the entry; 0 and -1 with the negatives; temperature 1/2.
    # The third negative is the image itself.
    losses = projections.noise_contrast(
        tf.constant([[3.0, 0.0]]),
        tf.constant([[1.0, 0.0]]),
        tf.constant([[0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]),
        tf.constant([[False, False, True]]),
        0.5,
    )
    noise = 1 + np.e**-2
    right = np.e**2 / (np.e**2 + noise)
    wrong = 1 / (1 + noise), np.e**-2 / (np.e**-2 + noise)
    expected = -np.log(right) - sum(np.log(1 - h) for h in wrong)
    np.testing.assert_allclose(losses, [expected], rtol=1e-6)


def test_prototype_contrast_on_paper():
    # Cosines 1 and 0, each divided by the concentration of its prototype.
    losses = projections.prototype_contrast(
        tf.constant([[3.0, 0.0], [3.0, 0.0]]),
        tf.constant([[1.0, 0.0], [0.0, 1.0]]),
        tf.constant([0.5, 0.1]),
        tf.constant([0, 1]),
    )
    own = np.array([np.e**2, 1.0])
    np.testing.assert_allclose(losses, -np.log(own / own.sum()), rtol=1e-6)


def test_cosine_distance_on_paper():
    predictions = tf.constant([[2.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    targets = tf.constant([[5.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    np.testing.assert_allclose(
        projections.cosine_distance(predictions, targets),
        [0.0, 2.0, 2.0 - np.sqrt(2.0), 4.0],
        atol=1e-6,
    )


def test_what_has_no_gradient():
    rows = [
        tf.Variable(np.random.default_rng(i).normal(size=(3, 4)))
        for i in range(3)
    ]
    with tf.GradientTape(persistent=True) as tape:
        nce = tf.reduce_sum(projections.info_nce(*rows, 0.5))
        distance = tf.reduce_sum(projections.cosine_distance(*rows[:2]))
        own = tf.zeros([3, 3], tf.bool)
        bank = tf.reduce_sum(projections.noise_contrast(*rows, own, 0.5))
        prototypes = tf.reduce_sum(
            projections.prototype_contrast(
                rows[0], rows[1], rows[2][:, 0], [0, 1, 2]
            )
        )
        spread = projections.spread(rows[0])
    first, *others = tape.gradient(nce, rows)
    assert np.abs(first).max() > 0 and others == [None, None]
    for loss in (bank, prototypes):
        first, *others = tape.gradient(loss, rows)
        assert np.abs(first).max() > 0 and others == [None, None]
    first, second, _ = tape.gradient(distance, rows)
    assert np.abs(first).max() > 0 and second is None
    assert tape.gradient(spread, rows[0]) is None


def test_spread_of_one_and_of_all_directions():
    rows = np.random.default_rng(0).normal(size=(2000, 16))
    assert float(projections.spread(rows)) == pytest.approx(1.0, abs=0.02)
    # Lengths are no spread.
    same = np.arange(1.0, 9.0)[:, None] * rows[:1]
    assert float(projections.spread(same)) == pytest.approx(0.0, abs=1e-6)
    two = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert float(projections.spread(two)) == pytest.approx(np.sqrt(2) / 2)


def test_spread_is_that_of_the_global_batch(two_replicas):
    rows = np.random.default_rng(0).normal(size=(6, 4)) + 1.0
    whole = float(projections.spread(tf.constant(rows)))
    parts = on_replicas(
        two_replicas,
        lambda replica: projections.spread(
            tf.gather(tf.reshape(rows, [2, 3, 4]), replica)
        ),
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-9)
