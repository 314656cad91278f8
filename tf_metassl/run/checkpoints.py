"""Checkpoints that are whole or absent: written aside, checked, renamed.

A checkpoint is a folder `step-00000200` with TensorFlow's files, `state.json`
and `checksums.json`, the SHA-256 of all others. It gets its name only when it
is complete on disk. Folders whose name begins with a dot were left behind by a
process that was killed.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from tf_metassl import files
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.errors import CheckpointError, error_text


@dataclasses.dataclass(frozen=True)
class Whole:
    """A checkpoint whose checksums have been compared and match.

    Attributes:
        path: its folder.
    """

    path: pathlib.Path


def save(
    folder: files.AnyPath,
    algorithm: Algorithm,
    step: int,
    state: Mapping[str, Any],
    *,
    keep: int = 2,
    name: str | None = None,
) -> pathlib.Path:
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
        (aside / "state.json").write_text(
            json.dumps({**state, "step": step}), "utf-8"
        )
        sums = {p.name: files.sha256(p) for p in sorted(aside.iterdir())}
        (aside / "checksums.json").write_text(json.dumps(sums))
        files.replace_folder(aside, target)
    except (OSError, tf.errors.OpError) as error:
        clean(folder)
        raise CheckpointError(
            f"The checkpoint {target} cannot be written: {error_text(error)}. "
            "Earlier checkpoints are intact. Free some disk space and run the "
            "same command again to resume from the last one."
        ) from error
    if name is None:
        # Later checkpoints are damaged, else the run would have resumed there.
        earlier = [path for path in _by_step(folder) if path <= target]
        for path in set(_by_step(folder)) - set(earlier[-keep:]):
            shutil.rmtree(path, ignore_errors=True)
    return target


def clean(folder: files.AnyPath) -> None:
    """Removes what a process that was killed while saving has left behind.

    A checkpoint that was about to be replaced gets its name back. Call this
    only in the process that writes the run.
    """
    folder = pathlib.Path(folder)
    for path in folder.glob(".*.replaced"):
        target = folder / path.name.removeprefix(".").removesuffix(".replaced")
        if not target.exists():
            os.replace(path, target)
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def all_finite(algorithm: Algorithm) -> bool:
    """Whether no number of `algorithm`'s state is infinite or not a number."""
    return all(
        bool(tf.reduce_all(tf.math.is_finite(v.value)))
        for v in algorithm.state_variables
        if tf.as_dtype(v.dtype).is_floating
    )


def newest_whole(folder: files.AnyPath) -> Whole | None:
    """The newest checkpoint in `folder` whose checksums match.

    Damaged ones are skipped with a warning.

    Returns:
        A `Whole`, or None if `folder` holds no checkpoint.

    Raises:
        CheckpointError: if there are checkpoints and all are damaged. A run
            never starts afresh in a folder with checkpoints.
    """
    candidates = _by_step(pathlib.Path(folder))
    for path in reversed(candidates):
        problem = damage(path)
        if problem is None:
            return Whole(path)
        logging.warning("Skipping the checkpoint %s: %s.", path, problem)
    if candidates:
        raise CheckpointError(
            f"None of the {len(candidates)} checkpoints in {folder} is whole. "
            "Remove the folder to start afresh, or restore it from a copy."
        )
    return None


def last(folder: files.AnyPath, count: int) -> list[pathlib.Path]:
    """The `count` newest checkpoints in `folder`, or as many as there are."""
    return _by_step(pathlib.Path(folder))[-count:]


def damage(path: files.AnyPath) -> str | None:
    """What is wrong with the checkpoint at `path`, or None if it is whole."""
    path = pathlib.Path(path)
    try:
        checksums = dict(json.loads((path / "checksums.json").read_text()))
        needed = {p.name for p in path.iterdir()} | {"state.json"}
        if missing := sorted(needed - {"checksums.json"} - checksums.keys()):
            return f"checksums.json has no {missing[0]}"
        for name, expected in checksums.items():
            if files.sha256(path / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None


def restore(
    checkpoint: Whole | files.AnyPath, algorithm: Algorithm
) -> dict[str, Any]:
    """Restores `algorithm` from a checkpoint.

    Args:
        checkpoint: a `Whole`, which is not checked again, or a path, whose
            checksums are compared first.
        algorithm: an `Algorithm`; its `state_variables` are assigned.

    Returns:
        The dict that was given to `save` as `state`, with `step`.

    Raises:
        CheckpointError: if the checkpoint is damaged or of another network.
    """
    if isinstance(checkpoint, Whole):
        path = checkpoint.path
    else:
        path = pathlib.Path(checkpoint)
        if problem := damage(path):
            raise CheckpointError(f"Cannot restore {path}: {problem}.")
    try:
        _read(path / "variables", algorithm)
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise CheckpointError(
            f"Cannot restore {path}: it belongs to another network or method "
            f"({error})."
        ) from error
    return json.loads((path / "state.json").read_text())


def _checkpoint(algorithm: Algorithm) -> tf.train.Checkpoint:
    variables = [v.value for v in algorithm.state_variables]
    return tf.train.Checkpoint(variables=variables)


def _read(prefix: pathlib.Path, algorithm: Algorithm) -> None:
    """Assigns the checkpoint's values to the algorithm's variables.

    Checkpoints that were written before batch norm counted its updates (see
    `tf_metassl.models.layers.MovingStatistics`) have no counts. The counts are
    then set so high that the moving averages keep the layer's own momentum: a
    run that was started before ends with the same bits.
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


def _by_step(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("step-*"))
