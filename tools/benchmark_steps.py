"""The time of training steps, for `benchmark.py methods` and `replicas`."""

import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl import algorithms, config  # noqa: E402
from tools import benchmark_timing, make_flagfiles  # noqa: E402

# Which kernels TensorFlow uses: each version sets it as it is imported.
_KERNELS = "TF_ENABLE_ONEDNN_OPTS"
WORKER = ROOT / "tools" / "step_worker.py"
NETWORK = {"model": "wrn_16_1", "image_shape": [32, 32, 3], "batch_size": 64}
# Forward passes per labeled and per unlabeled image of methods that no table
# names, and of the first stage where that is the teacher's, see
# `make_flagfiles.PASSES`.
_PASSES = {
    "pseudo_label": (3, 3),
    **dict.fromkeys(("flexmatch", "freematch", "softmatch"), (3, 6)),
    **dict.fromkeys(("adamatch", "dash", "simmatch"), (3, 6)),
    # A rotated view besides.
    "crmatch": (3, 9),
    "reduced_meta_pseudo_labels": (3, 6),
    **dict.fromkeys(
        ("noisy_student", "ensemble_self_training", "billion_scale"), (3, 0)
    ),
}


class Worker:
    """A process that runs the steps of one source tree, on one core.

    Args:
        tree: the folder of the source tree.
    """

    def __init__(self, tree):
        # That one is set here already: by this version, for all of them.
        own = {k: v for k, v in os.environ.items() if k != _KERNELS}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            cwd=tree,
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request):
        """The answer to a request, see tools/step_worker.py.

        Returns:
            What the worker answers; None if it has ended, because this version
            does not have what was asked for.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.kill()
        self._process.communicate()


class Tree:
    """A context with the files of a commit in a folder of their own."""

    def __init__(self, commit):
        self._commit = commit

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        archive = subprocess.run(
            ["git", "archive", self._commit],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        subprocess.run(
            ["tar", "-x", "-C", self._folder.name],
            input=archive.stdout,
            check=True,
        )
        return self._folder.name

    def __exit__(self, *exception):
        self._folder.cleanup()


def request(algo, settings=(), **others):
    """What a worker is asked to build: the tables' network, and a method."""
    return {"algo": algo, "settings": dict(settings), **NETWORK, **others}


def measure(cases, repeats=7, seconds=0.5):
    """Times steps of several source trees, in turn.

    Args:
        cases: name -> the folder of a source tree, and the `request` that is
            made of it; a tree that refuses it is left out.
        repeats: how often each is timed.
        seconds: how long, about, each time.

    Returns:
        Name -> a dict with `steps` and `forward`, `[repeats, 2]` arrays of CPU
        seconds and seconds of a step and of a forward pass, and `first`, those
        of the first step, which compiles.
    """
    found = {}
    workers = {name: Worker(folder) for name, (folder, _) in cases.items()}
    try:
        for name, worker in workers.items():
            first = worker.ask(**cases[name][1])
            if first:
                found[name] = {"first": first["steps"], "steps": []}
                found[name]["forward"] = []
        for repeat in range(repeats + 1):
            for name, timing in found.items():
                for kind in ("steps", "forward"):
                    times = 2
                    if repeat:
                        times = max(round(seconds / timing[kind][0][1]), 1)
                    timing[kind].append(workers[name].ask(**{kind: times}))
    finally:
        for worker in workers.values():
            worker.__exit__()
    for timing in found.values():
        for kind in ("steps", "forward"):
            # The first one warms up and says how long a step takes.
            timing[kind] = np.array(timing[kind][1:])
    return found


def counted(algo):
    """Forward passes of an image that a step amounts to, see `PASSES`."""
    run = make_flagfiles.Run([], config.resolve({"algo": algo}))
    labeled, unlabeled = _PASSES.get(algo) or make_flagfiles.passes(run)
    return NETWORK["batch_size"] * (labeled + 2 * unlabeled)


