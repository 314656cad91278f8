"""Draws are what they say they are, whoever compiles them."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops import draws

SEED = tf.constant([5, 2**40 + 7], tf.int64)


@pytest.mark.parametrize("sample", [draws.uniform, draws.normal])
def test_xla_draws_the_same(sample):
    def draw():
        return sample([64, 3], draws.fold_step(SEED, 3))

    eager, compiled = draw(), tf.function(draw, jit_compile=True)()
    np.testing.assert_allclose(eager, compiled, rtol=1e-5, atol=1e-6)
    other = sample([64, 3], draws.fold_step(SEED, 4))
    assert np.abs(eager - other).max() > 0.1


def test_uniform_numbers_are_uniform():
    values = draws.uniform([100_000], SEED).numpy()
    assert values.dtype == np.float32
    assert 0 <= values.min() < 1e-4 and 1 - 1e-4 < values.max() < 1
    counts, _ = np.histogram(values, 10, (0, 1))
    assert np.abs(counts / 10_000 - 1).max() < 0.05


def test_normal_numbers_are_normal():
    values = draws.normal([100_000], SEED).numpy()
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert abs((np.abs(values) < 1.96).mean() - 0.95) < 0.003
    assert abs((values**4).mean() - 3) < 0.1
