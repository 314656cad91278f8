"""Long work says how far it is, and what it waits for."""

import os
import threading

import numpy as np
import pytest

from tests.image_folders import load, write_place
from tf_metassl.data import folder, patience, store


def test_progress_has_the_time_that_is_left(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    counter = patience.Counter("Decoding", 1000)
    for _ in range(5):
        now[0] += 3.0
        counter.advance(50)
    assert capsys.readouterr().err == ("Decoding: 200 of 1,000, 0:48 left\n")


@pytest.mark.parametrize(
    "seconds, text", ((0, "0:00"), (61.4, "1:01"), (3723, "1:02:03"))
)
def test_clock(seconds, text):
    assert patience.clock(seconds) == text


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    """A pipe that nobody writes to blocks like a dead network mount."""
    write_place(tmp_path)
    blocked = tmp_path / "labeled/cat/0.png"
    data = blocked.read_bytes()
    blocked.unlink()
    os.mkfifo(blocked)
    monkeypatch.setattr(folder, "_PATIENCE", 0.2)
    monkeypatch.setattr(folder.pathlib.Path, "is_file", lambda path: True)

    def write_at_last():
        with open(blocked, "wb") as file:
            file.write(data)

    timer = threading.Timer(1.0, write_at_last)
    timer.start()
    source = load(tmp_path)
    timer.join()
    assert len(source.train) == 16
    assert f"Still reading {blocked}: nothing has come for" in (
        capsys.readouterr().err
    )


def test_what_is_quick_is_not_mentioned(capsys):
    with patience.Watch(5.0) as watch, watch.doing("reading x"):
        pass
    assert capsys.readouterr().err == ""


def test_the_size_of_the_cache_is_compared_with_the_disk(
    tmp_path, capsys, monkeypatch
):
    images = np.zeros((4, 8, 8, 3), np.uint8)

    def batches(done):
        return iter([(images, [0] * 4, [b"a", b"b", b"c", b"d"], None)][done:])

    store.write(tmp_path, "train", batches, total=4)
    assert capsys.readouterr().err == ""

    class Usage:
        free = 2 * 2**30

    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(OSError, match="about 3.6 GiB.*2.0 GiB are free"):
        store.write(tmp_path, "large", batches, total=20_000_000)
    store.write(tmp_path, "other", batches, total=10_000_000)
    assert "take about 1.8 GiB; 2.0 GiB are free" in capsys.readouterr().err
