"""The costs that a run is going to have."""

import dataclasses

import pytest

from tf_metassl import config
from tf_metassl.models import costs
from tf_metassl.run import forecast
from tf_metassl.run.build import build_experiment


@pytest.fixture(scope="module")
def experiment():
    return build_experiment(
        config.resolve({"algo": "fixmatch", "num_steps": 10, "batch_size": 8})
    )


def test_costs_are_those_of_all_views(experiment):
    network = costs.of(experiment.algorithm.student)
    found = forecast.of(experiment)
    # 8 weak ones with a label, 16 weak and 16 strong ones without.
    assert found.views == 8 + 2 * 16
    assert found.flops == network.flops
    assert found.step_bytes == 40 * network.activation_bytes
    assert found.total_flops == 3 * 40 * 10 * network.flops
    assert forecast.line(experiment) == ""
    assert forecast.warnings(experiment) == []


def changed(experiment, **settings):
    return dataclasses.replace(
        experiment, config=dataclasses.replace(experiment.config, **settings)
    )


def test_a_network_of_ones_own_is_not_known(experiment):
    own = changed(experiment, model="module:function")
    assert forecast.of(own) is None
    assert forecast.line(own) == "" and forecast.warnings(own) == []


@pytest.mark.parametrize(
    "change, flops, expected",
    [
        # All of them are evaluated every 300 steps.
        ({}, 1e8, 50),
        ({}, 1.5e9, 6),
        ({}, 1e12, 1),
        ({"num_steps": 2000}, 1e8, 1),
        # It cannot be counted.
        ({"model": "module:function"}, 1e8, 1),
    ],
)
def test_the_steps_of_a_call_are_over_soon(
    experiment, monkeypatch, change, flops, expected
):
    change = {"num_steps": 3000, "evaluate_every": 300, **change}
    longer = changed(experiment, steps_per_execution=0, **change)
    steps = longer.config.num_steps
    found = forecast.of(longer)
    if found:
        found = dataclasses.replace(found, total_flops=flops * steps)
    monkeypatch.setattr(forecast, "of", lambda _: found)
    assert forecast.steps_per_call(longer) == expected


LARGE = forecast.Forecast(
    flops=21_010_000_000,
    image_bytes=320 * 2**20,
    views=192,
    step_bytes=60 * 2**30,
    total_flops=6e16,
)


def test_the_plan_says_what_a_large_network_costs(experiment, monkeypatch):
    monkeypatch.setattr(forecast, "of", lambda _: LARGE)
    costs = (
        "21 GFLOP and 320 MiB of activations per image; 192 views a step, up "
        "to 60 GiB"
    )
    assert forecast.line(experiment) == costs
    own = changed(experiment, dataset="folder", model="wrn_28_2")
    assert forecast.line(own) == f"the default for 8x8 pixels; {costs}"
    own = changed(experiment, dataset="folder", model="wrn_28_10")
    assert forecast.line(own) == costs


def test_warnings_about_memory_and_time(experiment, monkeypatch):
    monkeypatch.setattr(forecast, "of", lambda _: LARGE)
    monkeypatch.setattr(forecast, "_memory", lambda: 32 * 2**30)
    monkeypatch.setattr(forecast, "_flops_per_second", lambda: 1e11)
    memory, hours = forecast.warnings(experiment)
    assert "up to 60 GiB of memory" in memory
    assert "--image_size or --batch_size" in memory
    assert "at least 167 hours" in hours and "--num_steps" in hours
    assert forecast.warnings(changed(experiment, remat=True)) == [hours]
    monkeypatch.setattr(forecast, "_flops_per_second", lambda: 1e14)
    monkeypatch.setattr(forecast, "_memory", lambda: 0)
    assert forecast.warnings(experiment) == []


def test_speed_is_measured():
    assert forecast._flops_per_second(size=64) > 1e6
    assert forecast._memory() >= 0
