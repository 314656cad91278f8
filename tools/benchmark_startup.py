"""The time to the first step of a run, for `tools/benchmark.py startup`."""

import json
import subprocess
import sys

import numpy as np

from tools import benchmark_steps, benchmark_timing

WORKER = benchmark_steps.ROOT / "tools" / "startup_worker.py"
# The parts that no version can change.
_FIXED = ("import TensorFlow",)


def measure(folder, settings):
    """The parts of one start of the source tree in a folder.

    Returns:
        Name -> CPU seconds.
    """
    done = subprocess.run(
        [sys.executable, str(WORKER), json.dumps(settings)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def totals(starts):
    """CPU seconds after TensorFlow's import of several starts, an array."""
    return np.array(
        [
            sum(v for name, v in parts.items() if name not in _FIXED)
            for parts in starts
        ]
    )


def rows(found):
    """The table: a row for each part, and one for what versions can change.

    Args:
        found: name of a tree -> its starts, a list of what `measure` returns;
            `now`, and `before` or not.
    """
    trees = list(found)
    parts = dict.fromkeys(name for t in trees for s in found[t] for name in s)
    lines = []
    for part in parts:
        seconds = {
            tree: np.array([start.get(part, 0.0) for start in found[tree]])
            for tree in trees
        }
        lines.append((part, seconds))
    whole = {tree: totals(found[tree]) for tree in trees}
    lines.append(("all after the import of TensorFlow", whole))
    result = []
    for name, seconds in lines:
        cells = [name, *(f"{np.median(seconds[t]):.2f}" for t in trees)]
        if len(trees) == 2:
            now, before = seconds["now"], seconds["before"]
            is_there = (before > 0).all()
            cells.append(
                benchmark_timing.percentiles(now / before) if is_there else ""
            )
        result.append(cells)
    return result


def run_startup(args):
    """Prints and writes the CPU seconds of each part of a start."""
    found = {"now": []} | ({"before": []} if args.before else {})
    with benchmark_steps.Tree(args.before or "HEAD") as earlier:
        folders = {"now": benchmark_steps.ROOT, "before": earlier}
        for _ in range(args.repeats):
            for tree, starts in found.items():
                starts.append(measure(folders[tree], {}))
    head = ["part", "s"]
    if args.before:
        head += [f"s, {args.before}", "ratio"]
    lines = [
        "# Time to the first step",
        "",
        "Made by `python tools/benchmark.py startup`: CPU seconds of "
        "`tf-metassl train`, with its defaults, until the first step has "
        f"ended, medians of {args.repeats} new processes. "
        f"{benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(head, rows(found)),
    ]
    benchmark_timing.publish(lines, args.out, "startup.md")
