"""Two workers on this machine, of which one is killed: what becomes of both?

    python tools/kill_workers.py --algos=meta_semi,meta_pseudo_labels \
        --out=results

For each method two processes train together, connected by the loopback
network. Then the same run is started again in another folder; its second
worker, or its chief, is killed with SIGKILL in the middle, the other one has to
end with an error, both are started again and have to end with the same bits as
the undisturbed run. Last, one that is frozen (as a machine whose network is
gone) and one that never comes: how long until the other gives up? One line per
method is written to OUT/workers.jsonl, and OUT/workers.md is made from those
lines.
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

from tools.kill_test import computed  # noqa: E402

RUN = (
    "--num_steps=30",
    "--evaluate_every=10",
    "--batch_size=16",
    "--verbose=1",
)
# Whoever is left must have ended by then.
LIMIT = 90
# A run that takes longer than this hangs.
PATIENCE = 600


def free_ports(count):
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def workers(command, folder, indices=(0, 1)):
    """Starts the workers of a cluster of two; ends what is left of them.

    Args:
        command: the command line of each worker, a list.
        folder: where worker i's output goes, as `worker-i.log`.
        indices: which of the two to start.

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
    return [
        sys.executable,
        "-m",
        "tf_metassl.train",
        "--strategy=multi_worker",
        *arguments,
        f"--run_dir={run_dir}",
    ]


def train(arguments, run_dir):
    """Trains to the end.

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
    """Trains until the first checkpoint, then takes a worker away.

    Args:
        arguments: flags of the run.
        run_dir: its folder.
        victim: 0 for the chief or 1.
        how: a signal; SIGSTOP freezes the worker.

    Returns:
        `(seconds, message)`: how long the other one took to end, and the last
        line that it printed.

    Raises:
        RuntimeError: if it ended without an error, or has not ended.
    """
    folder = run_dir.with_name(f"{run_dir.name}-logs")
    with workers(command(arguments, run_dir), folder) as processes:
        deadline = time.monotonic() + PATIENCE
        while not list(run_dir.glob("checkpoints/train/step-*")):
            over = [p.poll() for p in processes if p.poll() is not None]
            if over or time.monotonic() > deadline:
                raise RuntimeError(f"no checkpoint; {over}\n{logs(folder)}")
            time.sleep(0.01)
        processes[victim].send_signal(how)
        return _ending(processes[1 - victim], folder, 1 - victim)


def alone(arguments, run_dir, index):
    """Starts one of two workers; returns and raises what `lose` does."""
    folder = run_dir.with_name(f"{run_dir.name}-logs")
    with workers(command(arguments, run_dir), folder, (index,)) as processes:
        return _ending(processes[0], folder, index)


def _ending(process, folder, index):
    started = time.monotonic()
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        code = None
    if not code:
        raise RuntimeError(f"worker {index}: {code}\n{logs(folder)}")
    seconds = time.monotonic() - started
    lines = (folder / f"worker-{index}.log").read_text().splitlines()
    said = [line for line in lines if line.startswith(("Error:", "Timeout"))]
    if not said:
        raise RuntimeError(f"worker {index} says nothing\n{logs(folder)}")
    return round(seconds, 1), said[-1]


def different_files(expected, got):
    """Names of the files of two `computed` that are not the same."""
    return sorted(
        name
        for name in expected.keys() | got.keys()
        if expected.get(name) != got.get(name)
    )


def kill_and_compare(arguments, folder):
    """Kills either worker, goes on, compares with an undisturbed run.

    Args:
        arguments: flags of the run.
        folder: where the runs are written.

    Returns:
        A JSON-ready dict.

    Raises:
        RuntimeError: if a run does not do what it has to.
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
            raise RuntimeError(f"not resumed\n{output}")
        different += [
            f"{run_dir.name}/{file}"
            for file in different_files(expected, computed(run_dir))
        ]
        print(f"after going on, different: {different or 'nothing'}")
    return {
        "flags": list(arguments),
        "endings": endings,
        "compared_files": len(expected),
        "compared_bytes": sum(map(len, expected.values())),
        "different": different,
    }


def lose_for_good(arguments, folder):
    """What becomes of one worker if the other is frozen or never comes.

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
    """The tables.

    Args:
        results: method -> what `measure` returned.
    """
    lines = [
        "# Two workers, one of which is lost",
        "",
        "Made by `python tools/kill_workers.py`. Killed after its first "
        "checkpoint, started again, and compared to the bit with an "
        "undisturbed run of two workers: all variables of the last and the "
        "best checkpoint of each stage, `metrics.jsonl` and the final table.",
        "",
        "| method | second worker killed, and chief killed |",
        "| --- | --- |",
    ]
    for algo, result in results.items():
        verdict = len(result["different"]) or "none"
        lines.append(
            f"| {algo} | {result['compared_files']} files, "
            f"{result['compared_bytes']:,} bytes each; {verdict} differ |"
        )
    lines += [
        "",
        "Seconds until the other worker has ended with an error; absent: since "
        "its own start.",
        "",
        "| method | what happened | seconds | last words |",
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
    flags.DEFINE_list("algos", ["meta_semi"], "Methods to train with.")
    flags.DEFINE_bool(
        "for_good", True, "Also freeze a worker, and leave one away."
    )
    flags.DEFINE_string("out", "results", "Folder for the tables.")
    app.run(main)
