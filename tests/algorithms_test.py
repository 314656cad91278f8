"""The registry of the methods."""

import inspect
import subprocess
import sys

import pytest

from tf_metassl.algorithms import (
    ALGORITHMS,
    ALIASES,
    algorithm_class,
    hyperparameters_class,
)
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.hyperparameters import MetaSemi, Supervised


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_row_names_the_class_in_the_module_of_its_name(name):
    cls = algorithm_class(name)
    assert issubclass(cls, Algorithm)
    assert cls.__module__ == f"tf_metassl.algorithms.{name}"
    assert inspect.getdoc(cls)


def test_rows_have_their_hyperparameters():
    assert hyperparameters_class("supervised") is Supervised
    assert hyperparameters_class("meta_semi") is MetaSemi


def test_aliases_are_other_names_of_methods():
    assert set(ALIASES.values()) <= set(ALGORITHMS)
    assert not set(ALIASES) & set(ALGORITHMS)


def test_the_registry_imports_no_tensorflow():
    code = (
        "import sys, tf_metassl.algorithms;"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
