"""Files that are whole or absent, checksums and locks. Imports no TensorFlow.

A process may be killed at any moment and a machine may lose power. Files are
therefore written under another name, flushed to disk and renamed.
"""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator

import filelock
from absl import logging

# What a path may be given as.
AnyPath = str | os.PathLike[str]


def write_text(path: AnyPath, text: str) -> None:
    """Writes a UTF-8 file atomically; see `write_bytes`.

    Bytes of file names that are not UTF-8 are written as they are.
    """
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: AnyPath, data: bytes | memoryview) -> None:
    """Writes a file atomically.

    Readers see the old content or the new one, even if the process is killed
    or the machine loses power. Several processes may write the same path; the
    last one wins.

    Args:
        path: the file; its folder exists.
        data: a bytes-like object.

    Raises:
        OSError: if the file cannot be written; the old one is unchanged.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: AnyPath) -> None:
    """Waits until a file, or the list of a folder's entries, is on disk."""
    windows = os.name == "nt"
    if windows and os.path.isdir(path):
        return  # Windows cannot flush a folder.
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: AnyPath) -> None:
    """Waits until a folder and everything below it is on disk."""
    for path in pathlib.Path(folder).rglob("*"):
        sync(path)
    sync(folder)


def replace_folder(aside: AnyPath, folder: AnyPath) -> None:
    """Renames a finished folder, which may take the place of another one.

    On Linux the two folders change their names in one step, so that there is
    always one called `folder`. Elsewhere a folder cannot be renamed over one
    that has entries, so the old one is first renamed to `.<name>.replaced`
    beside it. A process that is killed between these two renames leaves that
    name behind, and no `folder`.

    Args:
        aside: the finished folder, on the same file system.
        folder: its new path.
    """
    folder = pathlib.Path(folder)
    replaced = folder.with_name(f".{folder.name}.replaced")
    sync_tree(aside)
    exchanged = folder.exists() and _exchange(aside, folder)
    if not exchanged:
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(folder, replaced)
        os.replace(aside, folder)
    sync(folder.parent)
    if exchanged:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _exchange(first: AnyPath, second: AnyPath) -> bool:
    """Exchanges the names of two paths in one step.

    Returns:
        Whether that was possible. It is not outside of Linux, nor on some file
        systems; nothing has changed then.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <stdio.h>.
    names = os.fsencode(first), os.fsencode(second)
    return rename(here, names[0], here, names[1], exchange) == 0


def sha256(
    path: AnyPath, advance: Callable[[int], object] = lambda count: None
) -> str:
    """The SHA-256 checksum of a file, as 64 hexadecimal digits.

    Args:
        path: the file.
        advance: function that is called with the number of bytes that have been
            read since its last call.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**24):
            digest.update(part)
            advance(len(part))
    return digest.hexdigest()


@contextlib.contextmanager
def locked(
    path: AnyPath,
    *,
    timeout: float = 0.0,
    on_wait: Callable[[], object] | None = None,
) -> Iterator[bool]:
    """Holds an exclusive lock during the block, if it can be had.

    The operating system releases the lock when the process ends, however it
    ends. Two threads of one process exclude each other as well.

    Args:
        path: the lock file; it is created if necessary and not removed. It
            names its holder, see `holder`.
        timeout: seconds to wait while another process holds the lock.
        on_wait: function of no arguments; called once before waiting.

    Yields:
        True if the lock is held; False if another process holds it. On a file
        system without locks a file that only one process can create takes its
        place, see `advice`.

    Raises:
        OSError: if the lock file cannot be opened.
    """
    deadline = time.monotonic() + timeout
    descriptor, held = _try_lock(path)
    if held is False and timeout and on_wait:
        on_wait()
    while held is False and time.monotonic() < deadline:
        time.sleep(0.1)
        descriptor, held = _try_lock(path)
    try:
        yield held
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                filelock.unlock_descriptor(descriptor)
            os.close(descriptor)
            if held:
                _claim_of(path).unlink(missing_ok=True)


def holder(path: AnyPath) -> str:
    """Who holds, or held last, the lock: `process <number> on <host>`.

    Args:
        path: the file that was given to `locked`.

    Returns:
        A string; empty if the file names nobody.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            # On Windows others cannot read the first byte, which is locked.
            file.seek(1 if os.name == "nt" else 0)
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def advice(path: AnyPath) -> str:
    """What to do if the holder of a lock does not exist any more.

    Args:
        path: the file that was given to `locked`.

    Returns:
        A sentence that begins with a space; empty where the operating system
        releases the lock.
    """
    claim = _claim_of(path)
    if not claim.exists():
        return ""
    return (
        f" If that process has ended, remove {claim}: the file system has no "
        "locks that end with a process."
    )


def _claim_of(path: AnyPath) -> pathlib.Path:
    """The file that stands for a lock on a file system without locks."""
    return pathlib.Path(f"{os.fspath(path)}.held")


def _claim(path: AnyPath) -> bool:
    """Creates the claim of this process, which nobody else can do then.

    A claim of a process of this machine that has ended is removed first.
    """
    claim = _claim_of(path)
    name = f"process {os.getpid()} on {platform.node()}"
    with contextlib.suppress(OSError):
        words = claim.read_text("utf-8").split()
        if words[3:] == [platform.node()] and not _is_running(int(words[1])):
            claim.unlink()
    try:
        descriptor = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(name)
    logging.warning(
        "The file system of %s has no locks: %s keeps other processes away.",
        path,
        claim,
    )
    return True


def _is_running(process: int) -> bool:
    """Whether a process of this machine exists; True if it is not known."""
    if os.name == "nt":
        return True  # There `os.kill` would end it.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # It exists, and belongs to somebody else.
    return True


def _try_lock(path: AnyPath) -> tuple[int | None, bool]:
    """Tries once to lock a file.

    Returns:
        The open descriptor, or None, and what `locked` yields.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        held = filelock.lock_descriptor(descriptor, blocking=False)
    except OSError:
        held = _claim(path)
    if not held:
        os.close(descriptor)
        return None, held
    if not os.fstat(descriptor).st_nlink:
        # The last holder has removed the file since it was opened: a lock on
        # it would exclude nobody.
        os.close(descriptor)
        return _try_lock(path)
    # Naming the holder is a service; a full disk does not prevent the lock.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        # Windows locks the first byte, which others cannot read then.
        name = f" process {os.getpid()} on {platform.node()}"
        os.write(descriptor, name.encode())
    return descriptor, held
