"""Golden values of the released Meta Pseudo Labels schedule."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.schedules import WarmupCosine, linear_ramp


@pytest.mark.parametrize(
    "step, rate",
    [(2999, 0), (3000, 1e-5), (5499, 0.025), (7999, 0.05), (154000, 0.025)],
)
def test_students_schedule(step, rate):
    schedule = WarmupCosine(0.05, 300_000, warmup_steps=5000, wait_steps=3000)
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-4)


@pytest.mark.parametrize("step, rate", [(0, 1e-5), (2999, 0.03)])
def test_teachers_schedule(step, rate):
    schedule = WarmupCosine(0.05, 300_000, warmup_steps=5000)
    np.testing.assert_allclose(schedule(tf.constant(step)), rate, rtol=1e-5)


def test_it_ends_at_zero_and_stays_there():
    schedule = WarmupCosine(0.1, 10)
    np.testing.assert_allclose(schedule(0), 0.1, rtol=1e-6)
    np.testing.assert_allclose(schedule(10), 0, atol=1e-9)
    np.testing.assert_allclose(schedule(15), 0, atol=1e-9)
    assert WarmupCosine.from_config(schedule.get_config())(3) == schedule(3)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="must leave some of num_steps"):
        WarmupCosine(0.1, 10, warmup_steps=6, wait_steps=4)


def test_linear_ramp():
    values = [float(linear_ramp(step, 4)) for step in (0, 1, 4, 9)]
    assert values == [0, 0.25, 1, 1]
    assert float(linear_ramp(0, 0)) == 1
