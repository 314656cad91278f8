"""The benchmarks of evaluation, start, meta gradients and sums, small."""

import os
import pathlib
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tools import (
    benchmark,
    benchmark_batch_norm,
    benchmark_evaluation,
    benchmark_fixed,
    benchmark_meta,
    benchmark_peer,
    benchmark_run_memory,
    benchmark_scaling,
    benchmark_startup,
    benchmark_steps,
    benchmark_timing,
    startup_worker,
    step_worker,
)

SMALL = {"model": "digits_cnn", "image_shape": (8, 8, 3), "batch_size": 8}


def test_every_command_has_a_function():
    for line in benchmark.__doc__.splitlines():
        if "python tools/benchmark.py" in line:
            words = line.split()[2:]
            words = [w.replace("COMMIT", "HEAD") for w in words]
            args = benchmark.parser().parse_args(words)
            assert args.run.__name__ == f"run_{words[0]}"


def test_the_folder_is_made_before_the_work(tmp_path, monkeypatch):
    out = tmp_path / "new" / "results"
    seen = []
    monkeypatch.setattr(
        benchmark.benchmark_batch_norm,
        "run_batch_norm",
        lambda args: seen.append(out.is_dir()),
    )
    command = ["benchmark.py", "batch_norm", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", command)
    benchmark.main()
    assert seen == [True]


def test_functions_take_turns():
    order = []
    found = benchmark_timing.alternate(
        {name: lambda name=name: order.append(name) for name in "ab"},
        repeats=3,
        seconds=0.0,
    )
    # Twice each to begin with.
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3
    assert {values.shape for values in found.values()} == {(3, 2)}


def test_ratios_and_a_table():
    times = np.array([[1.0, 4.0], [3.0, 4.0]])
    assert benchmark_timing.ratios(times, 2 * times[:, ::-1]) == [
        "0.25 (0.15 ... 0.35)",
        "1.33 (0.80 ... 1.87)",
    ]
    assert benchmark_timing.milliseconds(times) == "2,000.0"
    assert benchmark_timing.table(["what", "ms"], [["a", "2"]]) == [
        "| what | ms |",
        "| --- | --: |",
        "| a | 2 |",
    ]


def test_a_part_inside_another_one_counts_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        startup_worker,
        "time",
        types.SimpleNamespace(process_time=lambda: now[0]),
    )
    parts = startup_worker.Parts()
    with parts.part("all"):
        now[0] += 1.0
        for _ in range(2):
            with parts.part("inner"):
                now[0] += 2.0
                with parts.part("innermost"):
                    now[0] += 4.0
        now[0] += 8.0
    assert parts.seconds == {"innermost": 8.0, "inner": 4.0, "all": 9.0}


def test_the_table_of_a_start():
    starts = [
        {"import TensorFlow": 3.0, "trace": 1.0, "rest": 2.0},
        {"import TensorFlow": 4.0, "trace": 1.0, "rest": 2.0},
    ]
    old = [{**start, "trace": 4.0} for start in starts]
    del old[0]["rest"], old[1]["rest"]
    assert benchmark_startup.rows({"now": starts, "before": old}) == [
        ["import TensorFlow", "3.50", "3.50", "1.00 (1.00 ... 1.00)"],
        ["trace", "1.00", "4.00", "0.25 (0.25 ... 0.25)"],
        # A part that an earlier version does not have.
        ["rest", "2.00", "0.00", ""],
        [
            "all after the import of TensorFlow",
            *("3.00", "4.00", "0.75 (0.75 ... 0.75)"),
        ],
    ]


@pytest.mark.exhaustive
def test_a_start_is_measured_by_parts():
    found = benchmark_startup.measure(
        benchmark_startup.benchmark_steps.ROOT,
        {"algo": "supervised", "num_steps": 3},
    )
    assert list(found)[:2] == ["import TensorFlow", "import the package"]
    assert {"trace", "input pipeline", "compile, run, and the rest"} < set(
        found
    )
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.slow
def test_an_evaluation_is_compared_with_a_bare_pass():
    built = benchmark_evaluation.experiment(21, 8, "digits_cnn", 8)
    found = benchmark_timing.alternate(
        benchmark_evaluation.functions(built), 1, 0.0
    )
    assert [values.shape for values in found.values()] == [(1, 2)] * 3


def test_signs_that_agree():
    share, base = benchmark_meta.agreement([1, 2, 3, -1], [1, -2, 3, -1])
    assert (share, base) == (0.75, 0.75)


