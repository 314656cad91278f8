"""The workers of a run meet before TensorFlow connects them.

TensorFlow would wait for a missing worker without a word, and would train on
with workers whose settings differ. Here every worker first sends what it is
going to do to the first one, which compares and answers. Plain sockets and
JSON; imports no TensorFlow.
"""

import contextlib
import json
import socket
import time

from tf_metassl.errors import ConfigError, WorkerLostError

_PAUSE = 0.2
# A message is a few kilobytes of settings.
_LARGEST = 2**20


def meet(cluster, facts, timeout):
    """Returns when all workers are there and intend to do the same.

    Args:
        cluster: a `tf_metassl.run.cluster.Cluster`.
        facts: JSON-ready values that must be the same on all workers, by name.
        timeout: seconds to wait for the others.

    Raises:
        ConfigError: if a worker differs; every worker gets the same message,
            which names the workers and the values.
        WorkerLostError: if a worker does not come in time, or its address
            cannot be used.
    """
    deadline = time.monotonic() + timeout
    if cluster.is_chief:
        problem = _receive_all(cluster, facts, deadline, timeout)
    else:
        problem = _send(cluster, facts, deadline, timeout)
    if problem:
        kind, text = problem
        raise {"differs": ConfigError, "missing": WorkerLostError}[kind](text)


def differences(facts_of, workers):
    """What workers do differently, as text; empty if nothing.

    Args:
        facts_of: the facts of every worker, a list of dicts.
        workers: their `host:port`, in the same order.
    """
    lines = []
    for index, facts in enumerate(facts_of):
        for name in sorted(facts_of[0].keys() | facts.keys()):
            first, other = facts_of[0].get(name), facts.get(name)
            if first != other:
                lines.append(
                    f"  {name}: {first!r} on worker 0 ({workers[0]}), "
                    f"{other!r} on worker {index} ({workers[index]})"
                )
    if not lines:
        return ""
    return (
        "The workers differ, and nothing has been trained:\n"
        + "\n".join(lines)
        + "\nStart all of them with the same command, data and libraries."
    )


def _receive_all(cluster, facts, deadline, timeout):
    """The first worker: collects, compares, answers."""
    port = int(cluster.workers[0].rpartition(":")[2])
    facts_of = {0: facts}
    connections = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
        except OSError as error:
            return "missing", (
                f"Worker 0 cannot use its port {port}: {error.strerror}. End "
                "the process that uses it, or name another port."
            )
        server.listen(len(cluster.workers))
        while len(facts_of) < len(cluster.workers):
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
                stack.enter_context(connection)
                connection.settimeout(5.0)
                message = _read(connection)
                index = int(message["index"])
                facts_of[index] = dict(message["facts"])
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue
                break
            except (OSError, ValueError, KeyError, TypeError):
                continue  # Somebody else's connection.
            connections.append(connection)
        problem = _compared(cluster, facts_of, timeout)
        for connection in connections:
            # A worker that is gone by now is noticed later.
            with contextlib.suppress(OSError):
                _write(connection, {"problem": problem})
                # The other side closes first, so that the port is free.
                connection.recv(1)
    return problem


def _compared(cluster, facts_of, timeout):
    """What is wrong, `(kind, text)`, or None."""
    workers = cluster.workers
    missing = [i for i in range(len(workers)) if i not in facts_of]
    if missing:
        names = ", ".join(f"{i} ({workers[i]})" for i in missing)
        return "missing", (
            f"Worker {names} did not come within {timeout:.0f} s. Start the "
            "same command on all workers, and check that worker 0 "
            f"({workers[0]}) can be reached from there."
        )
    text = differences([facts_of[i] for i in range(len(workers))], workers)
    return ("differs", text) if text else None


def _send(cluster, facts, deadline, timeout):
    """Any other worker: sends its facts and waits for the answer."""
    host, _, port = cluster.workers[0].rpartition(":")
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, int(port)), 5.0) as connection:
                _write(connection, {"index": cluster.index, "facts": facts})
                # The first worker answers when all have come.
                left = max(deadline - time.monotonic(), 0.0)
                connection.settimeout(left + 10.0)
                return _read(connection)["problem"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error)
            time.sleep(_PAUSE)
    return "missing", (
        f"Worker {cluster.index} ({cluster.workers[cluster.index]}) could not "
        f"reach worker 0 ({cluster.workers[0]}) within {timeout:.0f} s: "
        f"{reason}. Start the same command there, and check the address."
    )


def _write(connection, values):
    connection.sendall(json.dumps(values).encode() + b"\n")


def _read(connection):
    """One line of JSON.

    Raises:
        ValueError: if the other side sends anything else.
    """
    data = b""
    while not data.endswith(b"\n") and len(data) < _LARGEST:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return json.loads(data)
