"""Runs the cells of a table, and the records of their runs.

A record is a JSON-ready dict with the settings, the seed and the results of a
finished run. Records are identified by the settings that the flags resolve to,
not by the flags: cells with different flags but equal settings share a run.
"""

import collections
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl.data.datasets import DATASETS, TFDS  # noqa: E402
from tools import tables  # noqa: E402

# What `--protocol` offers -> what is reported.
PROTOCOLS = {
    "last": "the last checkpoint",
    "best_validation": "the checkpoint with the best validation accuracy",
    "median_20": "the median of the last 20 checkpoints",
}


# Records.


def read(path):
    """The objects in a file with one per line; none if it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def append(log, record):
    """Adds a record to a file and flushes it to disk."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def is_run_of(record, wanted):
    """Whether a record is of a run with the settings `wanted`.

    A setting that the record lacks was added later: the run had its default.
    """
    recorded = record["settings"]
    if not recorded.keys() <= wanted.keys():
        return False
    return all(
        recorded.get(name, default) == wanted[name]
        for name, default in tables.defaults_of(wanted["algo"]).items()
    )


def of_cell(cell, records, protocol="last"):
    """The records of a cell, one per seed, in the order of the seeds."""
    by_seed = {
        record["seed"]: record
        for record in records
        if record["protocol"] == protocol and is_run_of(record, cell.settings)
    }
    return [by_seed[seed] for seed in sorted(by_seed)]


def missing(table, num_seeds, records, protocol="last"):
    """The runs that a table still needs, `(Cell, seed)`, seed by seed.

    Cells with equal settings share a run.
    """
    needed = {}
    for seed in range(num_seeds):
        for cell in table.cells:
            key = json.dumps([cell.settings, seed], sort_keys=True)
            seeds = [r["seed"] for r in of_cell(cell, records, protocol)]
            if seed not in seeds:
                needed.setdefault(key, (cell, seed))
    return list(needed.values())


def deployed(rows):
    """The results of the exported network: the last row marked `deployed`."""
    return [row for row in rows if row["deployed"]][-1]


# Runs.

# One lock per run directory: several cells may start from the same run.
_IN_USE = collections.defaultdict(threading.Lock)


def num_checkpoints(table):
    """Checkpoints per run with `--protocol=median_20`; MixMatch has 1,000."""
    if table.scale == "paper":
        return 1000
    return tables.SCALES.get(table.scale, tables.SMALL).checkpoints