def row(algo, found):
    """A line of the table: a method's name and what `measure` found of it."""
    now = found["now"]
    # CPU seconds: those of one core that other processes use as well.
    steps, forward = now["steps"][:, 0], now["forward"][:, 0]
    unit = np.median(forward) / (2 * NETWORK["batch_size"])
    cells = [
        algo,
        f"{1000 * np.median(steps):.0f}",
        f"{counted(algo)}",
        f"{np.median(steps) / unit:.0f}",
        f"{np.median(steps) / unit / counted(algo):.2f}",
        f"{now['first'][0]:.1f}",
    ]
    if "before" in found:
        before = found["before"]
        cells += [
            benchmark_timing.percentiles(steps / before["steps"][:, 0]),
            f"{now['first'][0] / before['first'][0]:.2f}",
        ]
    return cells


def run_methods(args):
    """Prints and writes a table of the steps of all methods."""
    import tensorflow as tf

    head = ["method", "ms", "counted F", "measured F", "share", "first step, s"]
    if args.before:
        head += [f"step, relative to {args.before}", "first step, relative"]
    lines = [
        "# Time of a training step",
        "",
        f"Made by `python tools/benchmark.py methods` on a CPU "
        f"({platform.machine()}, one core, TensorFlow {tf.__version__}, which "
        "other processes used as well): CPU time, medians of "
        f"{args.repeats} measurements that take turns. {NETWORK['model']} on "
        f"images of 32 x 32 x 3, {NETWORK['batch_size']} labeled and "
        f"{2 * NETWORK['batch_size']} unlabeled ones. F is the time of the "
        "forward pass of one image; counted is what the passes of the method "
        "amount to (`tools/make_flagfiles.py`), a gradient or forward-mode "
        "derivative as two passes. The optimizer, averages and metrics are in "
        "the measured time and not in the counted one. Every version uses the "
        "kernels, TensorFlow's own or oneDNN's, that it chooses itself. "
        "Ratios: median (10th ... 90th percentile).",
        "",
        "| " + " | ".join(head) + " |",
        "| --- |" + " --: |" * (len(head) - 1),
    ]
    print("\n".join(lines), flush=True)
    names = args.algos.split(",") if args.algos else list(algorithms.ALGORITHMS)
    with Tree(args.before or "HEAD") as earlier:
        trees = {"now": ROOT} | ({"before": earlier} if args.before else {})
        for algo in names:
            cases = {name: (t, request(algo)) for name, t in trees.items()}
            found = measure(cases, args.repeats)
            lines.append("| " + " | ".join(row(algo, found)) + " |")
            print(lines[-1], flush=True)
            if args.out:  # After each, because all of them take an hour.
                text = "\n".join(lines) + "\n"
                (pathlib.Path(args.out) / "steps.md").write_text(text)


def run_replicas(args):
    """Prints and writes the time of Meta-Semi's step over two replicas."""

    def asked(form):
        return request("meta_semi", {"meta_gradient": form}, replicas=2)

    with Tree(args.before or "HEAD") as earlier:
        base = f"nested_tape, {args.before}" if args.before else "nested_tape"
        cases = {base: (earlier if args.before else ROOT, asked("nested_tape"))}
        for form in ("nested_tape", "forward_mode", "finite_difference"):
            cases.setdefault(form, (ROOT, asked(form)))
        found = measure(cases, args.repeats)
    rows = [
        [
            form,
            benchmark_timing.milliseconds(timing["steps"]),
            *benchmark_timing.ratios(timing["steps"], found[base]["steps"]),
        ]
        for form, timing in found.items()
    ]
    size = NETWORK["batch_size"]
    lines = [
        "# A meta gradient over two replicas",
        "",
        "Made by `python tools/benchmark.py replicas`: a step of Meta-Semi on "
        "two replicas of one CPU core, batch norm synchronized, "
        f"{NETWORK['model']} on images of 32 x 32 x 3, {size} labeled and "
        f"{2 * size} unlabeled images in all. Ratios are to the first row. "
        f"{benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(["form", "ms", "CPU time", "time"], rows),
    ]
    benchmark_timing.publish(lines, args.out, "replicas.md")
