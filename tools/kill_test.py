"""Kills training runs at random times and compares what they compute.

    python tools/kill_test.py --algos=meta_semi,meta_pseudo_labels --out=results

For each method, one run trains without interruption. A second run is killed
with SIGKILL and resumed with the same command until it ends: during its start,
during training and evaluation, and while it writes a checkpoint, which is
recognized by the folder of the unfinished checkpoint. If the run ends before
all kills have happened, another run takes the rest. Everything that the runs
compute must be equal bit by bit. A line per method and --seed is appended to
OUT/kill_test.jsonl, and OUT/kill_test.md is written from all lines.
"""

import collections
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tf_metassl import files

# A process of such a run takes seconds.
RUN = (
    "--num_steps=600",
    "--evaluate_every=100",
    "--batch_size=16",
    "--verbose=1",
)
# A checkpoint twice a second, so that kills can hit one.
OFTEN = "--checkpoint_minutes=0.008"
# What a process does when it is killed -> relative frequency.
KINDS = {"start": 1, "training": 5, "checkpoint": 4}


def command(arguments, run_dir):
    """The command line of a run."""
    return [
        sys.executable,
        "-m",
        "tf_metassl.train",
        *arguments,
        f"--run_dir={run_dir}",
    ]


def unfinished(run_dir):
    """The folders of checkpoints that are being written."""
    return sorted(run_dir.glob("checkpoints/*/.*"))


def live(arguments, run_dir, kind, rng, start_seconds):
    """Starts or resumes a run, and kills it unless it ends before.

    Args:
        arguments: flags of the run.
        run_dir: its folder.
        kind: a key of `KINDS`; None lets the run end.
        rng: a `random.Random` for the time of the kill.
        start_seconds: about how long a run takes until its first checkpoint.

    Returns:
        Whether it was killed.

    Raises:
        RuntimeError: if the run ends with an error; its output is shown.
    """
    left_behind = set(unfinished(run_dir))
    # Number of checkpoints to see begin, and seconds to wait after the last.
    to_see, delay = {
        "start": (0, rng.uniform(0, start_seconds)),
        "training": (1, rng.uniform(0, 3)),
        "checkpoint": (rng.randint(2, 5), rng.uniform(0, 0.02)),
        None: (0, None),
    }[kind]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command(arguments, run_dir),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        seen, writing = 0, False
        while process.poll() is None and seen < to_see:
            # The run removes what the last kill left behind.
            left_behind &= (now := set(unfinished(run_dir)))
            was_writing, writing = writing, bool(now - left_behind)
            seen += writing and not was_writing
            time.sleep(0.001)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        status = process.wait()
        if status not in (0, -signal.SIGKILL):
            output.seek(0)
            raise RuntimeError(output.read())
        return status != 0