@pytest.mark.exhaustive
def test_both_forms_of_the_meta_gradient_agree():
    parts = {
        form: step_worker.parts("meta_semi", {"meta_gradient": form}, **SMALL)
        for form in benchmark_meta.FORMS
    }
    first = parts["forward_mode"]
    first.step()
    found = benchmark_meta.meta_gradients(
        first.algorithm,
        {form: part.algorithm for form, part in parts.items()},
        first.iterator,
    )
    np.testing.assert_allclose(
        found["forward_mode"], found["nested_tape"], rtol=1e-3, atol=1e-6
    )
    assert len(found["nested_tape"]) == 16


@pytest.mark.exhaustive
def test_batch_norm_is_composed_on_request_alone(monkeypatch):
    kernels, raw = [], tf.raw_ops.FusedBatchNormV3

    def counted(**options):
        kernels.append(1)
        return raw(**options)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", counted)
    with benchmark_batch_norm.composed():
        step_worker.built("supervised", {}, **SMALL)[0]()
    assert not kernels
    steps = benchmark_batch_norm.pair("supervised", {}, SMALL)
    assert kernels and set(steps) == {"kernel", "composed"}
    assert keras.config.dtype_policy().name == "float32"


def test_the_time_of_sums_in_a_ring():
    sums = benchmark_scaling.Sums(calls=3, tensors=9, bytes=10**6)
    cluster = benchmark_scaling.Cluster(4, 1e9, 1e-3)
    # 3 ms to start them, and 1.5 MB to send.
    assert benchmark_scaling.seconds(sums, cluster) == pytest.approx(4.5e-3)


@pytest.mark.exhaustive
def test_sums_of_a_supervised_step(two_replicas):
    del two_replicas
    counted = [
        benchmark_scaling.counted(
            "supervised",
            {"batch_norm": kind},
            "digits_cnn",
            (8, 8, 3),
            8,
        )
        for kind in ("local", "synchronized")
    ]
    local, synchronized = counted
    # The gradient of all parameters is one sum of float32.
    network = step_worker.parts("supervised", {}, **SMALL).algorithm.student
    sizes = [int(np.prod(v.shape)) for v in network.trainable_variables]
    assert local.calls == 1 and local.tensors == len(sizes)
    assert local.bytes == 4 * sum(sizes)
    layers = sum("moving_mean" in v.path for v in network.weights)
    assert synchronized.calls == local.calls + 2 * layers


@pytest.mark.exhaustive
def test_forward_mode_sends_no_more_than_the_tangents_along(two_replicas):
    del two_replicas
    found = benchmark_scaling.counted(
        "meta_semi", {"batch_norm": "synchronized"}, *SMALL.values()
    )
    network = step_worker.parts("meta_semi", {}, **SMALL).algorithm.student
    layers = sum("moving_mean" in v.path for v in network.weights)
    # Judge and pool, both forward and backward; both gradients and the number
    # of images that are selected.
    assert found.calls == 4 * layers + 3


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").is_file(), reason="no /proc here"
)
def test_the_memory_of_a_process_and_the_step_of_a_run(tmp_path):
    filled = np.ones(2**24, np.uint8)
    assert benchmark_run_memory.resident(os.getpid()) > filled.nbytes / 2**20
    path = tmp_path / "metrics.jsonl"
    assert benchmark_run_memory.last_step(path) == 0
    # The last line is being written.
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 3')
    assert benchmark_run_memory.last_step(path) == 20


@pytest.mark.slow
def test_what_a_peer_gets():
    parts = step_worker.parts("meta_semi", {}, **SMALL)
    network = parts.algorithm.student
    batch = next(parts.iterator)
    found = benchmark_peer.data(network, batch)
    names = [name for name in found if name.startswith("param_")]
    assert len(names) == len(network.trainable_variables)
    np.testing.assert_array_equal(found["label"], batch["labeled"]["label"])
    assert found["unlabeled_partner"].shape == (16,)
    chosen = benchmark_peer.selected(parts.algorithm, batch)
    assert chosen.shape == (16,) and set(chosen) <= {0, 1}


def test_the_fixed_cost_is_that_of_the_further_steps(monkeypatch):
    asked = []

    def cpu_seconds(folder, num_steps, flags):
        asked.append((folder, num_steps, flags))
        # A start of 5 seconds, which belongs to no step.
        return 5.0 + 0.01 * num_steps

    monkeypatch.setattr(benchmark_fixed, "cpu_seconds", cpu_seconds)
    assert benchmark_fixed.per_step("tree", ["--a"]) == pytest.approx(0.01)
    assert asked == [("tree", n, ["--a"]) for n in benchmark_fixed.STEPS]


def test_a_run_that_fails_is_not_timed():
    with pytest.raises(RuntimeError, match="--no_such_flag"):
        benchmark_fixed.cpu_seconds(benchmark_steps.ROOT, 1, ["--no_such_flag"])
