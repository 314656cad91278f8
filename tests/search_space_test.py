"""The ranges of a search as flags describe them."""

import subprocess
import sys

import pytest

from tf_metassl.errors import ConfigError
from tf_metassl.run import search_space
from tf_metassl.run.search_space import Range

GIVEN = {"algo": "fixmatch", "learning_rate": 0.03}


def test_lists_and_intervals():
    texts = [
        "learning_rate=log:0.01:0.3",
        "momentum=0.8:0.95",
        "unlabeled_batch_ratio=1:7",
        "batch_size=32,64",
        "optimizer=sgd,adam",
        "jit_compile=false,true",
    ]
    assert search_space.parse(texts, GIVEN) == (
        Range("learning_rate", 0.03, low=0.01, high=0.3, log=True),
        Range("momentum", 0.9, low=0.8, high=0.95),
        Range("unlabeled_batch_ratio", 2, low=1, high=7),
        Range("batch_size", 64, choices=(32, 64)),
        Range("optimizer", "sgd", choices=("sgd", "adam")),
        Range("jit_compile", False, choices=(False, True)),
    )


@pytest.mark.parametrize(
    "text, message",
    (
        ("learning_rate", "could not convert"),
        ("learning_rate=0.3:0.1", "expected low < high"),
        ("learning_rate=log:0:0.3", "a positive low, got 0"),
        ("learning_rate=lin:0.1:0.3", "expected low:high or log:low:high"),
        ("learning_rate=0.1,0.3", "do not include 0.03"),
        ("batch_size=30.5:70", "invalid literal"),
        ("batch_size=12,64", "must be a multiple of"),
        ("jit_compile=0,1", "expected true or false"),
        ("optimizer=sgd,lion", "--optimizer=lion: must be one of"),
        ("split_seed=0,1", "is not a setting .* that can be varied"),
        ("beta=1,2", "is not a setting of --algo=fixmatch"),
        ("tpu=a,local", "do not include|has no effect"),
    ),
)
def test_what_cannot_be_searched(text, message):
    given = {**GIVEN, "algo": "meta_semi"} if "12" in text else GIVEN
    with pytest.raises(ConfigError, match=message):
        search_space.parse([text], given)


def test_none_or_two_of_one():
    with pytest.raises(ConfigError, match="--search is missing"):
        search_space.parse([], GIVEN)
    with pytest.raises(ConfigError, match="momentum is given twice"):
        search_space.parse(["momentum=0.8:0.95"] * 2, GIVEN)


def test_importing_it_imports_no_tensorflow():
    code = (
        "import sys; from tf_metassl.run import search_space; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
