"""Shared by all tests: two logical CPU devices, fixed seeds, float64."""

import ctypes
import gc
import os
import sys

# As the package sets it, which tests may import after TensorFlow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The workers of pytest-xdist have a core each. In the environment, so that the
# commands which tests start compute as the tests do: sums depend on threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.python.framework import ops  # noqa: E402

from tests import helpers  # noqa: E402

# glibc alone has it.
_malloc_trim = None
if sys.platform == "linux":
    _malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

# Two replicas for tests of strategies. Must come before TensorFlow is used.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


def pytest_collection_finish():
    """Makes collecting garbage cheap: no more looking at the libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def freed_graphs():
    """Frees the graphs that a test has traced, else workers grow to 5 GB.

    TensorFlow registers each custom gradient that is traced, such as the one of
    the sum over replicas in every Keras optimizer, and never forgets it; it
    holds the graph that it is in. Those of module fixtures are kept. Without a
    new graph, Python's own collector is enough.
    """
    gradients = ops.gradient_registry._registry
    kept = set(gradients)
    yield
    traced = gradients.keys() - kept
    if not traced:
        return
    for name in traced:
        del gradients[name]
    gc.collect()
    # The C library keeps what was freed, in pieces, unless it is told.
    if _malloc_trim:
        _malloc_trim(0)


@pytest.fixture(autouse=True)
def fixed_seed():
    """The same initial weights in every run and order of the tests."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """Networks and losses in double precision, for finite differences."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def eager():
    """See `helpers.eagerly`."""
    with helpers.eagerly():
        yield


@pytest.fixture(scope="session")
def two_replicas():
    """One strategy for all tests: its collectives are numbered per process."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
