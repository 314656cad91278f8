"""Atomic writes, checksums and locks."""

import contextlib
import hashlib
import os
import platform
import signal
import subprocess
import sys
import threading

import filelock
import pytest

from tf_metassl import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    files.write_text(path, "one\n")
    files.write_text(str(path), "zw\u00f6lf\n")
    assert path.read_bytes() == "zw\u00f6lf\n".encode()
    files.write_bytes(path, memoryview(b"\x00\x01"))
    assert path.read_bytes() == b"\x00\x01"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failing", ("fsync", "replace"))
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.json"
    files.write_text(path, "old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full_disk)
        with pytest.raises(OSError, match="No space left"):
            files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_the_order_of_writing(tmp_path, monkeypatch):
    """The content is on disk before the name, and the name before the end."""
    steps = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        folder = os.path.samestat(os.fstat(descriptor), tmp_path.stat())
        steps.append("folder" if folder else "file")
        real_fsync(descriptor)

    def replace(source, target):
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(tmp_path / "a", "text")
    assert steps == ["file", "rename", "folder"]


def test_two_writers_of_one_path_do_not_mix(tmp_path):
    path = tmp_path / "a"
    texts = [letter * 100_000 for letter in "abcd"]
    threads = [
        threading.Thread(target=files.write_text, args=(path, text))
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names(tmp_path) == ["a"]


def folder_with(path, text):
    (path / "deeper").mkdir(parents=True)
    (path / "deeper" / "file").write_text(text)
    return path


def test_a_folder_is_replaced(tmp_path):
    target = tmp_path / "1"
    for text in ("one", "two"):
        # Left behind by a process that was killed after the second rename.
        folder_with(tmp_path / ".1.replaced", "old") if text == "two" else None
        aside = folder_with(tmp_path / "aside", text)
        files.replace_folder(aside, target)
        assert (target / "deeper" / "file").read_text() == text
        assert names(tmp_path) == ["1"]


def test_a_folder_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    aside, target = folder_with(tmp_path / "aside", "text"), tmp_path / "1"
    synced = []
    monkeypatch.setattr(
        files, "sync", lambda path: synced.append((path, target.exists()))
    )
    files.replace_folder(aside, target)
    assert set(synced) == {
        (aside, False),
        (aside / "deeper", False),
        (aside / "deeper" / "file", False),
        (tmp_path, True),
    }


def test_sha256(tmp_path):
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


HOLD = """
import signal, sys
from tf_metassl import files

# A shell's background jobs ignore it, and their children, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
with files.locked(sys.argv[1]) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path):
    command = [sys.executable, "-c", HOLD, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"True\n"
        yield process
        process.kill()


def is_free(path):
    with files.locked(path) as held:
        return held


def test_a_lock_ends_with_its_process_and_names_the_one_that_holds_it(
    tmp_path,
):
    path = tmp_path / "lock"
    assert files.holder(path) == ""
    for end in (signal.SIGKILL, signal.SIGINT, None):
        with holder(path) as process:
            assert is_free(path) is False
            name = f"process {process.pid} on {platform.node()}"
            assert files.holder(path) == name
            # Trying has not changed it.
            assert files.holder(path) == name
            if end:
                process.send_signal(end)
            else:
                process.stdin.close()
            process.wait()
        assert is_free(path) is True
        assert files.holder(path) == f"process {os.getpid()} on " + (
            platform.node()
        )
    assert names(tmp_path) == ["lock"]


def test_waiting_for_a_lock(tmp_path):
    path, said = tmp_path / "lock", []
    with holder(path) as process:
        wait = {"timeout": 0.3, "on_wait": lambda: said.append("waiting")}
        with files.locked(path, **wait) as held:
            assert held is False and said == ["waiting"]
        threading.Timer(0.3, process.kill).start()
        with files.locked(path, timeout=60) as held:
            assert held is True
    with files.locked(path, **wait) as held:
        assert held is True and said == ["waiting"]


def test_threads_exclude_each_other(tmp_path):
    inside, most = [], []

    def work():
        with files.locked(tmp_path / "lock", timeout=60) as held:
            assert held
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def no_locks(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(filelock, "lock_descriptor", no_locks)
    path = tmp_path / "lock"
    for _ in range(2):
        with files.locked(path) as held:
            assert held
            with files.locked(path, timeout=0.2) as second:
                assert not second
            assert files.holder(path).startswith("process ")
            assert str(tmp_path / "lock.held") in files.advice(path)
        assert files.advice(path) == ""


def test_a_lock_that_its_last_holder_has_removed_is_not_taken(
    tmp_path, monkeypatch
):
    path, real = tmp_path / "lock", filelock.lock_descriptor
    removed = []

    def lock(descriptor, **options):
        # The holder removes the file between opening and locking it.
        if not removed:
            removed.append(path.stat().st_ino)
            path.unlink()
        return real(descriptor, **options)

    monkeypatch.setattr(filelock, "lock_descriptor", lock)
    with files.locked(path) as held:
        assert held and removed
        assert is_free(path) is False


def test_a_block_that_raises_releases_its_lock(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(KeyError):
        with files.locked(path):
            raise KeyError
    assert is_free(path)


def test_there_is_always_a_folder_of_the_name(tmp_path):
    folder, aside = tmp_path / "1", tmp_path / ".1.aside"
    for path in (folder, aside):
        path.mkdir()
    if not files._exchange(folder, aside):
        pytest.skip("This system cannot exchange the names of two folders.")
    missing, stopped = [], threading.Event()

    def watch():
        while not stopped.is_set():
            missing.append(not folder.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        aside.mkdir(exist_ok=True)
        (aside / "number").write_text(str(number))
        files.replace_folder(aside, folder)
    stopped.set()
    watcher.join()
    assert (folder / "number").read_text() == "199"
    assert not aside.exists()
    assert missing and not any(missing)


def test_a_folder_is_replaced_where_names_cannot_be_exchanged(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    for number in (1, 2):
        (tmp_path / "aside").mkdir()
        (tmp_path / "aside" / "number").write_text(str(number))
        files.replace_folder(tmp_path / "aside", tmp_path / "folder")
    assert (tmp_path / "folder" / "number").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
