"""Runs the cells of a table over seeds and writes the table.

    python tools/reproduce_table.py --table=digits --seeds=5 --out=results

Every cell is the training command with some flags, run once per seed (the seed
of weights and batches and the split seed alike). One line per finished run is
appended to OUT/TABLE.jsonl; runs that are there already are not repeated, so a
killed sweep goes on. OUT/TABLE.md is written from those lines alone.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

# Table -> cell -> flags. The first cell's name is what a reader compares with.
TABLES = {
    "digits": {
        "supervised": ["--algo=supervised"],
        "label smoothing": ["--algo=label_smoothing"],
        "supervised + MixUp": ["--algo=supervised_mixup"],
        "Meta-Semi, weights constant 1": [
            "--algo=meta_semi",
            "--example_weights=constant",
        ],
        "Meta-Semi": ["--algo=meta_semi"],
        "Meta Pseudo Labels": ["--algo=meta_pseudo_labels"],
    },
    # The choices that the slides leave open. forward_mode gives the same
    # numbers sooner.
    "digits_meta_semi_choices": {
        name: ["--meta_gradient=forward_mode", *arguments]
        for name, arguments in {
            "default": [],
            "divided by the number of unlabeled": [
                "--weight_normalizer=num_unlabeled"
            ],
            "judged by mixed labeled images": ["--meta_labeled_batch=mixed"],
            "weak view pseudo-labeled": ["--pseudo_label_view=weak"],
            "no labeled loss in the update": ["--labeled_loss_weight=0"],
            "literal Algorithm 1": [
                "--labeled_loss_weight=0",
                "--meta_labeled_batch=mixed",
                "--pseudo_label_view=weak",
            ],
        }.items()
    },
    "digits_feedback": {
        name: ["--algo=meta_pseudo_labels", *arguments]
        for name, arguments in {
            "off": ["--feedback=off"],
            "taylor": ["--feedback=taylor"],
            "dot": ["--feedback=dot"],
            "per_example": ["--feedback=per_example"],
            "per_example, sign flipped": [
                "--feedback=per_example",
                "--feedback_sign=-1",
            ],
            "exact_soft": ["--feedback=exact_soft"],
        }.items()
    },
}


def deployed(rows):
    """The row of the exported network: the last one marked so."""
    return [row for row in rows if row["deployed"]][-1]


def run_cell(arguments, seed):
    """Trains once.

    Args:
        arguments: flags of the cell.
        seed: of weights, batches and splits.

    Returns:
        A JSON-ready dict with the flags, the final metrics and the seconds.

    Raises:
        RuntimeError: if the training command fails; its output is shown.
    """
    arguments = [*arguments, f"--seed={seed}", f"--split_seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "tf_metassl.train", *arguments]
        started = time.monotonic()
        done = subprocess.run(
            [*command, f"--run_dir={run_dir}", "--verbose=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
        rows = json.loads((run_dir / "results.json").read_text())
    return {
        "flags": arguments,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "results": rows,
    }


def markdown(title, runs, cells):
    """The table: mean and standard deviation over the seeds of each cell."""
    lines = [
        f"# {title}",
        "",
        "Accuracy of the exported network in per cent, mean ± standard "
        "deviation over seeds. `python -m tf_metassl.train` with the flags in "
        "the last column and `--seed=S --split_seed=S`.",
        "",
        "| cell | validation | test | per seed (test) | n | s/run | flags |",
        "| --- | --: | --: | --- | --: | --: | --- |",
    ]
    for cell, arguments in cells.items():
        mine = [run for run in runs if run["cell"] == cell]
        if not mine:
            continue
        mine.sort(key=lambda run: run["seed"])
        final = [deployed(run["results"]) for run in mine]
        columns = []
        for split in ("validation", "test"):
            values = [100 * row[f"{split}_accuracy"] for row in final]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            columns.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        each = " ".join(f"{100 * row['test_accuracy']:.1f}" for row in final)
        seconds = statistics.mean(run["seconds"] for run in mine)
        lines.append(
            f"| {cell} | {columns[0]} | {columns[1]} | {each} | {len(mine)} "
            f"| {seconds:.0f} | `{' '.join(arguments)}` |"
        )
    return "\n".join(lines) + "\n"


def main(_):
    """Runs the missing cells and writes the table."""
    values = flags.FLAGS
    cells = TABLES[values.table]
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    record = out / f"{values.table}.jsonl"

    def finished():
        if not record.exists():
            return []
        return [json.loads(line) for line in record.read_text().splitlines()]

    for seed in range(values.seeds):
        for cell, arguments in cells.items():
            if any(
                run["cell"] == cell and run["seed"] == seed
                for run in finished()
            ):
                continue
            run = {"cell": cell, **run_cell(arguments + values.extra, seed)}
            with record.open("a") as file:
                file.write(json.dumps(run) + "\n")
            row = deployed(run["results"])
            print(
                f"{cell}, seed {seed}: validation "
                f"{row['validation_accuracy']:.4f}, test "
                f"{row['test_accuracy']:.4f}, {run['seconds']:.0f} s",
                flush=True,
            )
    table = markdown(values.table, finished(), cells)
    (out / f"{values.table}.md").write_text(table)
    print(table)


if __name__ == "__main__":
    flags.DEFINE_enum("table", "digits", list(TABLES), "Which table.")
    flags.DEFINE_integer("seeds", 5, "Seeds 0 ... N - 1.", lower_bound=1)
    flags.DEFINE_string("out", "results", "Folder for the results.")
    flags.DEFINE_multi_string("extra", [], "Further flags for every cell.")
    app.run(main)
