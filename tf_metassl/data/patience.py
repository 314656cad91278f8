"""Long work on files says how far it is, and which file it waits for."""

import contextlib
import sys
import threading
import time


def say(text):
    """Prints a line for the user while a run has not started yet."""
    print(text, file=sys.stderr, flush=True)


class Counter:
    """Says from time to time how much of some work is done.

    Args:
        what: such as `Decoding`.
        total: number of items.
        interval: seconds between two lines; the first one is as late.
    """

    def __init__(self, what, total, interval=10.0):
        self._what = what
        self._total = total
        self._interval = interval
        self._done = 0
        self._start = self._said = time.monotonic()

    def advance(self, count):
        """Notes that `count` more items are done."""
        self._done += count
        now = time.monotonic()
        if now - self._said < self._interval or not self._done:
            return
        self._said = now
        left = (now - self._start) / self._done * (self._total - self._done)
        say(
            f"{self._what}: {self._done:,.0f} of {self._total:,}, "
            f"{clock(left)} left"
        )


def clock(seconds):
    """Seconds as `0:42` or `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}"
        if hours
        else f"{minutes}:{seconds:02d}"
    )


class Watch:
    """Says what takes too long, such as a read from a dead network mount.

    A thread looks after all work that is noted; use it as a context manager.

    Args:
        patience: seconds after which something takes too long.
    """

    def __init__(self, patience=30.0):
        self._patience = patience
        self._lock = threading.Lock()
        self._doing = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    @contextlib.contextmanager
    def doing(self, text):
        """Notes that the block does what `text` says; threads may overlap."""
        key = object()
        with self._lock:
            self._doing[key] = time.monotonic(), text
        try:
            yield
        finally:
            with self._lock:
                self._doing.pop(key, None)

    def _look(self):
        while not self._ended.wait(self._patience / 10):
            now = time.monotonic()
            with self._lock:
                late = {
                    key: text
                    for key, (start, text) in self._doing.items()
                    if now - start > self._patience
                }
                for key in late:
                    # Once each, and again when as much time has passed.
                    self._doing[key] = now, late[key]
            for text in late.values():
                say(
                    f"Still {text}: nothing has come for "
                    f"{self._patience:.0f} s. The disk or the network may not "
                    "answer."
                )
