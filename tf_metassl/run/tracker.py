"""Metrics, settings and files of a run in MLflow or Weights & Biases.

A tracker that fails is left out from then on, with a warning: it never ends a
run. `tracker.json` in the folder of the run holds its name there, so that a run
that is resumed goes on in the same one.
"""

import importlib
import importlib.util
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from absl import logging

from tf_metassl import config as config_lib
from tf_metassl import files
from tf_metassl.config import Config
from tf_metassl.errors import ConfigError

_FILE = "tracker.json"
# `--tracker` -> how its package is installed.
_PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}
# What of a finished run is uploaded.
_ARTIFACTS = (
    *("report.html", "report.md", "results.json", "run.flags"),
    *("learning_curve.png", "confusion_matrix.png"),
)


class Backend(Protocol):
    """One run in a service.

    Attributes:
        run_id: by which the service finds the run again.
    """

    run_id: str

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records numbers of a step."""

    def artifacts(self, paths: Sequence[pathlib.Path]) -> None:
        """Uploads files."""

    def finish(self) -> None:
        """Ends the run."""


class _MLflow:
    """MLflow, where `MLFLOW_TRACKING_URI` says.

    Args:
        name: of a new run.
        settings: of a new run, name -> value.
        run_id: of the run to go on with; None for a new one.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], run_id: str | None
    ) -> None:
        mlflow = importlib.import_module("mlflow")
        self._client = mlflow.MlflowClient()
        if run_id:
            self.run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
            return
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "tf_metassl")
        experiment = mlflow.set_experiment(title)
        run = self._client.create_run(experiment.experiment_id, run_name=name)
        self.run_id = run.info.run_id
        for key, value in settings.items():
            self._client.log_param(self.run_id, key, value)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Backend`."""
        for key, value in values.items():
            self._client.log_metric(self.run_id, key, value, step=step)

    def artifacts(self, paths: Sequence[pathlib.Path]) -> None:
        """See `Backend`."""
        for path in paths:
            self._client.log_artifact(self.run_id, str(path))

    def finish(self) -> None:
        """See `Backend`."""
        self._client.set_terminated(self.run_id)


class _Wandb:
    """Weights & Biases, as its environment variables say.

    Args:
        name: of a new run.
        settings: of a new run, name -> value.
        run_id: of the run to go on with; None for a new one.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], run_id: str | None
    ) -> None:
        self._wandb = importlib.import_module("wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tf_metassl"),
            name=name,
            config=dict(settings),
            id=run_id,
            resume="allow",
        )
        self.run_id = self._run.id
        # A resumed run may repeat a step, which the service's own count
        # does not allow.
        self._run.define_metric("*", step_metric="step")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See `Backend`."""
        self._run.log({"step": step, **values})

    def artifacts(self, paths: Sequence[pathlib.Path]) -> None:
        """See `Backend`."""
        artifact = self._wandb.Artifact("report", type="report")
        for path in paths:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        """See `Backend`."""
        self._run.finish()


_BACKENDS: Mapping[str, Callable[..., Backend]] = {
    "mlflow": _MLflow,
    "wandb": _Wandb,
}


class Tracker:
    """What a run tells a tracker; does nothing without one.

    Args:
        backend: function without arguments that makes the `Backend`; None
            without a tracker.
    """

    def __init__(self, backend: Callable[[], Backend] | None = None) -> None:
        self._backend: Backend | None = None
        if backend:
            self._backend = self._tried(backend)

    @property
    def run_id(self) -> str | None:
        """By which the service finds the run; None without one."""
        return self._backend and self._backend.run_id

    def metrics(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Records the metrics of a split, those that are finite numbers.

        Args:
            step: step of the run.
            split: what they are of, the first part of their names.
            values: name -> number.
        """
        numbers = {
            f"{split}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        }
        if backend := self._backend:
            self._tried(lambda: backend.metrics(step, numbers))

    def finish(
        self, run_dir: pathlib.Path, step: int, result: Mapping[str, Any]
    ) -> None:
        """Records the result of a finished run and its reports.

        Args:
            run_dir: folder of the run.
            step: the last step.
            result: row of the exported network in the final table.
        """
        self.metrics(step, "result", result)
        paths = [run_dir / name for name in _ARTIFACTS]
        paths = [path for path in paths if path.exists()]
        if backend := self._backend:
            self._tried(lambda: backend.artifacts(paths))
        if backend := self._backend:
            self._tried(backend.finish)

    def _tried(self, call: Callable[[], Any]) -> Any:
        """What a call returns; after a failure there is no tracker."""
        try:
            return call()
        except Exception as error:
            # Whatever it is, the training goes on.
            logging.warning(
                "The tracker has failed and is left out from now on; the run "
                "goes on: %s: %s",
                type(error).__name__,
                error,
            )
            self._backend = None


def check(config: Config) -> None:
    """Raises ConfigError if the package of `--tracker` is not installed."""
    name = config.tracker
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"--tracker={name} needs the package {name}, which is not "
            f"installed: pip install {_PACKAGES[name]}."
        )


def start(config: Config, run_dir: pathlib.Path) -> Tracker:
    """The tracker of a run, which goes on where the run began with it.

    Args:
        config: the `Config`.
        run_dir: folder of the run.
    """
    if config.tracker == "none":
        return Tracker()
    path, make = run_dir / _FILE, _BACKENDS[config.tracker]
    known = None
    if path.exists():
        try:
            known = json.loads(path.read_text("utf-8")).get(config.tracker)
        except (ValueError, AttributeError):
            logging.warning("%s is damaged: the tracker begins anew.", path)
    settings = config_lib.compared(config)
    tracker = Tracker(lambda: make(run_dir.name, settings, known))
    if tracker.run_id:
        text = json.dumps({config.tracker: tracker.run_id})
        files.write_text(path, text + "\n")
    return tracker
