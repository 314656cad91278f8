"""The run directory: one process, one configuration, one origin.

`config.json` holds the settings of a run, `provenance.json` the data and the
library versions. A run is resumed only if both are unchanged. Importing this
module imports no TensorFlow.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time

import numpy as np

import tf_metassl
from tf_metassl import config as config_lib
from tf_metassl import files
from tf_metassl.errors import ConfigError

# Written before it is known whether the run can start.
NORMALIZATION = "normalization.npz"

# The rule by which new runs draw batches, see `stage.seed_offset`.
BATCH_SEED_VERSION = 2

_LOCK = ".lock"
_CONFIG = "config.json"
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
    that holds nothing else at the end is removed. On a file system without
    locks the block runs unprotected.

    Args:
        run_dir: folder of the run; made if necessary.

    Raises:
        ConfigError: if another process holds the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / _LOCK
    with files.locked(path) as held:
        if held is False:
            raise ConfigError(
                f"--run_dir={run_dir} is being written by "
                f"{files.holder(path)}. Wait for it to end, or use another "
                "--run_dir."
            )
        try:
            yield
        finally:
            if not (run_dir / _CONFIG).exists():
                # Windows removes no open file; the folder stays there.
                with contextlib.suppress(OSError):
                    path.unlink()
                    run_dir.rmdir()


def load_config(run_dir):
    """The configuration of the run in `run_dir`.

    Raises:
        ConfigError: if there is no run.
    """
    path = pathlib.Path(run_dir) / _CONFIG
    if not path.is_file():
        raise ConfigError(
            f"--run_dir={run_dir} is not the folder of a run: it has no "
            f"{_CONFIG}."
        )
    return config_lib.Config.from_json(json.loads(path.read_text()))


def with_recorded_defaults(config, run_dir):
    """Fills in the defaults that the run in `run_dir` has found.

    They depend on the images, and on the version that began the run.

    Args:
        config: a `Config`.
        run_dir: folder of the run, which may be new.

    Returns:
        A `Config`.
    """
    if not (pathlib.Path(run_dir) / _CONFIG).exists():
        return config
    old = load_config(run_dir)
    return dataclasses.replace(
        config,
        **{
            name: getattr(old, name)
            for name, unknown in config_lib.UNKNOWN.items()
            if getattr(config, name) == unknown
        },
    )


def save_config(config, run_dir):
    """Writes `config.json` and `run.flags` into `run_dir`."""
    run_dir = pathlib.Path(run_dir)
    text = json.dumps(config.to_json(), indent=2) + "\n"
    files.write_text(run_dir / _CONFIG, text)
    lines = "\n".join(config.to_flags()) + "\n"
    files.write_text(run_dir / "run.flags", lines)


def normalization(run_dir):
    """Where the scaling of pixels is kept.

    A file that was left by a start that failed is removed.

    Args:
        run_dir: folder of the run.

    Returns:
        A `pathlib.Path`.
    """
    run_dir = pathlib.Path(run_dir)
    path = run_dir / NORMALIZATION
    if not (run_dir / _CONFIG).exists():
        path.unlink(missing_ok=True)
    return path


def versions():
    """The libraries that the results of a run depend on: name -> version."""
    # A command imports this module before it has checked its flags.
    import keras
    import tensorflow as tf

    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "tf_metassl": tf_metassl.__version__,
    }


def data_fingerprint(source, splits):
    """Short hashes of the images, the labels and the splits.

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
    # The list of bad images is written even if the run does not start. Hidden
    # files are the lock and files that a killed process was writing.
    if not run_dir.exists() or all(
        path.name in ("bad_images.csv", NORMALIZATION)
        or path.name.startswith(".")
        for path in run_dir.iterdir()
    ):
        return
    old = config_lib.compared(load_config(run_dir))
    old |= _recorded(run_dir, versions())
    _compare(old, config_lib.compared(config) | versions(), config, run_dir)


def check_data(config, run_dir, fingerprint):
    """Raises ConfigError if the run in `run_dir` has other images."""
    _compare(_recorded(run_dir, fingerprint), fingerprint, config, run_dir)


def save(config, run_dir, fingerprint):
    """Writes the configuration, the versions and the data's fingerprint.

    Args:
        config: a `Config`.
        run_dir: folder of the run.
        fingerprint: of the data, see `data_fingerprint`.
    """
    save_config(config, run_dir)
    text = json.dumps({**versions(), **fingerprint}, indent=2) + "\n"
    files.write_text(run_dir / _PROVENANCE, text)


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
    """`default` with the values that `provenance.json` has for its keys."""
    path = run_dir / _PROVENANCE
    # A process may have been killed before it wrote the file.
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
