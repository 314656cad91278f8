"""The workers of a cluster, read from the environment.

Imports no TensorFlow, because the strategy has to be known before its import.
"""

import dataclasses
import json
import os
import re


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Attributes:
        workers: `host:port` of every worker; the first one is the chief.
        index: this process' place in `workers`.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self):
        """Whether this process is the one that writes the files of the run."""
        return self.index == 0


def is_described(environ=os.environ):
    """Whether `TF_CONFIG` or SLURM's variables are set.

    Args:
        environ: name -> text.
    """
    return bool(environ.get("TF_CONFIG")) or "SLURM_STEP_NODELIST" in environ


def from_environment(environ=os.environ):
    """The cluster that `TF_CONFIG` or SLURM's variables describe.

    `TF_CONFIG` has precedence, so that a SLURM job can be divided in another
    way.

    Args:
        environ: name -> text.

    Returns:
        A `Cluster`, or None if the variables are not set.

    Raises:
        ValueError: if their values do not describe a cluster.
    """
    if not is_described(environ):
        return None
    if environ.get("TF_CONFIG"):
        return _from_tf_config(environ["TF_CONFIG"])
    return _from_slurm(environ)


def for_strategy(name, environ=os.environ):
    """The cluster that a run with `--strategy=name` is part of.

    Args:
        name: name of the strategy.
        environ: name -> text.

    Returns:
        A `Cluster`; None with a strategy for one process, and with `auto` if
        there is one worker only.

    Raises:
        ValueError: as `from_environment`.
    """
    if name not in ("auto", "multi_worker"):
        return None
    cluster = from_environment(environ)
    alone = cluster is not None and len(cluster.workers) == 1
    return None if name == "auto" and alone else cluster


def _from_tf_config(text):
    """A `Cluster`; a chief that is listed separately is its first worker."""
    try:
        config = json.loads(text)
        jobs = config["cluster"]
        task = config["task"]
        kind, index = task["type"], int(task["index"])
        others = set(jobs) - {"chief", "worker"}
        chiefs = list(jobs.get("chief", []))
        workers = (*chiefs, *jobs.get("worker", []))
        known = kind in jobs and 0 <= index < len(jobs[kind])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            'TF_CONFIG must be like {"cluster": {"worker": ["host1:port", '
            '"host2:port"]}, "task": {"type": "worker", "index": 0}}, got '
            f"{text!r} ({type(error).__name__}: {error})."
        ) from error
    if others:
        raise ValueError(
            f"TF_CONFIG names the jobs {', '.join(sorted(others))}; only "
            "worker and chief are supported."
        )
    if not known:
        raise ValueError(
            f"TF_CONFIG says that this process is {kind} {index}, which is "
            "not in its cluster. Correct its task or its cluster."
        )
    place = index if kind == "chief" else index + len(chiefs)
    return Cluster(workers, place)


def _from_slurm(environ):
    """One worker per task of the job step, in the order of ranks.

    TensorFlow's own resolver sorts the hosts by name: with the hosts n2 and n10
    the others would look for rank 0 on n10 although it runs on n2. It also
    needs nvidia-smi.
    """
    try:
        hosts = _hosts(environ["SLURM_STEP_NODELIST"])
        tasks = _tasks(environ["SLURM_STEP_TASKS_PER_NODE"])
        rank = int(environ["SLURM_PROCID"])
        # Jobs on the same node need different ports.
        job = int(environ.get("SLURM_JOB_ID", 0))
        first_port = 10_000 + job * 64 % 20_000
        workers = tuple(
            f"{host}:{first_port + local}"
            for host, count in zip(hosts, tasks, strict=True)
            for local in range(count)
        )
    except KeyError as error:
        raise ValueError(
            f"SLURM has not set {error}. Start the command with srun."
        ) from error
    if not 0 <= rank < len(workers):
        raise ValueError(
            f"SLURM_PROCID={rank}, but the job step has {len(workers)} tasks. "
            "Start the command with srun."
        )
    return Cluster(workers, rank)


def _hosts(text):
    """`n[1-2,07],m5` -> n1, n2, n07, m5."""
    hosts = []
    for name, ranges in re.findall(r"([^,\[]+)(?:\[([^\]]*)\])?", text):
        if not ranges:
            hosts.append(name)
            continue
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            hosts += [
                f"{name}{number:0{len(first)}d}"
                for number in range(int(first), int(last or first) + 1)
            ]
    return hosts


def _tasks(text):
    """`2(x3),1` -> 2, 2, 2, 1."""
    counts = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts
