"""The fixed cost of a step, for `tools/benchmark.py fixed`."""

import os
import subprocess
import sys
import tempfile

import numpy as np

from tools import benchmark_steps, benchmark_timing

# Steps of a short and of a long run, which differ in nothing else.
STEPS = (200, 3200)
ONE_IN_A_CALL = "--steps_per_execution=1"


def cpu_seconds(folder, num_steps, flags=()):
    """CPU seconds of a process that trains on two digits a step.

    Args:
        folder: of a source tree.
        num_steps: of the run, which is evaluated at its end alone.
        flags: further ones of the run.

    Raises:
        RuntimeError: if the run fails; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as run:
        command = [
            *(sys.executable, "-m", "tf_metassl.train", "--algo=supervised"),
            *("--batch_size=2", f"--num_steps={num_steps}"),
            *(f"--evaluate_every={num_steps}", f"--run_dir={run}/run"),
            *flags,
        ]
        before = os.times()
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        after = os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")
    return (
        after.children_user
        + after.children_system
        - before.children_user
        - before.children_system
    )


def per_step(folder, flags=()):
    """CPU seconds of a step: what a longer run takes beyond a shorter one."""
    short, long = (cpu_seconds(folder, steps, flags) for steps in STEPS)
    return (long - short) / (STEPS[1] - STEPS[0])


def run_fixed(args):
    """Prints and writes the CPU time of a step on two digits."""
    # For the processes that this one starts. oneDNN's kernels take longer for
    # two images, which is no fixed cost; threads that wait would count.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    with benchmark_steps.Tree(args.before or "HEAD") as earlier:
        cases = {args.before: (earlier,)} if args.before else {}
        cases |= {
            "now": (benchmark_steps.ROOT,),
            f"now, {ONE_IN_A_CALL}": (benchmark_steps.ROOT, [ONE_IN_A_CALL]),
        }
        found = {name: [] for name in cases}
        for _ in range(args.repeats):
            for name, case in cases.items():
                found[name].append(per_step(*case))
                print(name, f"{1000 * found[name][-1]:.2f} ms", flush=True)
    (_, base), *_ = found.items()
    rows = [
        [
            name,
            f"{1000 * np.median(seconds):.2f}",
            benchmark_timing.percentiles(np.divide(seconds, base)),
        ]
        for name, seconds in found.items()
    ]
    lines = [
        "# The fixed cost of a step",
        "",
        "Made by `python tools/benchmark.py fixed`: CPU time of a step of "
        "`tf-metassl train --algo=supervised --batch_size=2` on the digits, "
        "which is optimizer, average, metrics, reading and the start of some "
        f"hundred operations: what runs of {STEPS[1]:,} steps take beyond runs "
        f"of {STEPS[0]}, with TensorFlow's own kernels. "
        f"{benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(["version", "ms", "CPU time"], rows),
    ]
    benchmark_timing.publish(lines, args.out, "fixed.md")
