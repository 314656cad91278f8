"""Golden values of the schedules and ramps of public code."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.ops.schedules import (
    TimedSchedule,
    WarmupSchedule,
    linear_ramp,
    sigmoid_ramp,
)


@pytest.mark.parametrize(
    "step, rate",
    [(2999, 0), (3000, 1e-5), (5499, 0.025), (7999, 0.05), (154000, 0.025)],
)
def test_students_schedule(step, rate):
    schedule = WarmupSchedule(0.05, 300_000, warmup_steps=5000, wait_steps=3000)
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-4)


@pytest.mark.parametrize("step, rate", [(0, 1e-5), (2999, 0.03)])
def test_teachers_schedule(step, rate):
    schedule = WarmupSchedule(0.05, 300_000, warmup_steps=5000)
    np.testing.assert_allclose(schedule(tf.constant(step)), rate, rtol=1e-5)


def test_it_ends_at_zero_and_stays_there():
    schedule = WarmupSchedule(0.1, 10)
    np.testing.assert_allclose(schedule(0), 0.1, rtol=1e-6)
    np.testing.assert_allclose(schedule(10), 0, atol=1e-9)
    np.testing.assert_allclose(schedule(15), 0, atol=1e-9)
    assert WarmupSchedule.from_config(schedule.get_config())(3) == schedule(3)


def test_time_takes_the_schedule_to_its_end():
    elapsed = tf.Variable(0.0)
    steps = WarmupSchedule(0.1, 1000, warmup_steps=10)
    timed = TimedSchedule(steps, 1000, elapsed)
    # Half of the time is gone, but only 3 steps are done.
    for share, step, as_if in ((0, 3, 3), (0.5, 3, 500), (0.5, 600, 600)):
        elapsed.assign(share)
        np.testing.assert_allclose(timed(step), steps(as_if), rtol=1e-6)
    elapsed.assign(1.0)
    np.testing.assert_allclose(timed(4), 0, atol=1e-9)
    copy = TimedSchedule.from_config(timed.get_config())
    np.testing.assert_allclose(copy(4), timed(4))


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="must leave some of num_steps"):
        WarmupSchedule(0.1, 10, warmup_steps=6, wait_steps=4)


def test_linear_ramp():
    values = [float(linear_ramp(step, 4)) for step in (0, 1, 4, 9)]
    assert values == [0, 0.25, 1, 1]
    assert float(linear_ramp(0, 0)) == 1


@pytest.mark.parametrize(
    "step, rate",
    [(0, 0.03), (50, 0.03 * np.cos(7 * np.pi / 32)), (100, 0.03 * 0.19509)],
)
def test_seven_sixteenths_of_a_cosine(step, rate):
    schedule = WarmupSchedule(0.03, 100, shape="cosine_7_16")
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-5)


def test_a_constant_rate_warms_up_too():
    schedule = WarmupSchedule(0.5, 100, warmup_steps=4, shape="constant")
    rates = [float(schedule(step)) for step in (0, 1, 3, 4, 99, 200)]
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.5, 0.5, 0.5, 0.5])


def test_cycles_repeat_the_last_slice_of_the_cosine():
    """fast-SWA's CIFAR-10 setting: 180 epochs toward 210, cycles of 30."""
    schedule = WarmupSchedule(0.1, 300, cycle_start=180, cycle_steps=30)

    def cosine(epoch):
        return 0.05 * (1 + np.cos(np.pi * epoch / 210))

    expected = {
        0: 0,
        150: 150,
        179: 179,
        180: 150,
        209: 179,
        210: 150,
        255: 165,
    }
    for step, epoch in expected.items():
        np.testing.assert_allclose(schedule(step), cosine(epoch), rtol=1e-5)
    with pytest.raises(ValueError, match="--cycle_start=20 must come at least"):
        WarmupSchedule(0.1, 300, cycle_start=20, cycle_steps=30)


def test_sigmoid_ramp():
    values = [float(sigmoid_ramp(step, 4)) for step in (0, 2, 4, 9)]
    expected = [np.exp(-5), np.exp(-1.25), 1, 1]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert float(sigmoid_ramp(0, 0)) == 1
