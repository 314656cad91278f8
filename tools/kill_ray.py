"""Trains by deploy/ray_train.py, kills a worker, and lets Ray start it again.

    pip install "ray[train]"
    python tools/kill_ray.py --out=results

Two workers train without interruption, then again with the second one killed
with SIGKILL after the first checkpoint. Ray starts both again, the run resumes,
and must compute the same, bit by bit. Writes OUT/ray.md.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.kill_test import computed, differences  # noqa: E402

RUN = (
    "--algo=meta_semi",
    "--num_steps=60",
    "--evaluate_every=10",
    "--batch_size=16",
    "--verbose=1",
)
# A cluster on this machine, with room for both workers and Ray's own actors.
LAUNCH = """
import sys, runpy, ray
ray.init(num_cpus=4, include_dashboard=False)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PATIENCE = 600


def launched(run_dir, storage):
    """Starts the launcher with two workers, a `subprocess.Popen`."""
    command = [
        *(sys.executable, "-c", LAUNCH, ROOT / "deploy" / "ray_train.py"),
        *("--num_workers=2", f"--storage={storage}", "--"),
        *(*RUN, f"--run_dir={run_dir}"),
    ]
    log = open(f"{run_dir}.log", "w")
    return subprocess.Popen(
        command,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_DEDUP_LOGS": "0"},
    )


def finished(process, run_dir):
    """Waits for the launcher; raises RuntimeError if it fails."""
    if process.wait(PATIENCE):
        text = pathlib.Path(f"{run_dir}.log").read_text()
        raise RuntimeError(f"{run_dir} failed:\n{text[-4000:]}")


def trainers(run_dir):
    """Process number -> environment of the training processes of a run."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            variables = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue  # It has ended, or is another user's.
        is_trainer = command[1:3] == ["-m", "tf_metassl.train"]
        if is_trainer and f"--run_dir={run_dir}" in command:
            found[int(folder.name)] = variables
    return found


def kill_second_worker(run_dir):
    """Kills it after the first checkpoint; returns the time."""
    start = time.monotonic()
    while time.monotonic() < start + PATIENCE:
        if list(run_dir.glob("checkpoints/*/step-*")):
            for process, variables in trainers(run_dir).items():
                config = next(v for v in variables if "TF_CONFIG=" in v)
                if '"index": 1' in config:
                    os.kill(process, signal.SIGKILL)
                    return time.monotonic()
        time.sleep(0.05)
    raise RuntimeError(f"{run_dir} has no checkpoint or no second worker.")


def text(num_compared, num_bytes, found, undisturbed, killed, log):
    """The page."""
    import ray

    resumed = sorted(set(re.findall(r"Resuming \w+ at step \d+", log)))
    return (
        "# A Ray worker that is killed and started again\n\n"
        "Made by `python tools/kill_ray.py`. Two workers of "
        f"`deploy/ray_train.py`, Ray {ray.__version__}, on one machine; after "
        "the first checkpoint the second one was killed with SIGKILL. Ray "
        "started both again and the run resumed. What it computed was compared "
        "bit by bit with a run without interruption: all variables of the last "
        "and the best checkpoint of each stage, `metrics.jsonl` and "
        "`results.json`.\n\n"
        "| arrays and files | bytes | differences | s undisturbed | s killed "
        "|\n| --: | --: | --- | --: | --: |\n"
        f"| {num_compared} | {num_bytes:,} | {', '.join(found) or 'none'} | "
        f"{undisturbed:.0f} | {killed:.0f} |\n\n"
        f"The log says: {'; '.join(resumed) or 'nothing of resuming'}.\n\n"
        f"Flags: `{' '.join(RUN)}`.\n"
    )


def main(_):
    """Runs both and writes the page."""
    path = pathlib.Path(flags.FLAGS.out) / "ray.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        seconds = []
        for name in ("undisturbed", "killed"):
            start = time.monotonic()
            process = launched(work / name, work / "storage")
            try:
                if name == "killed":
                    kill_second_worker(work / name)
                finished(process, work / name)
            finally:
                process.kill()
            seconds.append(time.monotonic() - start)
        first, second = (
            computed(work / name) for name in ("undisturbed", "killed")
        )
        found = differences(first, second)
        size = sum(map(len, first.values()))
        log = (work / "killed.log").read_text()
        page = text(len(first), size, found, *seconds, log)
    path.write_text(page)
    print(page)
    if found:
        sys.exit("The runs differ.")


if __name__ == "__main__":
    flags.DEFINE_string("out", "results", "Folder of the page.")
    app.run(main)
