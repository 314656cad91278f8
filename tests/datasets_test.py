"""The registry of datasets names what exists."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

from tf_metassl import config
from tf_metassl.algorithms import ALGORITHMS
from tf_metassl.data import policies, sources
from tf_metassl.data.datasets import DATASETS


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_names_what_exists(name):
    dataset = DATASETS[name]
    assert dataset.weak_policy in policies.WEAK_POLICIES
    assert dataset.strong_policy in policies.STRONG_POLICIES
    module, function = dataset.loader.split(":")
    loader = getattr(__import__(module, fromlist=[function]), function)
    parameters = tuple(inspect.signature(loader).parameters)
    assert parameters == ("name", "dataset", "options", "run_dir")


@pytest.mark.parametrize("name", DATASETS)
def test_defaults_are_settings_and_allowed(name):
    defaults = DATASETS[name].defaults
    given = {"dataset": name, "algo": "mean_teacher"}
    resolved = config.resolve(given).to_json()
    resolved |= resolved.pop("hyperparameters")
    assert defaults.items() <= resolved.items()
    for algo in ALGORITHMS:
        config.resolve({"dataset": name, "algo": algo})


@pytest.mark.parametrize("name", DATASETS)
def test_pixel_statistics_are_in_the_scale_of_pixels(name):
    known = DATASETS[name].pixel_statistics
    if known is not None:
        assert np.shape(known) == (2, 3)
        assert 0 < np.min(known) and np.max(known) < 1


def test_the_flag_names_every_dataset():
    field = config.Config.__dataclass_fields__["dataset"]
    assert field.metadata["choices"] == tuple(DATASETS)


def test_the_registry_imports_no_tensorflow():
    code = (
        "import sys, tf_metassl.data.datasets;"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_small_images_have_the_policies_of_their_row():
    for name in ("digits", "two_moons"):
        source, row = sources.load(name), DATASETS[name]
        assert source.info.name == name
        assert source.weak_policy == row.weak_policy
        assert source.strong_policy == row.strong_policy
