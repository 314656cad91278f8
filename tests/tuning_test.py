"""A search on functions of the settings, and a small one on the digits."""

import csv
import json
import pathlib

import pytest

from tf_metassl import config
from tf_metassl.errors import ConfigError, TrainingDivergedError
from tf_metassl.run import command_line, tuning
from tf_metassl.run.metrics_file import MetricsFile
from tf_metassl.run.termination import Terminated

pytest.importorskip("optuna", reason="Optuna is not installed")

GIVEN = {"algo": "supervised", "num_steps": 20, "evaluate_every": 5}
SEARCH = ["learning_rate=log:0.01:1.0"]


def search(out, objective, num_trials=6, **options):
    return tuning.tune(
        GIVEN,
        options.pop("search", SEARCH),
        out,
        num_trials=num_trials,
        objective=objective,
        **options,
    )


def rows(out):
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_standard_error_by_hand():
    # Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1.
    better, mean, error = tuning.is_better([0.6, 0.8, 1.0], [0.5, 0.6, 0.7])
    assert better and mean == pytest.approx(0.2)
    assert error == pytest.approx(0.1 / 3**0.5)
    # Differences 0.1 and 0: mean 0.05 and error 0.05.
    assert not tuning.is_better([0.625, 0.5], [0.5, 0.5])[0]
    assert not tuning.is_better([0.5, 0.5], [0.5, 0.5])[0]


def test_better_settings_are_found_and_written(tmp_path):
    seen = []

    def objective(resolved, termination):
        del termination
        seen.append(resolved)
        return 1.0 - abs(resolved.learning_rate - 0.4) + 0.01 * resolved.seed

    summary = search(tmp_path, objective, num_trials=12)
    # The default first, with a pair of seeds for each split.
    assert [c.learning_rate for c in seen[:3]] == [0.1] * 3
    assert [(c.seed, c.split_seed) for c in seen[:3]] == [
        (0, 0),
        (1, 1),
        (2, 2),
    ]
    assert len({c.run_dir for c in seen}) == len(seen) == 36
    assert not summary["default_kept"]
    assert abs(summary["winner"]["learning_rate"] - 0.4) < 0.3
    lines = (tmp_path / "best.flags").read_text().splitlines()
    chosen = config.Config.from_flags(lines)
    assert chosen.learning_rate == summary["winner"]["learning_rate"]
    assert (chosen.split_seed, chosen.run_dir) == (0, "")
    assert (
        command_line.parse([f"--flagfile={tmp_path / 'best.flags'}"]) == chosen
    )
    assert summary == json.loads((tmp_path / "tune.json").read_text())
    assert "look better here than they are" in summary["sentences"][-1]
    found = rows(tmp_path)
    assert len(found) == 12 and found[0]["learning_rate"] == "0.1"
    assert found[0]["values"] == "0.7000 0.7100 0.7200"


def test_chance_does_not_beat_the_default(tmp_path):
    def objective(resolved, termination):
        del termination
        # Better on one split by as much as worse on the other, and a little.
        if resolved.learning_rate == 0.1:
            return 0.5
        return 0.602 if resolved.seed == 1 else 0.4

    summary = search(tmp_path, objective, num_splits=2)
    assert summary["default_kept"]
    assert summary["winner"] == {"learning_rate": 0.1}
    assert "the default is kept" in summary["sentences"][-1]
    lines = (tmp_path / "best.flags").read_text().splitlines()
    assert config.Config.from_flags(lines).learning_rate == 0.1


def test_a_killed_search_runs_its_last_trial_again(tmp_path):
    calls = []

    def objective(resolved, termination):
        del termination
        calls.append((resolved.learning_rate, resolved.seed))
        # In the first trial, and in a later one.
        if len(calls) in (2, 9):
            raise KeyboardInterrupt
        return 0.5

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, objective, num_trials=4)
    killed = calls[-1]
    search(tmp_path, objective, num_trials=4)
    assert calls[2:5] == [(0.1, 0), (0.1, 1), (0.1, 2)]
    assert calls[9][0] == killed[0]
    states = [row["state"] for row in rows(tmp_path)]
    assert states.count("complete") == 4 and states.count("fail") == 2
    # Nothing is left to do; more can be asked for.
    count = len(calls)
    assert search(tmp_path, objective, num_trials=4)["num_trials"] == 4
    assert len(calls) == count
    assert search(tmp_path, objective, num_trials=5)["num_trials"] == 5


@pytest.mark.exhaustive
def test_trials_far_below_the_others_are_pruned(tmp_path):
    def objective(resolved, termination):
        bad = resolved.learning_rate > 0.2
        metrics = MetricsFile(f"{resolved.run_dir}/metrics.jsonl")
        pathlib.Path(resolved.run_dir).mkdir(parents=True)
        for step in (5, 10, 15, 20):
            accuracy = 0.1 if bad else 0.5 + 0.001 * step
            metrics.write(step, "validation", {"ema_accuracy": accuracy})
            if termination.requested:
                raise Terminated("stopped")
        return accuracy

    summary = search(tmp_path, objective, num_trials=14)
    states = {row["state"] for row in rows(tmp_path)}
    assert summary["num_pruned"] and states == {"complete", "pruned"}
    assert all(
        float(row["learning_rate"]) > 0.2
        for row in rows(tmp_path)
        if row["state"] == "pruned"
    )
    with pytest.raises(ConfigError, match="num_splits: 3 -> 2"):
        search(tmp_path, objective, num_splits=2)


def test_a_trial_that_diverges_fails_and_the_default_may_not(tmp_path):
    def objective(resolved, termination):
        del termination
        if resolved.learning_rate > limit:
            raise TrainingDivergedError("The loss became nan", 3)
        return 0.5

    limit = 0.0
    with pytest.raises(TrainingDivergedError):
        search(tmp_path, objective)
    limit = 0.15
    assert search(tmp_path, objective, num_trials=8)["num_trials"] == 8
    states = [row["state"] for row in rows(tmp_path)]
    assert "fail" in states and "complete" in states


def test_what_cannot_be_tuned(tmp_path):
    with pytest.raises(ConfigError, match="must be at least 2"):
        search(tmp_path, None, num_splits=1)


@pytest.mark.slow
def test_a_search_on_digits_never_sees_test_images(tmp_path, monkeypatch):
    from tf_metassl.run import evaluation

    def forbidden(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(evaluation, "final_metrics", forbidden)
    summary = tuning.tune(
        {
            "algo": "supervised",
            "num_steps": 6,
            "evaluate_every": 3,
            "batch_size": 8,
            "num_validation": 50,
            "verbose": 0,
        },
        ["learning_rate=0.1,0.0"],
        tmp_path,
        num_trials=2,
        num_splits=2,
    )
    assert summary["num_trials"] == 2
    assert all(0.0 <= value <= 1.0 for value in summary["default_values"])
    runs = list((tmp_path / "runs").iterdir())
    assert {len(MetricsFile(r / "metrics.jsonl").rows()) for r in runs} == {4}
    assert not (runs[0] / "report.md").exists()
