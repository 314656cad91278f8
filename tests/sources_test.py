"""A dataset is loaded by the loader of its row."""

import importlib

import pytest

from tf_metassl.data import sources
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.options import DataOptions


@pytest.mark.parametrize("name", DATASETS)
def test_the_loader_gets_its_row_and_the_options(name, monkeypatch, tmp_path):
    module, function = DATASETS[name].loader.split(":")
    monkeypatch.setattr(
        importlib.import_module(module), function, lambda *given: given
    )
    options = DataOptions(image_size=8)
    given = sources.load(name, options, tmp_path)
    assert given == (name, DATASETS[name], options, tmp_path)
    assert sources.load(name) == (name, DATASETS[name], DataOptions(), None)
