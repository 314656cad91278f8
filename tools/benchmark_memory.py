"""The memory of a training step, for `tools/benchmark.py memory`."""

import json
import pathlib
import subprocess
import sys
import time

from tools import step_worker

COMMAND = pathlib.Path(__file__).with_name("benchmark.py")
SIDE = 32

# Method -> name of a variant -> its settings. Other variants are compared with
# the first.
MEMORY_VARIANTS = {
    "supervised": {
        "all activations kept": {},
        "--remat": {"remat": True},
        "--gradient_accumulation_steps=4": {"gradient_accumulation_steps": 4},
        "both": {"remat": True, "gradient_accumulation_steps": 4},
    },
    "meta_semi": {
        "all activations kept": {},
        "--remat": {"remat": True},
        "--meta_gradient=nested_tape": {"meta_gradient": "nested_tape"},
        "nested_tape and --remat": {
            "meta_gradient": "nested_tape",
            "remat": True,
        },
    },
    "meta_pseudo_labels": {
        "all activations kept": {},
        "--remat": {"remat": True},
    },
}


def step_memory(algo, settings, model, batch_size, num_steps):
    """Runs training steps on random images in this process.

    Returns:
        `(bytes, seconds)`: by how much the steps raise the peak resident size
        above that after building the networks, and the mean time of a step,
        the first one left out.
    """
    import resource

    def peak_size():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    step, _ = step_worker.built(
        algo, settings, model, (SIDE, SIDE, 3), batch_size
    )
    before = peak_size()
    step()
    started = time.perf_counter()
    for _ in range(num_steps - 1):
        step()
    seconds = (time.perf_counter() - started) / (num_steps - 1)
    return peak_size() - before, seconds


def run_memory(args):
    """Prints and writes the memory of a step in every variant."""
    if args.settings:
        algo, settings = json.loads(args.settings)
        measured = step_memory(
            algo, settings, args.model, args.batch_size, args.steps
        )
        print(json.dumps(measured))
        return
    lines = [
        *("# Memory of a training step", "", memory_text(args), ""),
        "| method | variant | MiB | share | time |",
        "| --- | --- | --: | --: | --: |",
    ]
    print("\n".join(lines), flush=True)
    for algo in args.algos.split(","):
        base = None
        for variant, settings in MEMORY_VARIANTS[algo].items():
            size, seconds = _in_new_process(algo, settings, args)
            base = base or (size, seconds)
            lines.append(
                f"| {algo} | {variant} | {size / 2**20:,.0f} "
                f"| {size / base[0]:.2f} | {seconds / base[1]:.2f} |"
            )
            print(lines[-1], flush=True)
    if args.out:
        text = "\n".join(lines) + "\n"
        (pathlib.Path(args.out) / "memory.md").write_text(text)


def memory_text(args):
    """What the numbers of the memory table are."""
    return (
        "Made by `python tools/benchmark.py memory "
        f"--batch_size={args.batch_size}`: {args.model} on images of "
        f"{SIDE} x {SIDE} x 3, {args.batch_size} labeled images and, for "
        "methods that use them, twice as many unlabeled images, float32, on a "
        "CPU that ran other processes as well. MiB is by how much "
        f"{args.steps} steps raise the peak resident size of a fresh process "
        "above that after building the networks. Share and time are relative "
        "to the first row of the method."
    )


def _in_new_process(algo, settings, args):
    """What `step_memory` returns in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, str(COMMAND), "memory"),
            f"--settings={json.dumps([algo, settings])}",
            f"--model={args.model}",
            f"--batch_size={args.batch_size}",
            f"--steps={args.steps}",
        ],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
