"""CTAugment's rates, against sums done by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import augmentation_rates as rates_lib

NAMES = list(rates_lib.BINS)


def test_initial_rates_are_one_where_there_is_a_bin():
    rates = rates_lib.initial().numpy()
    assert rates.shape == (19, 2, 17)
    assert set(np.unique(rates)) == {0.0, 1.0}
    sums = dict(zip(NAMES, rates.sum(-1).tolist(), strict=True))
    assert sums["rescale"] == [17, 6]
    assert sums["posterize"] == [8, 0]
    assert sums["identity"] == [0, 0]
    assert sums["rotate"] == [17, 0]


def test_only_bins_nearly_as_good_as_the_best_are_drawn():
    rates = rates_lib.initial().numpy()
    row = NAMES.index("posterize")
    rates[row, 0, :8] = [0.99, 0.79, 0.78, 0.5, 0.0, 0.89, 0.99, 0.2]
    # (0.99, 0.79, 0.89, 0.99) + 0.01 out of 1; 0.79 / 1 is below 0.8.
    kept = np.array([1.0, 0.8, 0, 0, 0, 0.9, 1.0, 0])
    share = rates_lib.probabilities(rates).numpy()
    np.testing.assert_allclose(share[row, 0, :8], kept / 3.7, rtol=1e-6)
    assert not share[row, 0, 8:].any() and not share[row, 1].any()
    exists = rates_lib.initial().numpy().any(-1)
    np.testing.assert_allclose(share.sum(-1), exists, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_images_move_the_rates_one_after_the_other(jit_compile):
    rescale, rotate, identity = map(
        NAMES.index, ("rescale", "rotate", "identity")
    )
    op = tf.constant([[rescale, identity], [rotate, rescale]])
    bins = tf.constant([[[3, 5], [0, 0]], [[16, 0], [3, 2]]])
    proximity = tf.constant([0.5, 0.0])
    update = tf.function(rates_lib.update, jit_compile=jit_compile)
    new = update(rates_lib.initial(), op, bins, proximity, decay=0.9).numpy()
    expected = rates_lib.initial().numpy()
    first = 0.9 * 1 + 0.1 * 0.5
    expected[rescale, 0, 3] = 0.9 * first  # Hit by both images.
    expected[rescale, 1, 5] = first
    expected[rescale, 1, 2] = 0.9
    expected[rotate, 0, 16] = 0.9
    np.testing.assert_allclose(new, expected, rtol=1e-6)


def test_ranks_are_checked():
    with pytest.raises(ValueError, match="proximity: expected .* rank 1"):
        rates_lib.update(
            rates_lib.initial(),
            tf.zeros([4, 2], tf.int32),
            tf.zeros([4, 2, 2], tf.int32),
            tf.zeros([4, 1]),
        )
