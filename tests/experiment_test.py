"""A run as a whole: where it is written, and what it records."""

import json
import os

import pytest

from tf_metassl import config
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.run import (
    experiment,
    forecast,
    panels,
    run_directory,
    serving,
)
from tf_metassl.run import stage as stage_lib

pytestmark = pytest.mark.slow


def test_several_workers_need_the_name_of_a_run_directory(monkeypatch):
    workers = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv(
        "TF_CONFIG", json.dumps({"cluster": workers, "task": task})
    )
    with pytest.raises(ConfigError, match="--run_dir is empty"):
        experiment.train(config.resolve({"algo": "supervised"}))


def test_a_run_directory_whose_name_is_not_utf8(tmp_path):
    run_dir = tmp_path / os.fsdecode(b"r\xf6")
    settings = config.resolve({"algo": "supervised", "run_dir": str(run_dir)})
    with pytest.raises(ConfigError, match=r"r\\xf6: the name is not UTF-8"):
        experiment.train(settings)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains two steps in one run directory; returns what is of interest.

    The function returns the `batch_seed_version`s of the stages that were run
    and the content of `provenance.json`.
    """
    monkeypatch.setattr(serving, "export_saved_model", lambda *_, **__: None)
    settings = {"num_steps": 1, "round_steps": 1, "num_rounds": 1}
    settings |= {"batch_size": 8, "confidence_threshold": 0.0, "verbose": 0}
    settings |= {"algo": "noisy_student", "run_dir": str(tmp_path / "run")}
    run_stage, runs = stage_lib.run_stage, []

    def noted(run):
        runs.append(run)
        return run_stage(run)

    monkeypatch.setattr(stage_lib, "run_stage", noted)

    def function():
        runs.clear()
        run_dir = experiment.train(config.resolve(settings))
        versions = [run.batch_seed_version for run in runs]
        assert [run.first_step for run in runs] == [0, 1]
        return versions, json.loads((run_dir / "provenance.json").read_text())

    return function


def test_a_new_run_draws_by_the_newest_rule(train):
    for _ in range(2):
        versions, made = train()
        assert versions == [3, 3] and made["batch_seed_version"] == 3


@pytest.mark.exhaustive
def test_a_run_of_an_earlier_version_keeps_its_rule(train, tmp_path):
    _, made = train()
    del made["batch_seed_version"]
    path = tmp_path / "run" / "provenance.json"
    path.write_text(json.dumps(made))
    # Also after it has been resumed once.
    for _ in range(2):
        versions, made = train()
        assert versions == [1, 1] and made["batch_seed_version"] == 1


def test_panels_that_fail_do_not_lose_the_report(train, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(panels, "collect", fail)
        with pytest.raises(UserError, match="images: RuntimeError: no memory"):
            train()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "test images are classified correctly" in page
    assert "Predictions by class" not in page
    train()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Predictions by class" in page and "<h2>Limits</h2>" in page


def test_a_longer_run_has_several_steps_per_call(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "export_saved_model", lambda *_, **__: None)
    monkeypatch.setattr(forecast, "LOOP_STEPS", 11)
    run_stage, calls = stage_lib.run_stage, []

    def noted(run):
        found = run_stage(run)
        calls.append(run.algorithm.steps_per_execution)
        return found

    monkeypatch.setattr(stage_lib, "run_stage", noted)
    settings = {"num_steps": 12, "round_steps": 6, "num_rounds": 1}
    settings |= {"batch_size": 8, "confidence_threshold": 0.0, "verbose": 0}
    settings |= {"algo": "noisy_student", "evaluate_every": 6}
    rows = []
    for expected, given in ((6, {}), (1, {"steps_per_execution": 1})):
        given["run_dir"] = str(tmp_path / str(expected))
        folder = experiment.train(config.resolve(settings | given))
        recorded = run_directory.load_config(folder).steps_per_execution
        assert [recorded, *calls] == [expected] * 3
        calls.clear()
        rows.append((folder / "metrics.jsonl").read_text())
    assert rows[0] == rows[1]
