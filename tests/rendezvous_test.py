"""Workers meet, and are refused by name if they differ."""

import socket
import threading
import time

import pytest

from tf_metassl.errors import ConfigError, WorkerLostError
from tf_metassl.run import rendezvous
from tf_metassl.run.cluster import Cluster

FACTS = {"learning_rate": 0.1, "seed": 0, "tensorflow": "2.21.0"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def met(facts_of, num_workers=None, timeout=20.0):
    """What each worker gets: None, or its error.

    Args:
        facts_of: the facts of the workers that come.
        num_workers: how many there should be.
        timeout: seconds.
    """
    port = free_port()
    count = num_workers or len(facts_of)
    workers = tuple(f"localhost:{port + i}" for i in range(count))
    results = [None] * len(facts_of)

    def worker(index):
        try:
            rendezvous.meet(Cluster(workers, index), facts_of[index], timeout)
        except Exception as error:
            results[index] = error

    threads = [
        threading.Thread(target=worker, args=(i,)) for i in range(len(facts_of))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_workers_that_agree_go_on():
    assert met([FACTS] * 3) == [None] * 3


@pytest.mark.parametrize(
    "name, value",
    (
        ("learning_rate", 0.2),
        ("seed", 1),
        ("tensorflow", "2.20.0"),
        ("batch_size", 64),
    ),
)
def test_all_workers_learn_who_differs_in_what(name, value):
    start = time.monotonic()
    results = met([FACTS, FACTS, {**FACTS, name: value}])
    assert time.monotonic() - start < 10
    assert [type(error) for error in results] == [ConfigError] * 3
    for error in results:
        text = str(error)
        assert f"{name}: {FACTS.get(name)!r} on worker 0 (localhost:" in text
        assert f"{value!r} on worker 2 (localhost:" in text
        assert "worker 1" not in text


def test_a_worker_that_does_not_come_is_named():
    results = met([FACTS, FACTS], num_workers=3, timeout=1.0)
    for error in results:
        assert isinstance(error, WorkerLostError)
        assert "Worker 2 (localhost:" in str(error)
        assert "did not come within 1 s" in str(error)


def test_a_first_worker_that_does_not_come_is_named():
    cluster = Cluster((f"localhost:{free_port()}", "localhost:1"), 1)
    with pytest.raises(WorkerLostError, match="could not reach worker 0"):
        rendezvous.meet(cluster, FACTS, 0.5)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        cluster = Cluster((f"localhost:{port}", "localhost:1"), 0)
        with pytest.raises(WorkerLostError, match=f"use its port {port}"):
            rendezvous.meet(cluster, FACTS, 1.0)


def test_a_strangers_connection_is_no_worker():
    port = free_port()
    cluster = tuple(f"localhost:{port + i}" for i in range(2))
    errors = []

    def chief():
        try:
            rendezvous.meet(Cluster(cluster, 0), FACTS, 20.0)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=chief)
    thread.start()
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"index": "x"}\n'):
        for _ in range(50):
            try:
                with socket.create_connection(("localhost", port)) as stranger:
                    stranger.sendall(text)
                break
            except OSError:
                time.sleep(0.05)
    rendezvous.meet(Cluster(cluster, 1), FACTS, 20.0)
    thread.join()
    assert errors == []
