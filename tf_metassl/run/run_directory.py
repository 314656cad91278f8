"""The run directory as a contract: one process, one configuration, one origin.

`config.json` holds the settings of a run, `provenance.json` what it was made
from and with. A run is resumed only if both are the same.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import time

import keras
import numpy as np
import tensorflow as tf

import tf_metassl
from tf_metassl import config as config_lib
from tf_metassl.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

# Computed before the run is known to be possible.
NORMALIZATION = "normalization.npz"

# The rule by which new runs draw batches, see `stage.seed_offset`.
BATCH_SEED_VERSION = 2

_LOCK = ".lock"
_PROVENANCE = "provenance.json"


def fresh(config):
    """A folder below `runs/` that does not exist yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    dataset = config.dataset.replace("/", "-")
    base = pathlib.Path("runs") / f"{config.algo}-{dataset}-{stamp}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


@contextlib.contextmanager
def locked(run_dir):
    """Keeps other processes from writing the same run.

    The lock ends with the process that holds it, however that ends. A folder
    that holds nothing else at the end is removed.

    Args:
        run_dir: folder of the run; made if necessary.

    Raises:
        ConfigError: if another process holds the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / _LOCK
    with open(path, "a+", encoding="utf-8") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"--run_dir={run_dir} is being written by {file.read()}. Wait "
                "for it to end, or use another --run_dir."
            ) from error
        except OSError:
            # A file system without locks: better no lock than no run.
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            if not (run_dir / "config.json").exists():
                path.unlink()
                with contextlib.suppress(OSError):
                    run_dir.rmdir()


def normalization(run_dir):
    """Where the scaling of pixels is kept; what an aborted start left is void.

    Args:
        run_dir: folder of the run.

    Returns:
        A `pathlib.Path`.
    """
    run_dir = pathlib.Path(run_dir)
    path = run_dir / NORMALIZATION
    if not (run_dir / "config.json").exists():
        path.unlink(missing_ok=True)
    return path


def versions():
    """Library -> version, of all that the numbers of a run depend on."""
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "tf_metassl": tf_metassl.__version__,
    }


def data_fingerprint(source, splits):
    """Short hashes of the images, their labels and their use.

    Args:
        source: a `Source`.
        splits: the `Splits` of its training images.

    Returns:
        Dict with `train_images`, `test_images` and `splits`.
    """

    def digest(images):
        result = hashlib.sha256()
        for values in (
            images.content_hashes(np.arange(len(images))),
            images.labels,
        ):
            result.update(np.ascontiguousarray(values).tobytes())
        return result.hexdigest()[:16]

    return {
        "train_images": digest(source.train),
        "test_images": digest(source.test),
        "splits": splits.fingerprint,
    }


def check_settings(config, run_dir):
    """Raises ConfigError if `run_dir` holds anything but the same run.

    Compares settings and versions, which are known before any data is read.
    """
    # The list of bad images is written even if there are too many to start.
    # Hidden files are the lock and what a killed process was about to write.
    if not run_dir.exists() or all(
        path.name in ("bad_images.csv", NORMALIZATION)
        or path.name.startswith(".")
        for path in run_dir.iterdir()
    ):
        return
    old = config_lib.compared(config_lib.load(run_dir))
    old |= _recorded(run_dir, versions())
    _compare(old, config_lib.compared(config) | versions(), config, run_dir)


def check_data(config, run_dir, fingerprint):
    """Raises ConfigError if the run in `run_dir` has seen other images."""
    _compare(_recorded(run_dir, fingerprint), fingerprint, config, run_dir)


def save(config, run_dir, fingerprint):
    """Writes the contract of a run into `run_dir`."""
    config_lib.save(config, run_dir)
    text = json.dumps({**versions(), **fingerprint}, indent=2) + "\n"
    config_lib.write_text(run_dir / _PROVENANCE, text)


def batch_seed_version(run_dir):
    """The rule by which the run in `run_dir` draws its batches.

    Returns:
        What `provenance.json` records; 1 if the file was written before there
        was another rule, and `BATCH_SEED_VERSION` if there is no such file.
    """
    path = run_dir / _PROVENANCE
    if not path.exists():
        return BATCH_SEED_VERSION
    return json.loads(path.read_text()).get("batch_seed_version", 1)


def _recorded(run_dir, default):
    """What `provenance.json` says of the fields of `default`."""
    path = run_dir / _PROVENANCE
    # A process may be killed before it writes the file.
    known = json.loads(path.read_text()) if path.exists() else {}
    return {name: known.get(name, value) for name, value in default.items()}


def _compare(old, new, config, run_dir):
    changes = {
        name: f"{name}: {old.get(name)!r} -> {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    allowed = config_lib.allowed_changes(config)
    refused = [text for name, text in changes.items() if name not in allowed]
    if refused:
        names = ",".join(name for name in changes)
        raise ConfigError(
            f"--run_dir={run_dir} holds a run that differs:\n  "
            + "\n  ".join(refused)
            + "\nUse the same settings, data and libraries to resume it, or "
            f"another --run_dir; --allow_changed={names} resumes it all the "
            "same."
        )
    for text in changes.values():
        print(f"Changed since the run was started: {text}")
