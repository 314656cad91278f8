"""The memory of a long run, for `tools/benchmark.py run_memory`."""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from tools import benchmark_timing

METHODS = ("fixmatch", "meta_semi", "meta_pseudo_labels")
EVALUATIONS = 10


def resident(pid):
    """MiB of memory that a process has, from the kernel's `VmRSS`."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text("utf-8")
    (line,) = (o for o in status.splitlines() if o.startswith("VmRSS"))
    return int(line.split()[1]) / 2**10


def last_step(path):
    """The step of the last whole line of a run's metrics; 0 without one."""
    if not path.is_file():
        return 0
    lines = path.read_text("utf-8").split("\n")[:-1]
    return max((json.loads(o).get("step", 0) for o in lines), default=0)


def measured(algo, steps):
    """Trains on the digits, 16 labeled images a step.

    Args:
        algo: a method.
        steps: of the run, with an evaluation at every tenth.

    Returns:
        Step -> MiB before the evaluation after it.
    """
    every = steps // EVALUATIONS
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder, "run")
        command = [
            *(sys.executable, "-m", "tf_metassl.train", f"--algo={algo}"),
            f"--num_steps={steps}",
            f"--evaluate_every={every}",
            *("--batch_size=16", "--supervised_twin=off", "--verbose=0"),
            f"--run_dir={run_dir}",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        found = {}
        while process.poll() is None:
            tenth = last_step(run_dir / "metrics.jsonl") // every
            # The latest of each tenth; none of the end, which exports and
            # writes the report.
            if 0 < tenth < EVALUATIONS:
                found[tenth * every] = resident(process.pid)
            time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} has failed, see above.")
    return found


def run_run_memory(args):
    """Prints and writes the resident memory over the steps of long runs."""
    import tensorflow as tf

    rows = []
    for algo in args.algos.split(","):
        found = measured(algo, args.steps)
        first, *_, last = found
        rows.append(
            [
                algo,
                *(f"{found[step]:,.0f}" for step in (first, last)),
                f"{found[last] - found[first]:+,.0f}",
            ]
        )
        print(rows[-1], flush=True)
    head = ["method", f"MiB, step {first:,}", f"MiB, step {last:,}", "growth"]
    lines = [
        "# Memory of a long run",
        "",
        "Made by `python tools/benchmark.py run_memory`: resident memory of "
        "the process of a run on the digits, with 16 labeled images a step "
        f"and an evaluation every {args.steps // EVALUATIONS:,} steps, before "
        "the second evaluation and before the last one. TensorFlow "
        f"{tf.__version__} on a CPU.",
        "",
        *benchmark_timing.table(head, rows),
    ]
    benchmark_timing.publish(lines, args.out, "run_memory.md")
