"""Batch norm as a kernel and composed, for `tools/benchmark.py batch_norm`."""

import contextlib
import unittest.mock

from tools import benchmark_timing, step_worker

NETWORK = {"model": "wrn_16_1", "image_shape": (32, 32, 3), "batch_size": 64}
# Name -> method, settings.
STEPS = {
    "supervised": ("supervised", {}),
    "fixmatch": ("fixmatch", {}),
    "meta_semi, forward mode": (
        "meta_semi",
        {"meta_gradient": "forward_mode"},
    ),
    "meta_semi, nested tapes": ("meta_semi", {"meta_gradient": "nested_tape"}),
}


@contextlib.contextmanager
def composed():
    """What is traced in the block composes batch norm, as Keras does."""
    from tf_metassl.ops import batch_norm

    with unittest.mock.patch.object(
        batch_norm, "is_available", lambda x: False
    ):
        yield


@contextlib.contextmanager
def without_bfloat16():
    """Networks that are built in the block are those of other processors."""
    from tf_metassl.models import precision

    with unittest.mock.patch.object(
        precision, "emulates_bfloat16", lambda: True
    ):
        yield


def pair(algo, settings, network=None):
    """A step with the kernel and one with composed batch norm.

    Args:
        algo: the method.
        settings: further settings, a dict.
        network: in place of `NETWORK`.

    Returns:
        `kernel` and `composed` -> function without arguments, traced.
    """
    found = {"kernel": traced(algo, settings, network=network)}
    with composed():
        found["composed"] = traced(algo, settings, network=network)
    return found


def traced(algo, settings, precision="float32", network=None):
    """A training step that has been taken once.

    Args:
        algo: the method.
        settings: further settings, a dict.
        precision: policy of the network's layers.
        network: in place of `NETWORK`.

    Returns:
        A function without arguments.
    """
    import keras

    keras.config.set_dtype_policy(precision)
    try:
        keras.utils.set_random_seed(0)
        step, _ = step_worker.built(
            algo,
            {**settings, "precision": precision},
            **(network or NETWORK),
        )
        step()
    finally:
        keras.config.set_dtype_policy("float32")
    return step


def precisions(repeats):
    """The lines that compare a step of each precision, kernels as they are."""
    steps = {
        "float32": traced("supervised", {}),
        "mixed_bfloat16": traced("supervised", {}, "mixed_bfloat16"),
    }
    with without_bfloat16():
        steps["mixed_bfloat16, without instructions for it"] = traced(
            "supervised", {}, "mixed_bfloat16"
        )
    found = benchmark_timing.alternate(steps, repeats)
    float32 = found["float32"]
    rows = [
        [
            name,
            benchmark_timing.milliseconds(samples),
            *benchmark_timing.ratios(samples, float32),
        ]
        for name, samples in found.items()
        if samples is not float32
    ]
    head = ["supervised step", "ms", "CPU time", "time"]
    return [
        f"The same beside float32, {benchmark_timing.milliseconds(float32)} "
        "ms:",
        "",
        *benchmark_timing.table(head, rows),
    ]


def run_batch_norm(args):
    """Prints and writes what the kernel of batch norm saves in a step."""
    benchmark_timing.one_core()
    rows = []
    for name, (algo, settings) in STEPS.items():
        steps = pair(algo, settings)
        found = benchmark_timing.alternate(steps, args.repeats)
        rows.append(
            [
                name,
                benchmark_timing.milliseconds(found["kernel"]),
                benchmark_timing.milliseconds(found["composed"]),
                *benchmark_timing.ratios(found["kernel"], found["composed"]),
            ]
        )
        print(rows[-1], flush=True)
    head = ["step", "kernel, ms", "composed, ms", "CPU time", "time"]
    lines = [
        "# Batch norm as one kernel",
        "",
        "Made by `python tools/benchmark.py batch_norm`: training steps with "
        "TensorFlow's kernel of batch norm, beside the same steps with batch "
        "norm composed of moments and elementwise operations. "
        f"{NETWORK['model']} on images of 32 x 32 x 3, "
        f"{NETWORK['batch_size']} labeled and {2 * NETWORK['batch_size']} "
        f"unlabeled ones. {benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(head, rows),
        "",
        *precisions(args.repeats),
    ]
    benchmark_timing.publish(lines, args.out, "batch_norm.md")
