"""Checkpoints that are whole or not there: written aside, checked, renamed.

A checkpoint is a folder `step-00000200` with TensorFlow's files, `state.json`
and `checksums.json`, the SHA-256 of all others. It gets its name only when it
is complete on disk. Folders whose name begins with a dot are remains of a
process that was killed.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil

import tensorflow as tf
from absl import logging

from tf_metassl.errors import CheckpointError


def save(folder, algorithm, step, state, *, keep=2, name=None):
    """Writes a checkpoint of `algorithm` and removes old ones.

    Args:
        folder: parent folder; made if necessary.
        algorithm: its `state_variables` are saved.
        step: finished training steps.
        state: JSON-ready dict that is saved with it.
        keep: how many checkpoints named by their step to keep.
        name: folder name; `step-...` if None. One of the same name is
            replaced.

    Returns:
        The checkpoint's path.

    Raises:
        CheckpointError: if it cannot be written, on a full disk for one. The
            others are as they were.
    """
    folder = pathlib.Path(folder)
    target = folder / (name or f"step-{step:08d}")
    aside = folder / f".{target.name}.aside"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _checkpoint(algorithm).write(str(aside / "variables"))
        (aside / "state.json").write_text(json.dumps({**state, "step": step}))
        sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
        (aside / "checksums.json").write_text(json.dumps(sums))
        for path in [*aside.iterdir(), aside]:
            _flush(path)
        # A folder cannot be renamed over a full one.
        replaced = folder / f".{target.name}.replaced"
        if target.exists():
            os.replace(target, replaced)
        os.replace(aside, target)
        _flush(folder)
    except (OSError, tf.errors.OpError) as error:
        clean(folder)
        raise CheckpointError(
            f"The checkpoint {target} cannot be written: {error_text(error)}. "
            "Those before it are intact. Make room; the same command goes on "
            "from the last."
        ) from error
    shutil.rmtree(replaced, ignore_errors=True)
    if name is None:
        # Later ones are damaged: the run would have started from them.
        earlier = [path for path in _by_step(folder) if path <= target]
        for path in set(_by_step(folder)) - set(earlier[-keep:]):
            shutil.rmtree(path, ignore_errors=True)
    return target


def error_text(error):
    """What an error of Python or TensorFlow says, without the operation."""
    return re.sub(r"\{\{.*?\}\} | \[Op:.*?\]", "", str(error))


def clean(folder):
    """Removes what a process that was killed while saving has left behind.

    A checkpoint that was about to be replaced gets its name back. Only for
    the process that writes the run.
    """
    folder = pathlib.Path(folder)
    for path in folder.glob(".*.replaced"):
        target = folder / path.name.removeprefix(".").removesuffix(".replaced")
        if not target.exists():
            os.replace(path, target)
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def all_finite(algorithm):
    """Whether no number of `algorithm`'s state is infinite or not a number."""
    return all(
        bool(tf.reduce_all(tf.math.is_finite(v.value)))
        for v in algorithm.state_variables
        if tf.as_dtype(v.dtype).is_floating
    )


def newest_whole(folder):
    """The newest checkpoint in `folder` whose checksums match.

    Damaged ones are skipped with a warning.

    Returns:
        Its path, or None if `folder` holds no checkpoint.

    Raises:
        CheckpointError: if there are checkpoints and all are damaged. A run
            never starts afresh over its own remains.
    """
    candidates = _by_step(pathlib.Path(folder))
    for path in reversed(candidates):
        problem = damage(path)
        if problem is None:
            return path
        logging.warning("Skipping the checkpoint %s: %s.", path, problem)
    if candidates:
        raise CheckpointError(
            f"None of the {len(candidates)} checkpoints in {folder} is whole. "
            "Remove the folder to start afresh, or restore it from a copy."
        )
    return None


def last(folder, count):
    """The `count` newest checkpoints in `folder`, or as many as there are."""
    return _by_step(pathlib.Path(folder))[-count:]


def damage(path):
    """What is wrong with the checkpoint at `path`, or None if it is whole."""
    path = pathlib.Path(path)
    try:
        checksums = json.loads((path / "checksums.json").read_text())
        for name, expected in checksums.items():
            if _sha256(path / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    return None


def restore(path, algorithm):
    """Restores `algorithm` from the checkpoint at `path`.

    Returns:
        The dict that was given to `save` as `state`, with `step`.

    Raises:
        CheckpointError: if the checkpoint is damaged or of another network.
    """
    path = pathlib.Path(path)
    problem = damage(path)
    if problem:
        raise CheckpointError(f"Cannot restore {path}: {problem}.")
    try:
        _read(path / "variables", algorithm)
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise CheckpointError(
            f"Cannot restore {path}: it belongs to another network or method "
            f"({error})."
        ) from error
    return json.loads((path / "state.json").read_text())


def _checkpoint(algorithm):
    variables = [v.value for v in algorithm.state_variables]
    return tf.train.Checkpoint(variables=variables)


def _read(prefix, algorithm):
    """Assigns the checkpoint's values to the algorithm's variables.

    Checkpoints of version 0.1 have no number of updates of batch norm (see
    `tf_metassl.models.layers.MovingStatistics`). It is set so high that the
    moving averages go on with the layer's own momentum, as that version did:
    the run ends with the same bits.
    """
    variables = algorithm.state_variables
    counts = [v for v in variables if v.name == "num_updates"]
    saved = tf.train.list_variables(str(prefix))
    values = [name for name, _ in saved if name.startswith("variables/")]
    if counts and len(values) == len(variables) - len(counts):
        variables = [v for v in variables if v.name != "num_updates"]
        for count in counts:
            count.assign(1e9)
    checkpoint = tf.train.Checkpoint(variables=[v.value for v in variables])
    status = checkpoint.read(str(prefix))
    status.assert_existing_objects_matched()


def _by_step(folder):
    return sorted(folder.glob("step-*"))


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path):
    """Waits until a file or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
