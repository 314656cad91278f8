"""Settings of a dataset."""

import dataclasses

from tf_metassl.data import options as options_lib
from tf_metassl.data.options import DataOptions


def test_every_option_has_a_help_text():
    for field in dataclasses.fields(DataOptions):
        assert field.metadata["help"]


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = options_lib.cache_folder(DataOptions())
    assert folder == tmp_path / "tf_metassl"
    folder = options_lib.cache_folder(DataOptions(cache_dir="~/x"))
    assert folder.is_absolute() and folder.name == "x"
