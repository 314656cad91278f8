"""Checks that this version resumes the runs of another version bit-exactly.

    python tools/resume_check.py --reference=RUN_DIR --step=8

Copies a finished run that kept its checkpoints, removes what it computed after
a step of its last stage, and resumes the copy. The exit status is 1 unless all
metrics, results and variables of the last checkpoints are equal bit by bit. Set
TF_NUM_INTRAOP_THREADS and TF_ENABLE_ONEDNN_OPTS as for the reference.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import kill_test  # noqa: E402


def set_back(run_dir, step, num_stages=1):
    """Removes what a finished run computed after `step` of a stage.

    Args:
        run_dir: folder of the run.
        step: counted from the start of the first of the last `num_stages`
            stages; the stages after that one are removed as a whole.
        num_stages: how many stages are trained again.

    Returns:
        The names of those stages.
    """
    results = json.loads((run_dir / "results.json").read_text())
    names = list(dict.fromkeys(row["stage"] for row in results))
    finished, again = names[:-num_stages], names[-num_stages:]
    for name in again:
        for folder in (run_dir / "checkpoints" / name).iterdir():
            state = json.loads((folder / "state.json").read_text())
            if name != again[0] or state["step"] > step:
                shutil.rmtree(folder)
    # The metrics count the steps of all stages.
    step += sum(int(last(run_dir, name).name[5:]) for name in finished)
    for name in ("metrics.jsonl", "timing.jsonl"):
        lines = (run_dir / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        (run_dir / name).write_text("".join(kept))
    for name in ("export", "tensorboard"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in ("results.json", "report.md"):
        (run_dir / name).unlink(missing_ok=True)
    return again


def last(run_dir, stage):
    """The last checkpoint of a stage, a `pathlib.Path`."""
    return max((run_dir / "checkpoints" / stage).glob("step-*"))


def resume(run_dir, *further):
    """Runs the training command of a run directory, with further flags.

    Raises:
        RuntimeError: if the command fails; the end of its output is shown.
    """
    command = [sys.executable, "-m", "tf_metassl.train", "--verbose=0"]
    command += [f"--flagfile={run_dir / 'run.flags'}", f"--run_dir={run_dir}"]
    done = subprocess.run(
        [*command, *further], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-3000:])


def metrics(run_dir, renames=()):
    """The lines of `metrics.jsonl`; `renames` are pairs of old and new name."""
    text = (run_dir / "metrics.jsonl").read_text()
    for old, new in renames:
        text = text.replace(f'"{old}": ', f'"{new}": ')
    return text.splitlines()


def differences(reference, run_dir, stages, renames=()):
    """Names of what differs between a finished run and its resumed copy."""
    pairs = {
        # The resumed file has lines of both versions.
        "metrics.jsonl": [metrics(f, renames) for f in (reference, run_dir)],
        "results.json": [
            (folder / "results.json").read_text()
            for folder in (reference, run_dir)
        ],
    }
    for stage in stages:
        old, new = (last(folder, stage) for folder in (reference, run_dir))
        pairs[f"{stage}: last step"] = (old.name, new.name)
        old, new = kill_test.variables(old), kill_test.variables(new)
        for name in sorted(old.keys() | new.keys()):
            pairs[f"{stage}: {name}"] = [
                None if array is None else (array.shape, array.tobytes())
                for array in (old.get(name), new.get(name))
            ]
    return [name for name, (old, new) in pairs.items() if old != new]


def check(reference, work, renames):
    """Names of what differs after resuming a copy that was set back."""
    run_dir = work / reference.name
    shutil.copytree(reference, run_dir)
    stages = set_back(run_dir, flags.FLAGS.step, flags.FLAGS.stages)
    try:
        resume(run_dir)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return ["cannot be resumed"]
    return differences(reference, run_dir, stages, renames)


def main(_):
    """Checks every reference and prints a table."""
    values = flags.FLAGS
    renames = [each.split(":", 1) for each in values.rename]
    runs = [
        path.parent
        for folder in map(pathlib.Path, values.reference)
        for pattern in ("results.json", "*/results.json")
        for path in sorted(folder.glob(pattern))
    ]
    print("| run | different |\n| --- | --- |", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(dir=values.work or None) as work:
        for reference in runs:
            found = check(reference, pathlib.Path(work), renames)
            failed += bool(found)
            text = ", ".join(found) or "nothing"
            print(f"| {reference.name} | {text} |", flush=True)
    if failed or not runs:
        sys.exit(f"{failed} of {len(runs)} runs differ.")


if __name__ == "__main__":
    flags.DEFINE_multi_string("reference", [], "A run, or a folder of runs.")
    flags.DEFINE_integer("step", 0, "Last step to keep of the stage.")
    flags.DEFINE_integer("stages", 1, "How many stages to train again.", 1)
    flags.DEFINE_multi_string("rename", [], "Renamed metrics, OLD:NEW.")
    flags.DEFINE_string("work", "", "Folder for the copies. Empty = temporary.")
    app.run(main)
