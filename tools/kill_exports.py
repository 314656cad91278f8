"""Kills exports at random times and looks for a model in between.

    python tools/kill_exports.py --kills=30 --out=results

One short run is exported to a folder again and again. Each time the process is
killed with SIGKILL, at a random time after it has begun to write. While it
runs, the folder is looked at without a pause: once there has been a model, it
must be there at every moment. After every kill the model must load and give the
same probabilities; after one more export, which ends, nothing else may be left
in the folder. OUT/kill_exports.md is written.
"""

import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUN = ("--num_steps=4", "--evaluate_every=4", "--verbose=0")
# Longer than an export takes from its first file to its last.
_LONGEST = 1.5


def _start(command, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", f"tf_metassl.{command}", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def probabilities(folder):
    """What the model in `folder` says of fixed noise, an array."""
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(str(folder)).signatures["serving_default"]
    image = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    return model(image=tf.constant(image))["probabilities"].numpy()


def kill_one(run_dir, target, delay):
    """Starts an export, kills it, and watches the folder.

    Args:
        run_dir: folder of the finished run.
        target: folder of the export, `<parent>/1`.
        delay: seconds between the first file that is written and the kill.

    Returns:
        `(was_killed, missing)`: whether the export was still running, and how
        often the model was not there although there had been one.
    """
    aside = target.with_name(f".{target.name}.aside")
    model = target / "saved_model.pb"
    there, missing, begun = model.exists(), 0, None
    process = _start("export", f"--run_dir={run_dir}", f"--output={target}")
    while process.poll() is None:
        exists = model.exists()
        missing += there and not exists
        there = there or exists
        begun = begun or (time.monotonic() if aside.exists() else None)
        if begun and time.monotonic() - begun > delay:
            break
    was_killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    missing += there and not model.exists()
    return was_killed, missing


def run(kills, folder, seed=0):
    """Makes a run and kills its exports.

    Args:
        kills: number of exports to kill.
        folder: an existing folder for everything.
        seed: of the delays.

    Returns:
        Dict of what was counted.

    Raises:
        RuntimeError: if training or an export that is not killed fails.
    """
    run_dir, target = folder / "run", folder / "served" / "1"
    if _start("train", f"--run_dir={run_dir}", *RUN).wait():
        raise RuntimeError("the training run failed")
    if _start("export", f"--run_dir={run_dir}", f"--output={target}").wait():
        raise RuntimeError("the first export failed")
    expected = probabilities(target)
    rng = random.Random(seed)
    counts = {"kills": 0, "ended before": 0, "moments without": 0}
    counts["other probabilities"] = 0
    while counts["kills"] < kills:
        was_killed, missing = kill_one(
            run_dir, target, rng.uniform(0.0, _LONGEST)
        )
        counts["kills" if was_killed else "ended before"] += 1
        counts["moments without"] += missing
        differs = (probabilities(target) != expected).any()
        counts["other probabilities"] += int(differs)
    if _start("export", f"--run_dir={run_dir}", f"--output={target}").wait():
        raise RuntimeError("the last export failed")
    left = {path.name for path in target.parent.iterdir()} - {target.name}
    counts["files left"] = len(left)
    return counts


def markdown(counts):
    """The counts as a page."""
    return (
        "# Exports that were killed\n\nMade by `python tools/kill_exports.py`. "
        "A finished run was exported to the same folder again and again; the "
        "process was killed with SIGKILL up to "
        f"{_LONGEST} s after it had begun to write.\n\n"
        f"| {' | '.join(counts)} |\n|{' --: |' * len(counts)}\n"
        f"| {' | '.join(map(str, counts.values()))} |\n"
    )


def main(_):
    """Kills the exports and writes the page."""
    with tempfile.TemporaryDirectory() as folder:
        counts = run(flags.FLAGS.kills, pathlib.Path(folder))
    out = pathlib.Path(flags.FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(counts)
    (out / "kill_exports.md").write_text(text, "utf-8")
    print(text)
    bad = ("moments without", "other probabilities", "files left")
    if any(counts[name] for name in bad):
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 30, "Exports to kill.", lower_bound=1)
    flags.DEFINE_string("out", "results", "Folder for the results.")
    app.run(main)
