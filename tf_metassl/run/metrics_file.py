"""Rows of metrics that survive a crash: `metrics.jsonl`, `timing.jsonl`."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_metassl import files
from tf_metassl.errors import WriteError, error_text


class MetricsFile:
    """A file with one JSON object per step and split, in the order of steps.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: files.AnyPath) -> None:
        self._path = pathlib.Path(path)

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows, a list of dicts.

        A line that a crash has cut off or a disk has damaged is left out.
        """
        if not self._path.exists():
            return []
        rows = []
        text = self._path.read_text("utf-8", errors="replace")
        for line in text.splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends a row and waits until it is on disk.

        Args:
            step: step of the run.
            split: `train`, `validation` or `labeled`.
            values: name -> float.

        Raises:
            WriteError: if it cannot be written.
        """
        row = {"step": step, "split": split, **values}
        with (
            writing(self._path),
            open(self._path, "a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def truncate(self, step: int) -> None:
        """Removes the rows after `step`; a resumed run writes them again.

        Raises:
            WriteError: if the file cannot be written.
        """
        rows = [row for row in self.rows() if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with writing(self._path):
            files.write_text(self._path, text)


@contextlib.contextmanager
def writing(what: str | pathlib.Path) -> Iterator[None]:
    """Turns the errors of a full disk into one message.

    Args:
        what: name of what is written in the block.

    Raises:
        WriteError: instead of an error of the operating system or TensorFlow.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise WriteError(
            f"{what} cannot be written: {error_text(error)}. The "
            "last checkpoint is intact. Make sure that the disk has free "
            "space, then run the same command again to continue from it."
        ) from error
