"""Trains with two workers, loses one of them, and resumes the run.

    python tools/kill_workers.py --algos=meta_semi,meta_pseudo_labels \
        --out=results

For each method, two processes on the loopback network train without
interruption. Then the same run is started in another folder, and its second
worker is killed with SIGKILL during training; in a further run, its chief. The
other worker must end with an error. Both are started again, and the run must
compute the same as the one without interruption, bit by bit. At last, one
worker is frozen, as if its machine had lost the network, or not started at all,
and the time until the other one ends is measured. Writes a line per method to
OUT/workers.jsonl and the tables to OUT/workers.md.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.kill_test import computed, differences  # noqa: E402

RUN = (
    "--num_steps=30",
    "--evaluate_every=10",
    "--batch_size=16",
    "--verbose=1",
)
# Seconds within which the other worker must end.
LIMIT = 90
# Seconds after which a run is taken to hang.
PATIENCE = 600


def free_ports(count):
    """Ports of this machine that no process listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def workers(command, folder, indices=(0, 1)):
    """Starts the workers of a cluster of two, and kills them on exit.

    Args:
        command: the command line of each worker, a list.
        folder: for the output of each worker i, `worker-i.log`.
        indices: which of the two workers to start.

    Yields:
        A list of `subprocess.Popen`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    try:
        for index in indices:
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            with open(folder / f"worker-{index}.log", "w") as log:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, "TF_CONFIG": json.dumps(config)},
                        cwd=ROOT,
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def logs(folder):
    """The output of all workers."""
    return "\n".join(
        f"--- {path.name}\n{path.read_text()}"
        for path in sorted(folder.glob("worker-*.log"))
    )


def command(arguments, run_dir):
    """The command line of each worker."""
    return [
        sys.executable,
        "-m",
        "tf_metassl.train",
        "--strategy=multi_worker",
        *arguments,
        f"--run_dir={run_dir}",
    ]


def train(arguments, run_dir):
    """Trains with both workers to the end.

    Returns:
        The output of all workers.

    Raises:
        RuntimeError: if a worker fails.
    """
    folder = run_dir.with_name(f"{run_dir.name}-logs")
    with workers(command(arguments, run_dir), folder) as processes:
        codes = [process.wait(PATIENCE) for process in processes]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}\n{logs(folder)}")
    return logs(folder)


def lose(arguments, run_dir, victim, how=signal.SIGKILL):
    """Trains until the first checkpoint, then kills or freezes a worker.

    Args:
        arguments: flags of the run.
        run_dir: its folder.
        victim: index of the worker; 0 is the chief.
        how: a signal; SIGSTOP freezes the worker.

    Returns:
        `(seconds, message)`: how long the other worker took to end, and its
        error message.

    Raises:
        RuntimeError: if the other worker ended without an error, or did not
            end within `LIMIT` seconds.
    """
    folder = run_dir.with_name(f"{run_dir.name}-logs")
    with workers(command(arguments, run_dir), folder) as processes:
        deadline = time.monotonic() + PATIENCE
        while not list(run_dir.glob("checkpoints/train/step-*")):
            codes = [p.poll() for p in processes if p.poll() is not None]
            if codes or time.monotonic() > deadline:
                raise RuntimeError(
                    f"No checkpoint was written; exit codes {codes}.\n"
                    f"{logs(folder)}"
                )
            time.sleep(0.01)
        processes[victim].send_signal(how)
        return _ending(processes[1 - victim], folder, 1 - victim)


def alone(arguments, run_dir, index):
    """Starts one of two workers alone. Returns and raises as `lose`."""
    folder = run_dir.with_name(f"{run_dir.name}-logs")
    with workers(command(arguments, run_dir), folder, (index,)) as processes:
        return _ending(processes[0], folder, index)


def _ending(process, folder, index):
    """Waits for worker `index` to end. Returns and raises as `lose`."""
    started = time.monotonic()
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        code = None
    if not code:
        what = "did not end" if code is None else "ended without an error"
        raise RuntimeError(f"Worker {index} {what}.\n{logs(folder)}")
    seconds = time.monotonic() - started
    lines = (folder / f"worker-{index}.log").read_text().splitlines()
    errors = [line for line in lines if line.startswith(("Error:", "Timeout"))]
    if not errors:
        raise RuntimeError(
            f"Worker {index} printed no error message.\n{logs(folder)}"
        )
    return round(seconds, 1), errors[-1]


def kill_and_compare(arguments, folder):
    """Kills each worker in turn, resumes the run and compares the results.

    Args:
        arguments: flags of the run.
        folder: where the runs are written.

    Returns:
        A JSON-ready dict.

    Raises:
        RuntimeError: if a run fails, does not notice the lost worker or is
            not resumed.
    """
    train(arguments, folder / "whole")
    expected = computed(folder / "whole")
    endings, different = {}, []
    for victim, name in ((1, "second worker killed"), (0, "chief killed")):
        run_dir = folder / f"killed-{victim}"
        endings[name] = lose(arguments, run_dir, victim)
        print(f"{name}: {endings[name]}", flush=True)
        output = train(arguments, run_dir)
        if "Resuming train" not in output:
            raise RuntimeError(f"The run was not resumed.\n{output}")
        different += [
            f"{run_dir.name}/{file}"
            for file in differences(expected, computed(run_dir))
        ]
        print(f"after resuming, different: {different or 'nothing'}")
    return {
        "flags": list(arguments),
        "endings": endings,
        "compared_files": len(expected),
        "compared_bytes": sum(map(len, expected.values())),
        "different": different,
    }


def lose_for_good(arguments, folder):
    """Freezes each worker in turn, and leaves out each worker in turn.

    Returns:
        Name -> `(seconds, message)`.
    """
    endings = {}
    for victim, name in ((1, "second worker frozen"), (0, "chief frozen")):
        run_dir = folder / f"frozen-{victim}"
        endings[name] = lose(arguments, run_dir, victim, signal.SIGSTOP)
        print(f"{name}: {endings[name]}", flush=True)
    for index, name in ((0, "second worker absent"), (1, "chief absent")):
        run_dir = folder / f"absent-{1 - index}"
        endings[name] = alone(arguments, run_dir, index)
        print(f"{name}: {endings[name]}", flush=True)
    return endings


def markdown(results):
    """The tables in Markdown.

    Args:
        results: method -> what `kill_and_compare` returned.
    """
    lines = [
        "# Two workers, one of which is lost",
        "",
        "Made by `python tools/kill_workers.py`. After the first checkpoint, "
        "the second worker was killed, or the chief in another run; then both "
        "workers were started again. What the runs computed was compared bit "
        "by bit with a run of two workers without interruption: all variables "
        "of the last and the best checkpoint of each stage, `metrics.jsonl` "
        "and `results.json`.",
        "",
        "| method | arrays and files | bytes | differences |",
        "| --- | --: | --: | --: |",
    ]
    for algo, result in results.items():
        lines.append(
            f"| {algo} | {result['compared_files']} "
            f"| {result['compared_bytes']:,} "
            f"| {len(result['different']) or 'none'} |"
        )
    lines += [
        "",
        "Seconds until the other worker ended with an error, counted from its "
        "own start if one worker was absent.",
        "",
        "| method | event | seconds | message |",
        "| --- | --- | --: | --- |",
    ]
    for algo, result in results.items():
        lines += [
            f"| {algo} | {name} | {seconds} | {message[:100]} |"
            for name, (seconds, message) in result["endings"].items()
        ]
    flags_used = next(iter(results.values()))["flags"][1:]
    return "\n".join([*lines, "", f"Flags: `{' '.join(flags_used)}`.", ""])


def main(_):
    """Measures every method and writes the tables."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    record = out / "workers.jsonl"
    results = {}
    if record.exists():
        for line in record.read_text().splitlines():
            results |= json.loads(line)
    for algo in values.algos:
        with tempfile.TemporaryDirectory() as folder:
            results[algo] = kill_and_compare(
                (f"--algo={algo}", *RUN), pathlib.Path(folder)
            )
        _write(out, results)
    if values.for_good:
        with tempfile.TemporaryDirectory() as folder:
            algo = next(iter(results))
            results[algo]["endings"] |= lose_for_good(
                (f"--algo={algo}", *RUN), pathlib.Path(folder)
            )
        _write(out, results)
    if any(result["different"] for result in results.values()):
        sys.exit(1)


def _write(out, results):
    (out / "workers.jsonl").write_text(
        "".join(json.dumps({k: v}) + "\n" for k, v in results.items())
    )
    (out / "workers.md").write_text(markdown(results))


if __name__ == "__main__":
    flags.DEFINE_list("algos", ["meta_semi"], "Methods to test.")
    flags.DEFINE_bool(
        "for_good", True, "Also freeze a worker, and start one alone."
    )
    flags.DEFINE_string("out", "results", "Folder for the tables.")
    app.run(main)
