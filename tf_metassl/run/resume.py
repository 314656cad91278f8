"""What a checkpoint says about the run, and where a stage keeps them."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Self, TypedDict

from tf_metassl import files
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.run import checkpoints


class Recovery(TypedDict):
    """The return to a checkpoint after the loss has diverged.

    Attributes:
        stage: name of the stage.
        what: what went wrong.
        at: the step at which it was noticed.
        back_to: the step of the checkpoint.
    """

    stage: str
    what: str
    at: int
    back_to: int


@dataclasses.dataclass(frozen=True)
class ResumeState:
    """Everything but variables that a stage needs in order to be resumed.

    It is stored as `state.json` in every checkpoint; the fields are written in
    this order.

    Attributes:
        best_validation: highest validation accuracy so far; -1 before the
            first evaluation.
        last_evaluation: the step of the last finished evaluation.
        out_of_time: whether the time budget has ended the stage.
        elapsed_share: the share of the time budget that is used up.
        recoveries: one `Recovery` per return after a diverged loss.
        train_metrics: running means of the unfinished epoch, as
            `tf_metassl.ops.metrics.reader` gives them; None between epochs.
        wall_clock_seconds: seconds spent in the stage, evaluations included.
        step: number of finished steps of the stage.
        evaluations_without_gain: evaluations since `best_validation` was
            reached; counted, and written, with `--patience` alone.
    """

    best_validation: float = -1.0
    last_evaluation: int = 0
    out_of_time: bool = False
    elapsed_share: float = 0.0
    recoveries: tuple[Recovery, ...] = ()
    train_metrics: dict[str, list[Any]] | None = None
    wall_clock_seconds: float = 0.0
    step: int = 0
    evaluations_without_gain: int = 0

    def has_ended(self, patience: int) -> bool:
        """Whether the stage ends before its last step.

        Args:
            patience: `--patience` of the run.
        """
        return self.out_of_time or self.out_of_patience(patience)

    def out_of_patience(self, patience: int) -> bool:
        """Whether `--patience`, which is 0 if it is off, ends the stage."""
        return 0 < patience <= self.evaluations_without_gain

    def to_json(self) -> dict[str, Any]:
        """A dict that `json` can write."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(self, name) for name in names}
        # The file of a run without patience is what it has always been.
        if not self.evaluations_without_gain:
            del values["evaluations_without_gain"]
        return {**values, "recoveries": list(self.recoveries)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The state in a dict that was read from `state.json`.

        Args:
            values: the dict, with `step`. Fields that are missing because an
                earlier version wrote the file get their defaults, except that
                `last_evaluation` is then the step of the checkpoint. Unknown
                keys are ignored.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        known = {name: values[name] for name in names if name in values}
        known.setdefault("last_evaluation", values["step"])
        known["recoveries"] = tuple(values.get("recoveries", ()))
        return cls(**known)


def checkpoint_folder(run_dir: files.AnyPath, stage: str) -> pathlib.Path:
    """The folder of a stage's checkpoints.

    Args:
        run_dir: folder of the run.
        stage: name of the stage.
    """
    return pathlib.Path(run_dir) / "checkpoints" / stage


def restore_newest(folder: files.AnyPath, algorithm: Algorithm) -> ResumeState:
    """Restores `algorithm` from the newest undamaged checkpoint.

    Args:
        folder: see `checkpoint_folder`.
        algorithm: an `Algorithm`; unchanged if there is no checkpoint.

    Returns:
        The `ResumeState` of the checkpoint; that of step 0 if there is none.

    Raises:
        CheckpointError: see `checkpoints.newest_whole`.
    """
    newest = checkpoints.newest_whole(folder)
    if newest is None:
        return ResumeState()
    return ResumeState.from_json(checkpoints.restore(newest, algorithm))


def restore_selected(
    folder: pathlib.Path, algorithm: Algorithm, selection: str
) -> None:
    """Restores what `--selection` asks for.

    Args:
        folder: see `checkpoint_folder`.
        algorithm: an `Algorithm` at the last step of the stage.
        selection: `last`, which leaves the algorithm as it is, or
            `best_validation`.
    """
    if selection == "best_validation":
        checkpoints.restore(folder / "best", algorithm)
