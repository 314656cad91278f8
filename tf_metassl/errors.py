"""Errors whose message is all that a user needs. Imports no TensorFlow.

A command prints the message of a `UserError` and exits with 1; any other
exception is a bug and keeps its traceback.
"""

import re


class UserError(Exception):
    """Base of all errors that a user can act on."""


class ConfigError(UserError, ValueError):
    """A setting that cannot be used; the message names the flag to change."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that should be there cannot be used."""


class WriteError(UserError, RuntimeError):
    """A file of the run cannot be written."""


class ExportError(UserError, RuntimeError):
    """The written SavedModel does not give the network's probabilities."""


class CollapseError(UserError, RuntimeError):
    """The pseudo-labels have collapsed."""


class WorkerLostError(UserError, RuntimeError):
    """Another worker of the cluster has ended or cannot be reached."""


class TrainingDivergedError(UserError, RuntimeError):
    """The loss or a parameter is not finite, or the loss has exploded.

    Args:
        what: what has diverged, such as `The loss became nan`.
        step: the step at which it was noticed.
    """

    def __init__(self, what: str, step: int) -> None:
        super().__init__(
            f"{what} at step {step}. The last checkpoint is intact. Lower "
            "--learning_rate, raise --warmup_steps or set "
            "--gradient_clip_norm; --recover_from_nan=1 returns to the last "
            "checkpoint and continues with other batches."
        )
        self.what = what
        self.step = step


def error_text(error: BaseException) -> str:
    """The message of an error of Python or TensorFlow, without node names."""
    return re.sub(r"\{\{.*?\}\} | \[Op:.*?\]", "", str(error))
