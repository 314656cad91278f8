"""The benchmark of training steps, on a small network."""

import numpy as np
import pytest

from tf_metassl import algorithms
from tools import benchmark_steps


def test_passes_are_counted_for_every_method():
    size = benchmark_steps.NETWORK["batch_size"]
    for algo in algorithms.ALGORITHMS:
        assert benchmark_steps.counted(algo) >= 3 * size
    assert benchmark_steps.counted("supervised") == 3 * size
    # Twice as many unlabeled images, with a weak and a strong view each.
    assert benchmark_steps.counted("fixmatch") == 3 * size + 2 * size * 6
    # Two strong views, where the paper has eight.
    assert benchmark_steps.counted("remixmatch") == 4 * size + 2 * size * 16


def test_a_row():
    steps = np.array([[2.0, 9.0], [2.0, 9.0]])
    found = {
        "now": {
            "first": [8.0, 9.0],
            "steps": steps,
            "forward": np.array([[1.28, 9.0]]),
        },
        "before": {"first": [16.0, 9.0], "steps": 2 * steps},
    }
    # A forward pass is of 128 images: 0.01 s each.
    assert benchmark_steps.row("supervised", found) == [
        *("supervised", "2000", "192", "200", "1.04", "8.0"),
        *("0.50 (0.50 ... 0.50)", "0.50"),
    ]


@pytest.mark.exhaustive
def test_steps_of_two_trees_are_timed(monkeypatch):
    small = {"model": "digits_cnn", "image_shape": [8, 8, 1], "batch_size": 8}
    monkeypatch.setattr(benchmark_steps, "NETWORK", small)
    here, asked = benchmark_steps.ROOT, benchmark_steps.request
    cases = {
        "now": (here, asked("supervised")),
        "replicas": (here, asked("supervised", replicas=2)),
        # Its batches have probes beside the views.
        "probes": (here, asked("remixmatch")),
        # An earlier version does not know a method.
        "before": (here, asked("no_such_method")),
    }
    found = benchmark_steps.measure(cases, 2, 0.01)
    assert found.keys() == {"now", "replicas", "probes"}
    for timing in found.values():
        assert timing["steps"].shape == timing["forward"].shape == (2, 2)
        assert (timing["steps"] > 0).all()
