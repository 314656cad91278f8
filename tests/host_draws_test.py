"""Seeds of the pipeline: names and numbers make different ones."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.data import host_draws

SEED = tf.constant([3, 5], tf.int32)


def test_seeds_depend_on_every_name_and_number_and_their_order():
    items = [(), ("a",), ("b",), (0,), (1,), ("a", 1), (1, "a"), ("a", "b")]
    seeds = [host_draws.fold_in(SEED, *item) for item in items]
    assert len({tuple(seed.numpy()) for seed in seeds}) == len(items)
    step = tf.constant(1, tf.int64)
    np.testing.assert_array_equal(host_draws.fold_in(SEED, step), seeds[4])


def test_seeds_of_old_runs_stay_the_same():
    folded = host_draws.fold_in(SEED, "unlabeled", 7, "weak_1", "weak")
    assert folded.numpy().tolist() == [-1883580998, 1060547780]
    assert [seed.numpy().tolist() for seed in host_draws.split(SEED, 2)] == [
        [-1045986709, 1091324095],
        [145713228, -1942854767],
    ]


def test_splitting_gives_independent_seeds():
    seeds = host_draws.split(SEED, 3)
    draws = [host_draws.uniform([1000], seed).numpy() for seed in seeds]
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.15
    with pytest.raises(ValueError, match=r"expected integers \[2\], got int32"):
        host_draws.split(7, 2)
    with pytest.raises(ValueError, match=r"expected integers \[2\], got float"):
        host_draws.split([1.0, 2.0], 2)


def test_numbers_are_in_their_range():
    values = host_draws.uniform([10_000], SEED, -2.0, 1.0).numpy()
    assert values.dtype == np.float32
    assert -2 <= values.min() < -1.99 and 0.99 < values.max() < 1
    values = host_draws.integers([1000], SEED, -1, 2).numpy()
    assert values.dtype == np.int32 and set(values) == {-1, 0, 1, 2}
    values = host_draws.normal([10_000], SEED, 3.0).numpy()
    assert abs(values.mean()) < 0.1 and abs(values.std() - 3) < 0.1
