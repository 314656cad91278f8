"""Measures speed and memory of the input pipeline and of training steps.

    python tools/benchmark.py data

prints how many 32 x 32 images per second RandAugment makes, with two operations
and a cutout: the one of this project in tf.data; the same policy in Pillow,
with one process per core; and `keras.layers.RandAugment` mapped per image,
which has fewer operations and no cutout. It also compares the time to make the
views of a UDA step with the time that a WRN-28-2 takes for the step. All rates
are measured in turn, so that their ratios depend little on the machine's load.

    python tools/benchmark.py data_memory

prints the resident memory of a process that makes the batches of many steps.
The others write a table into the folder of --out:

    python tools/benchmark.py methods --before=COMMIT --out=results

times a training step of every method beside what its passes amount to and, with
--before, beside the step of an earlier version (steps.md).

    python tools/benchmark.py meta_step --out=results

compares the forms of Meta-Semi's meta gradient: their time beside a plain step
and how often their signs agree (meta_step.md).

    python tools/benchmark.py replicas --before=COMMIT --out=results

times the same forms over two replicas, with synchronized batch norm
(replicas.md).

    python tools/benchmark.py batch_norm --out=results

compares steps with the kernel of batch norm and with composed batch norm
(batch_norm.md).

    python tools/benchmark.py fixed --before=COMMIT --out=results

gives what a step on two digits takes: all that does not grow with the images
(fixed.md).

    python tools/benchmark.py evaluation --out=results

compares an evaluation with the bare pass of one network (evaluation.md).

    python tools/benchmark.py startup --before=COMMIT --out=results

gives the CPU seconds of each part of a run until its first step has ended
(startup.md).

    python tools/benchmark.py memory --out=results

measures by how much training steps raise the peak memory of a fresh process,
with and without recomputed activations and with gradient accumulation
(memory.md).

    python tools/benchmark.py run_memory --out=results

gives the resident memory of runs of 10,000 steps at their begin and at their
end (run_memory.md).

    python tools/benchmark.py scaling --out=results

counts what two replicas sum in a step, and projects it to more (scaling.md).

    python tools/benchmark.py peer --python=PYTHON --out=results

compares steps with the same ones in PyTorch, which the interpreter PYTHON has
(peer.md).
"""

import argparse
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tools import (
    benchmark_batch_norm,
    benchmark_data,
    benchmark_evaluation,
    benchmark_fixed,
    benchmark_memory,
    benchmark_meta,
    benchmark_peer,
    benchmark_run_memory,
    benchmark_scaling,
    benchmark_startup,
    benchmark_steps,
)


def parser():
    """The parser of the command line; its result has the function `run`."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = result.add_subparsers(required=True)

    def command(name, help, run, out="", repeats=0, before=False):
        found = commands.add_parser(name, help=help)
        found.set_defaults(run=run)
        if out:
            found.add_argument("--out", help=f"folder for {out}")
        if repeats:
            found.add_argument("--repeats", type=int, default=repeats)
        if before:
            found.add_argument("--before", help="a commit to compare with")
        return found

    data = command("data", "speed of RandAugment", benchmark_data.run_data)
    data.add_argument("--policy", default="uda", help="a RandAugment policy")
    data.add_argument("--batch_size", type=int, default=512)
    data.add_argument("--cores", type=int, help="default: all available")
    data.add_argument("--seconds", type=float, default=3.0)
    data.add_argument("--rounds", type=int, default=3)
    memory = command(
        "data_memory",
        "memory of the input pipeline",
        benchmark_data.run_data_memory,
    )
    memory.add_argument("--steps", type=int, default=10_000)
    memory = command(
        "memory",
        "memory of a training step",
        benchmark_memory.run_memory,
        "memory.md",
    )
    memory.add_argument(
        "--algos", default=",".join(benchmark_memory.MEMORY_VARIANTS)
    )
    memory.add_argument("--model", default="wrn_28_2")
    memory.add_argument("--batch_size", type=int, default=256)
    memory.add_argument("--steps", type=int, default=3)
    memory.add_argument("--settings", help=argparse.SUPPRESS)
    memory = command(
        "run_memory",
        "memory of a long run",
        benchmark_run_memory.run_run_memory,
        "run_memory.md",
    )
    memory.add_argument(
        "--algos", default=",".join(benchmark_run_memory.METHODS)
    )
    memory.add_argument("--steps", type=int, default=10_000)
    methods = command(
        "methods",
        "time of training steps",
        benchmark_steps.run_methods,
        "steps.md",
        7,
        before=True,
    )
    methods.add_argument("--algos", help="default: all")
    command(
        "replicas",
        "time of a meta gradient over two replicas",
        benchmark_steps.run_replicas,
        "replicas.md",
        7,
        before=True,
    )
    command(
        "meta_step",
        "cost of meta gradients",
        benchmark_meta.run_meta_step,
        "meta_step.md",
        7,
    )
    command(
        "batch_norm",
        "batch norm as a kernel and composed",
        benchmark_batch_norm.run_batch_norm,
        "batch_norm.md",
        7,
    )
    command(
        "fixed",
        "fixed cost of a step",
        benchmark_fixed.run_fixed,
        "fixed.md",
        7,
        before=True,
    )
    evaluation = command(
        "evaluation",
        "time of an evaluation",
        benchmark_evaluation.run_evaluation,
        "evaluation.md",
        7,
    )
    evaluation.add_argument("--images", type=int, default=1000)
    evaluation.add_argument("--batch_size", type=int, default=256)
    command(
        "startup",
        "time to the first step",
        benchmark_startup.run_startup,
        "startup.md",
        7,
        before=True,
    )
    scaling = command(
        "scaling",
        "what replicas exchange",
        benchmark_scaling.run_scaling,
        "scaling.md",
    )
    scaling.add_argument("--algos", default=",".join(benchmark_scaling.METHODS))
    peer = command(
        "peer",
        "the same steps in PyTorch",
        benchmark_peer.run_peer,
        "peer.md",
        7,
    )
    peer.add_argument(
        "--python", required=True, help="an interpreter with PyTorch"
    )
    return result


def main():
    """Parses the command line and runs one benchmark."""
    args = parser().parse_args()
    if getattr(args, "out", None):
        # Before the work, which a folder that cannot be made would lose.
        pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    args.run(args)


if __name__ == "__main__":
    main()