def variables(checkpoint):
    """The arrays of one checkpoint, name -> NumPy array."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(checkpoint / "variables"))
    return {
        name: np.asarray(reader.get_tensor(name))
        for name in reader.get_variable_to_shape_map()
        # Entries of TensorFlow itself; they depend on what else the process
        # has made.
        if not name.startswith("_")
    }


def computed(run_dir):
    """Everything that a run has computed, name -> bytes.

    Metrics, results, and every array of the last and the best checkpoint of
    each stage: parameters, averages, batch norm, optimizer slots, random
    states.
    """
    result = {}

    def add(path, data):
        result[str(path.relative_to(run_dir))] = data

    for name in ("metrics.jsonl", "results.json"):
        add(run_dir / name, (run_dir / name).read_bytes())
    for stage in (run_dir / "checkpoints").iterdir():
        last = max(stage.glob("step-*"))
        state = json.loads((last / "state.json").read_text())
        del state["wall_clock_seconds"]
        add(last / "state.json", json.dumps(state).encode())
        for folder in (last, stage / "best"):
            for name, array in variables(folder).items():
                add(folder / name, array.tobytes())
    return result


def differences(expected, got):
    """Names that differ between two `computed`, or are missing in one."""
    return [
        name
        for name in sorted(expected.keys() | got.keys())
        if expected.get(name) != got.get(name)
    ]


def survive(arguments, kills, folder, seed=0, kinds=None):
    """Compares runs that are killed with one that is not.

    Args:
        arguments: flags of the run.
        kills: number of kills.
        folder: where the runs are written. If an earlier call was interrupted
            there, this one continues it.
        seed: of the times of the kills.
        kinds: the kinds of the kills, in order; None draws them.

    Returns:
        A JSON-ready dict of counts.

    Raises:
        RuntimeError: if a run fails.
    """
    notes = folder / "progress.json"
    if notes.exists():
        progress = json.loads(notes.read_text())
    else:
        started = time.monotonic()
        shutil.rmtree(folder / "whole", ignore_errors=True)
        live(arguments, folder / "whole", None, random.Random(), 0)
        kinds = kinds or random.Random(seed).choices(
            list(KINDS), list(KINDS.values()), k=kills
        )
        progress = {
            "left": list(kinds),
            "done": [],
            "while_writing_a_checkpoint": 0,
            "runs": 1,
            "different": [],
            "seconds": time.monotonic() - started,
            "finished": False,
        }
        files.write_text(notes, json.dumps(progress))
    expected = computed(folder / "whole")
    start_seconds = min(progress["seconds"] / 2, 10)
    while not progress["finished"]:
        started = time.monotonic()
        _live_once(progress, arguments, folder, seed, start_seconds, expected)
        progress["seconds"] += time.monotonic() - started
        files.write_text(notes, json.dumps(progress))
    return {
        "flags": list(arguments),
        "kills": len(progress["done"]),
        "kinds": dict(collections.Counter(progress["done"])),
        "while_writing_a_checkpoint": progress["while_writing_a_checkpoint"],
        "runs": progress["runs"],
        "compared_items": len(expected),
        "compared_bytes": sum(map(len, expected.values())),
        "different": progress["different"],
        "seconds": round(progress["seconds"]),
    }


def _live_once(progress, arguments, folder, seed, start_seconds, expected):
    """Runs one process until it is killed or ends, and updates `progress`.

    Args:
        progress: the dict of `survive`, changed in place.
        arguments: see `survive`.
        folder: see `survive`.
        seed: see `survive`.
        start_seconds: see `live`.
        expected: what the run without interruption has computed.
    """
    run_dir = folder / f"killed-{progress['runs']}"
    kind = progress["left"][0] if progress["left"] else None
    rng = random.Random(f"{seed} {len(progress['done'])}")
    before = set(unfinished(run_dir))
    if live([*arguments, OFTEN], run_dir, kind, rng, start_seconds):
        progress["done"].append(progress["left"].pop(0))
        new = bool(set(unfinished(run_dir)) - before)
        progress["while_writing_a_checkpoint"] += new
        print(
            f"kill {len(progress['done'])}: {kind}"
            + (", while writing a checkpoint" if new else ""),
            flush=True,
        )
        return
    progress["different"] += [
        f"{run_dir.name}/{name}"
        for name in differences(expected, computed(run_dir))
    ]
    if progress["left"]:
        progress["runs"] += 1
    else:
        progress["finished"] = True


def markdown(results):
    """The table in Markdown.

    Args:
        results: list of what `survive` returned, with `name` and `seed`.
    """
    lines = [
        "# Runs that were killed and resumed",
        "",
        "Made by `python tools/kill_test.py` on a CPU. The runs were killed "
        "with SIGKILL at random times and resumed with the same command. What "
        "they computed was compared bit by bit with a run without "
        "interruption: parameters, averages, batch norm, optimizer slots and "
        "random states of the last and the best checkpoint of each stage, "
        "`metrics.jsonl` and `results.json`.",
        "",
        "| method | kills | of them, while writing a checkpoint | of them, "
        "during the start | runs | arrays and files | bytes | differences "
        "| minutes |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name in dict.fromkeys(result["name"] for result in results):
        group = [result for result in results if result["name"] == name]

        def total(key, group=group):
            return sum(result[key] for result in group)

        starting = sum(result["kinds"].get("start", 0) for result in group)
        different = sum(len(result["different"]) for result in group)
        lines.append(
            f"| {name} | {total('kills')} "
            f"| {total('while_writing_a_checkpoint')} | {starting} "
            f"| {total('runs')} | {group[0]['compared_items']} "
            f"| {group[0]['compared_bytes']:,} | {different or 'none'} "
            f"| {total('seconds') / 60:.0f} |"
        )
    return "\n".join([*lines, "", f"Flags of all runs: `{' '.join(RUN)}`.", ""])


def main(_):
    """Kills runs of every method and writes the table."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    record = out / "kill_test.jsonl"
    record.touch()
    for algo in values.algos:
        name = " ".join([algo, *values.extra])
        folder = pathlib.Path(values.work or tempfile.mkdtemp())
        folder = folder / f"{name} {values.seed}".replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        result = survive(
            (f"--algo={algo}", *RUN, *values.extra),
            values.kills,
            folder,
            values.seed,
        )
        shutil.rmtree(folder)
        with record.open("a") as file:
            line = {"name": name, "seed": values.seed, **result}
            file.write(json.dumps(line) + "\n")
        lines = record.read_text().splitlines()
        table = markdown([json.loads(line) for line in lines])
        (out / "kill_test.md").write_text(table)
        print(
            f"{name}: {result['kills']} kills, "
            f"{result['while_writing_a_checkpoint']} of them while writing a "
            f"checkpoint, {len(result['different'])} differences "
            f"{result['different']}",
            flush=True,
        )
        if result["different"]:
            sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_list("algos", ["meta_semi"], "Methods to test.")
    flags.DEFINE_integer("kills", 30, "Number of kills.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the times of the kills.")
    flags.DEFINE_multi_string("extra", [], "Further flags of the runs.")
    flags.DEFINE_string(
        "work",
        "",
        "Folder for the runs; an interrupted test is continued there. "
        "Empty = a temporary folder.",
    )
    flags.DEFINE_string("out", "results", "Folder for the table.")
    app.run(main)
