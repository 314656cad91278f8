"""What a run tells a tracker, by services that are stand-ins."""

import json
import math
import sys
import types

import pytest

from tf_metassl import config
from tf_metassl.errors import ConfigError
from tf_metassl.run import tracker
from tf_metassl.run.tracker import Tracker


class Service:
    """Records what is told; fails at a method."""

    run_id = "abc"

    def __init__(self, fails=""):
        self.told = []
        self._fails = fails

    def _tell(self, name, *values):
        if name == self._fails:
            raise RuntimeError("no connection")
        self.told.append((name, *values))

    def metrics(self, step, values):
        self._tell("metrics", step, values)

    def artifacts(self, paths):
        self._tell("artifacts", [path.name for path in paths])

    def finish(self):
        self._tell("finish")


def test_metrics_and_reports_are_told(tmp_path):
    (tmp_path / "report.md").write_text("")
    service = Service()
    told = Tracker(lambda: service)
    told.metrics(3, "train", {"loss": 1.5, "nan": math.nan, "name": "x"})
    told.finish(tmp_path, 6, {"test_accuracy": 0.5, "deployed": True})
    assert service.told == [
        ("metrics", 3, {"train/loss": 1.5}),
        ("metrics", 6, {"result/test_accuracy": 0.5}),
        ("artifacts", ["report.md"]),
        ("finish",),
    ]


@pytest.mark.parametrize("fails", ("start", "metrics", "artifacts", "finish"))
def test_a_tracker_that_fails_ends_nothing(tmp_path, caplog, fails):
    service = Service(fails)

    def make():
        if fails == "start":
            raise OSError("no such host")
        return service

    told = Tracker(make)
    for step in (1, 2):
        told.metrics(step, "train", {"loss": 1.0})
    told.finish(tmp_path, 2, {})
    assert sum("goes on" in record.message for record in caplog.records) == 1
    assert told.run_id is None
    # It is not asked again.
    assert len(service.told) == {"start": 0, "metrics": 0}.get(
        fails, 3 if fails == "artifacts" else 4
    )


def test_without_a_tracker_nothing_happens(tmp_path):
    told = tracker.start(config.resolve({}), tmp_path)
    told.metrics(1, "train", {"loss": 1.0})
    told.finish(tmp_path, 1, {})
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracker.check(config.resolve({}))
    with pytest.raises(ConfigError, match="pip install mlflow-skinny"):
        tracker.check(config.resolve({"tracker": "mlflow"}))


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for MLflow; a list of what is told."""
    told = []

    class Client:
        def __getattr__(self, name):
            def call(*values, **options):
                told.append((name, *values, *options.values()))
                return types.SimpleNamespace(
                    info=types.SimpleNamespace(run_id="run-7")
                )

            return call

    module = types.ModuleType("mlflow")
    module.MlflowClient = Client
    module.set_experiment = lambda name: types.SimpleNamespace(
        experiment_id=name
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return told


def test_mlflow_goes_on_in_the_same_run(tmp_path, mlflow):
    resolved = config.resolve({"tracker": "mlflow"})
    told = tracker.start(resolved, tmp_path)
    assert mlflow[0] == ("create_run", "tf_metassl", tmp_path.name)
    params = {entry[2]: entry[3] for entry in mlflow[1:]}
    assert params["learning_rate"] == 0.1 and "run_dir" not in params
    told.metrics(3, "validation", {"ema_accuracy": 0.5})
    assert mlflow[-1] == (
        *("log_metric", "run-7", "validation/ema_accuracy", 0.5, 3),
    )
    text = (tmp_path / "tracker.json").read_text()
    assert json.loads(text) == {"mlflow": "run-7"}
    mlflow.clear()
    assert tracker.start(resolved, tmp_path).run_id == "run-7"
    assert mlflow == [("update_run", "run-7", "RUNNING")]
    (tmp_path / "tracker.json").write_text("{")
    tracker.start(resolved, tmp_path)
    assert mlflow[1][0] == "create_run"


def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch):
    told = []

    class Run:
        id = "run-8"

        def __getattr__(self, name):
            return lambda *values, **options: told.append(
                (name, *values, *options.values())
            )

    class Artifact:
        def __init__(self, name, type):
            self.files = []

        def add_file(self, path):
            self.files.append(path)

    module = types.ModuleType("wandb")
    module.Artifact = Artifact
    module.init = lambda **options: told.append(options["id"]) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    resolved = config.resolve({"tracker": "wandb"})
    (tmp_path / "report.md").write_text("")
    for known in (None, "run-8"):
        started = tracker.start(resolved, tmp_path)
        assert told == [known, ("define_metric", "*", "step")]
        told.clear()
    started.metrics(3, "train", {"loss": 0.5})
    assert told == [("log", {"step": 3, "train/loss": 0.5})]
    started.finish(tmp_path, 6, {})
    assert told[-2][1].files == [str(tmp_path / "report.md")]
    assert told[-1] == ("finish",)
