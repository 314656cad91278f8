"""Runs the cells of a table with several seeds and writes table and figure.

    python tools/reproduce_table.py --table=meta_semi_5 --scale=small \
        --seeds=3 --data_dir=DIR --out=results

A cell is a training command; it is run once per seed, which sets weights,
batches and splits. `--scale=paper` runs the flagfile of the cell unchanged.
`--scale=small` runs a small version of it in minutes on two CPU cores, and
`--scale=smoke` a few steps to check that every cell runs. `--only=TEXT` runs a
part of the cells. The scales are defined in tools/tables.py.

Finished runs are recorded in OUT/runs.jsonl. A run with the same settings and
seed is not repeated, whichever table it was made for. An interrupted run in
OUT/runs is resumed. OUT/TABLE_SCALE.md, .csv and .png are written from the
records, after every run.
"""

import concurrent.futures
import functools
import os
import pathlib
import shutil
import sys

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tools import table_report, table_runs, tables


def table_from_flags(values):
    """The table that the flags ask for, with the flags of `--extra`.

    Raises:
        app.UsageError: if there is no such table at that scale, or `--only`
            matches no cell.
    """
    found = tables.tables(values.scale)
    if values.table not in found:
        raise app.UsageError(
            f"--table={values.table} is not available at "
            f"--scale={values.scale}, because its images are too large. "
            f"Available: {', '.join(found)}."
        )
    table = found[values.table]
    table = table._replace(
        cells=[
            cell._replace(flags=(*cell.flags, *values.extra))
            for cell in table.cells
        ]
    )
    if not any(values.only in cell.name for cell in table.cells):
        names = "\n  ".join(cell.name for cell in table.cells)
        raise app.UsageError(
            f"--only={values.only} matches no cell of --table={values.table}. "
            f"Its cells are:\n  {names}"
        )
    return table


def run_all(wanted, train, num_jobs, finished):
    """Runs cells, several at a time.

    Args:
        wanted: list of `(Cell, seed)`.
        train: function of a cell and a seed that returns `(record, run_dir)`.
        num_jobs: how many at a time.
        finished: function of a record and a run directory, called after every
            run in this thread.

    Returns:
        The names of the runs that failed. Their errors are printed.
    """
    failed = []
    with concurrent.futures.ThreadPoolExecutor(num_jobs) as pool:
        started = {
            pool.submit(train, cell, seed): f"{cell.name}, seed {seed}"
            for cell, seed in wanted
        }
        try:
            for future in concurrent.futures.as_completed(started):
                name = started[future]
                if error := future.exception():
                    failed.append(name)
                    print(f"{name} failed: {error}", flush=True)
                    continue
                record, run_dir = future.result()
                finished(record, run_dir)
                row = table_runs.deployed(record["results"])
                print(
                    f"{name}: validation {row['validation_accuracy']:.4f}, "
                    f"test {row['test_accuracy']:.4f}, "
                    f"{record['seconds']:.0f} s",
                    flush=True,
                )
        except BaseException:
            # Else leaving the pool would wait for all runs in the queue.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def main(_):
    """Runs what is missing and writes the table."""
    values = flags.FLAGS
    table = table_from_flags(values)
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "runs.jsonl"
    folder = out / "runs"
    train = functools.partial(
        table_runs.run,
        folder=folder,
        protocol=values.protocol,
        num_checkpoints=table_runs.num_checkpoints(table),
        threads=max(1, (os.cpu_count() or 1) // values.jobs),
        data_dir=values.data_dir,
    )

    def write():
        records = table_runs.read(log)
        return table_report.write(out, table, records, values.protocol)

    def finished(record, run_dir):
        table_runs.append(log, record)
        if run_dir not in kept:
            shutil.rmtree(run_dir)
        write()

    wanted = [
        (cell, seed)
        for cell, seed in table_runs.missing(
            table, values.seeds, table_runs.read(log), values.protocol
        )
        if values.only in cell.name
    ]
    # Other runs start from these.
    kept = {
        table_runs.run_directory(
            table_runs.first_cell(cell), seed, folder, values.protocol
        )
        for cell, seed in wanted
        if cell.first
    }
    failed = run_all(wanted, train, values.jobs, finished)
    if not failed:  # Else the next command goes on with them.
        for run_dir in kept:
            shutil.rmtree(run_dir, ignore_errors=True)
    print(write())
    if failed:
        sys.exit(f"{len(failed)} runs failed: {'; '.join(failed)}.")


if __name__ == "__main__":
    flags.DEFINE_enum(
        "table", None, list(tables.tables("paper")), "Table to run and write."
    )
    flags.DEFINE_enum(
        "scale",
        "small",
        ["paper", *tables.SCALES],
        "Size of the runs, see tools/tables.py.",
    )
    flags.DEFINE_integer(
        "seeds", 3, "Number of seeds, from 0 on.", lower_bound=1
    )
    flags.DEFINE_integer("jobs", 1, "Number of runs at a time.", lower_bound=1)
    flags.DEFINE_enum(
        "protocol",
        "last",
        list(table_runs.PROTOCOLS),
        "What is reported: the last checkpoint, the one with the best "
        "validation accuracy, or the median of the last 20. Test images never "
        "select a checkpoint.",
    )
    flags.DEFINE_string("out", "results", "Folder for the results.")
    flags.DEFINE_string("data_dir", "", "--data_dir of the training command.")
    flags.DEFINE_string(
        "only", "", "Run only cells whose `row, data` contains this text."
    )
    flags.DEFINE_multi_string("extra", [], "Further flags for every run.")
    flags.mark_flag_as_required("table")
    app.run(main)
