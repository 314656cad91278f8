"""Batch norm as a kernel and composed, for `tools/benchmark.py batch_norm`."""

import contextlib
import unittest.mock

from tools import benchmark_timing, step_worker

NETWORK = {"model": "wrn_16_1", "image_shape": (32, 32, 3), "batch_size": 64}
# Name -> method, settings, precision.
STEPS = {
    "supervised": ("supervised", {}, "float32"),
    "fixmatch": ("fixmatch", {}, "float32"),
    "meta_semi, forward mode": (
        "meta_semi",
        {"meta_gradient": "forward_mode"},
        "float32",
    ),
    "meta_semi, nested tapes": (
        "meta_semi",
        {"meta_gradient": "nested_tape"},
        "float32",
    ),
    "supervised, mixed_bfloat16": ("supervised", {}, "mixed_bfloat16"),
}


@contextlib.contextmanager
def composed():
    """What is traced in the block composes batch norm, as Keras does."""
    from tf_metassl.ops import batch_norm

    with unittest.mock.patch.object(
        batch_norm, "is_available", lambda x: False
    ):
        yield


def pair(algo, settings, precision, network=None):
    """A step with the kernel and one with composed batch norm.

    Args:
        algo: the method.
        settings: further settings, a dict.
        precision: policy of the network's layers.
        network: in place of `NETWORK`.

    Returns:
        `kernel` and `composed` -> function without arguments, traced.
    """
    import keras

    keras.config.set_dtype_policy(precision)
    steps = {}
    try:
        for name, context in (
            ("kernel", contextlib.nullcontext()),
            ("composed", composed()),
        ):
            with context:
                keras.utils.set_random_seed(0)
                step, _ = step_worker.built(
                    algo,
                    {**settings, "precision": precision},
                    **(network or NETWORK),
                )
                step()
            steps[name] = step
    finally:
        keras.config.set_dtype_policy("float32")
    return steps


def run_batch_norm(args):
    """Prints and writes what the kernel of batch norm saves in a step."""
    benchmark_timing.one_core()
    rows = []
    for name, (algo, settings, precision) in STEPS.items():
        steps = pair(algo, settings, precision)
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
    ]
    benchmark_timing.publish(lines, args.out, "batch_norm.md")