def protocol_flags(protocol, wanted, num_checkpoints):
    """Further flags for a run that is reported by a protocol.

    Args:
        protocol: a key of `PROTOCOLS`.
        wanted: settings of the run.
        num_checkpoints: for `median_20`, of the main stage. A later stage as
            short as finetuning has 20.

    Raises:
        ValueError: if a stage is too short for 20 checkpoints.
    """
    if protocol == "best_validation":
        return ("--selection=best_validation",)
    if protocol == "last":
        return ()
    every = wanted["num_steps"] // num_checkpoints
    for name in ("finetune_steps", "student_steps", "round_steps"):
        if steps := wanted.get(name):
            every = min(every, steps // 20)
    if wanted["time_budget_minutes"]:
        every = wanted["evaluate_every"]
    every -= every % (wanted["steps_per_execution"] or 1)
    if every < 1:
        raise ValueError(
            "--protocol=median_20 needs 20 checkpoints of every stage, at "
            "least one step and --steps_per_execution steps apart. Use longer "
            "stages or another --protocol."
        )
    return (
        *("--keep_checkpoints=20", "--checkpoint_minutes=0"),
        f"--evaluate_every={every}",
    )


def seeds(cell, seed):
    """The flags in which the runs of a cell differ, name -> value."""
    values = {"seed": seed}
    if cell.settings["label_split"] != "first":
        values["split_seed"] = seed
    # STL-10 comes with ten folds of labeled images.
    if cell.settings["dataset"] == "stl10":
        values["stl10_fold"] = seed % 10
    return values


def first_cell(cell):
    """The cell of the run that a cell starts from."""
    return cell._replace(flags=cell.first, first=())


def run_directory(cell, seed, folder, protocol):
    """The folder of a run in the folder of all runs."""
    name = json.dumps([cell.settings, seed, protocol], sort_keys=True)
    digest = hashlib.sha256(name.encode()).hexdigest()
    return pathlib.Path(folder) / digest[:16]


def run(cell, seed, *, folder, protocol, num_checkpoints, threads, data_dir=""):
    """Trains a cell with one seed; resumes the run if it exists.

    If the cell starts from the network of another run, that is trained before,
    unless it is in the folder.

    Args:
        cell: the `Cell`.
        seed: of weights, batches and splits.
        folder: parent folder of the run directory.
        protocol: a key of `PROTOCOLS`.
        num_checkpoints: see `protocol_flags`.
        threads: `TF_NUM_INTRAOP_THREADS` of the run.
        data_dir: for datasets that are prepared there.

    Returns:
        `(record, run_dir)`. The run directory can be removed as soon as the
        record has been written.

    Raises:
        RuntimeError: if a command fails; the end of its output is shown.
    """
    run_dir = run_directory(cell, seed, folder, protocol)
    values = seeds(cell, seed)
    given = [
        *cell.flags,
        *protocol_flags(protocol, cell.settings, num_checkpoints),
        *(f"--{name}={value}" for name, value in values.items()),
    ]
    if data_dir and DATASETS[cell.settings["dataset"]].loader == TFDS:
        given.append(f"--data_dir={data_dir}")
    before = 0.0
    if cell.first:
        record, first_dir = run(
            first_cell(cell),
            seed,
            folder=folder,
            protocol=protocol,
            num_checkpoints=num_checkpoints,
            threads=threads,
            data_dir=data_dir,
        )
        given.append(f"--init_weights={first_dir.resolve()}")
        before = record["seconds"]
    with _IN_USE[run_dir]:
        _command("train", run_dir, threads, *given, "--verbose=0")
    results = run_dir / "results.json"
    if protocol == "median_20":
        results = run_dir / "median.json"
        _command(
            "evaluate", run_dir, threads, "--median_of=20", f"--out={results}"
        )
    rows = read(run_dir / "metrics.jsonl")
    record = {
        "settings": cell.settings,
        "seed": seed,
        "protocol": protocol,
        "seconds": round(before + _seconds(read(run_dir / "timing.jsonl")), 1),
        "results": json.loads(results.read_text()),
        "curve": _curve(rows),
        "pseudo_labels": _pseudo_labels(rows),
    }
    return record, run_dir


def _command(module, run_dir, threads, *arguments):
    """Runs a command of tf_metassl on a run directory."""
    line = [sys.executable, "-m", f"tf_metassl.{module}", *arguments]
    done = subprocess.run(
        [*line, f"--run_dir={run_dir}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads)},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}\n{done.stdout[-3000:]}")


def _curve(rows):
    """The accuracies in the rows of `metrics.jsonl`, training rows left out."""
    return [
        {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in row.items()
            if name in ("step", "split") or name.endswith("_accuracy")
        }
        for row in rows
        if row["split"] != "train"
    ]


# Metrics of pseudo-labels that records keep.
PSEUDO_LABELS = (
    "selected_share",
    "foreign_selected_share",
    "pseudo_label_accuracy",
    "selected_pseudo_label_accuracy",
)


def _pseudo_labels(rows):
    """Means of metrics of pseudo-labels over the second half of training.

    Args:
        rows: of `metrics.jsonl`.

    Returns:
        Name -> value, for those out of `PSEUDO_LABELS` that were measured.
    """
    rows = [row for row in rows if row["split"] == "train"]
    found = {}
    for name in PSEUDO_LABELS:
        values = [row[name] for row in rows[len(rows) // 2 :] if name in row]
        if values:
            found[name] = round(sum(values) / len(values), 4)
    return found


def _seconds(rows):
    """Seconds of training and evaluation; each stage starts again at zero."""
    seconds = [row["wall_clock_seconds"] for row in rows]
    following = [*seconds[1:], 0.0]
    return sum(a for a, b in zip(seconds, following, strict=True) if b < a)
