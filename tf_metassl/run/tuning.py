"""A search for better settings by the accuracy on validation images.

Optuna proposes settings, every trial trains one run for each split seed, and
the mean validation accuracy decides. Test images are never evaluated. All is
kept in a folder: Optuna's `study.db`, and `runs/` with a run for each settings
and split seed, named by a hash of the settings. A search that was killed goes
on where it was.
"""

import csv
import hashlib
import io
import json
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from absl import logging

from tf_metassl import config as config_lib
from tf_metassl import files
from tf_metassl.config import Config
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.run import experiment, search_space
from tf_metassl.run.metrics_file import MetricsFile
from tf_metassl.run.search_space import Range
from tf_metassl.run.termination import Terminated, Termination

_STUDY = "tf_metassl"
# Trials before the first one can be pruned.
_STARTUP = 5

# A function of a `Config` and a `Termination` -> validation accuracy.
Objective = Callable[[Config, Any], float]


class _Pruned(Exception):
    """The trial is not worth finishing."""


class _Watch:
    """A `Termination` that also ends a run whose trial is to be pruned.

    Args:
        termination: the one of the process.
        metrics: path of the metrics.jsonl that the run writes.
        report: function of the number of an evaluation and its validation
            accuracy, which says whether to prune.
    """

    def __init__(
        self,
        termination: Termination,
        metrics: pathlib.Path,
        report: Callable[[int, float], bool],
    ) -> None:
        self._termination = termination
        self._metrics = metrics
        self._report = report
        self._size = 0
        self.pruned = False

    @property
    def deferred(self) -> bool:
        """See `Termination`."""
        return self._termination.deferred

    @deferred.setter
    def deferred(self, value: bool) -> None:
        self._termination.deferred = value

    @property
    def requested(self) -> bool:
        """See `Termination`; also true if the trial is to be pruned."""
        if not self.pruned and self._has_grown():
            rows = MetricsFile(self._metrics).rows()
            rows = [row for row in rows if row["split"] == "validation"]
            if rows:
                self.pruned = self._report(len(rows), _accuracy(rows[-1]))
        return self.pruned or self._termination.requested

    def _has_grown(self) -> bool:
        size = self._metrics.stat().st_size if self._metrics.exists() else 0
        grown, self._size = size != self._size, size
        return grown


def _accuracy(row: Mapping[str, Any]) -> float:
    """The accuracy of the best network in a row of metrics.jsonl."""
    return max(v for k, v in row.items() if k.endswith("_accuracy"))


def is_better(
    values: Sequence[float], default: Sequence[float]
) -> tuple[bool, float, float]:
    """Whether settings beat the default by more than the standard error.

    Args:
        values: accuracies of the settings, one per split seed, at least two.
        default: those of the default, of the same split seeds.

    Returns:
        Whether they do, the mean of the paired differences, and its standard
        error.
    """
    gains = [a - b for a, b in zip(values, default, strict=True)]
    mean = statistics.fmean(gains)
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return mean > error, mean, error


def tune(
    given: Mapping[str, Any],
    search: Sequence[str],
    out: files.AnyPath,
    *,
    num_trials: int = 20,
    num_splits: int = 3,
    prune: bool = True,
    termination: Termination | None = None,
    objective: Objective = experiment.validation_accuracy,
) -> dict[str, Any]:
    """Searches settings.

    Args:
        given: the settings that do not vary, name -> value.
        search: see `search_space.parse`.
        out: folder of the search; one that exists is continued.
        num_trials: trials to have at the end, that of the default included.
        num_splits: runs of each trial: `--split_seed` and `--seed`, and those
            after them.
        prune: whether trials are ended early whose accuracy is below the
            median of the others at the same evaluation.
        termination: a `Termination`, to end at a checkpoint.
        objective: function of a `Config` and a `Termination` that trains and
            returns the validation accuracy.

    Returns:
        The content of `tune.json`. Beside it are `trials.csv` and `best.flags`.

    Raises:
        ConfigError: if the search cannot be used, or the folder holds another
            one, or Optuna is not installed.
        UserError: if the default settings cannot be trained.
    """
    space = search_space.parse(search, given)
    if num_splits < 2 or num_trials < 2:
        raise ConfigError(
            f"--num_splits={num_splits}, --num_trials={num_trials}: both must "
            "be at least 2, so that a difference has a standard error and the "
            "default a rival."
        )
    optuna = _optuna()
    out = pathlib.Path(out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    with files.locked(out / ".lock") as held:
        if not held:
            raise ConfigError(
                f"--out={out} is in use by another process. Wait for it, or "
                "name another folder."
            )
        _check_same(out, given, search, num_splits)
        study = optuna.create_study(
            study_name=_STUDY,
            storage=f"sqlite:///{out / 'study.db'}",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
            if prune
            else optuna.pruners.NopPruner(),
        )
        _run_again(optuna, study, {part.name: part.default for part in space})
        search_ = _Search(
            given, space, out, num_splits, termination or Termination()
        )
        while _num_done(optuna, study) < num_trials:
            # A new one, or a search that was continued would draw the same.
            study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
            search_.one_trial(optuna, study, objective)
        return _finish(optuna, study, search_)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "tune needs Optuna, which is not installed: pip install -r "
            "requirements-tune.txt, or pip install optuna."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _check_same(
    out: pathlib.Path,
    given: Mapping[str, Any],
    search: Sequence[str],
    num_splits: int,
) -> None:
    """Raises ConfigError if the folder holds a search of something else."""
    config = config_lib.resolve(given)
    facts = {
        **config_lib.compared(config),
        "search": sorted(search),
        "num_splits": num_splits,
    }
    path = out / "search.json"
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        changed = [
            f"{name}: {old.get(name)!r} -> {facts.get(name)!r}"
            for name in sorted(old.keys() | facts.keys())
            if old.get(name) != facts.get(name)
        ]
        if changed:
            raise ConfigError(
                f"--out={out} holds a search that differs:\n  "
                + "\n  ".join(changed)
                + "\nName another folder."
            )
    files.write_text(path, json.dumps(facts, indent=1) + "\n")


def _run_again(optuna: Any, study: Any, default: Mapping[str, Any]) -> None:
    """Queues what was running when the process ended, first the default."""
    states = optuna.trial.TrialState
    queued = []
    for trial in study.get_trials(states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)
        # A process may have been killed before it knew all of them.
        if trial.params.keys() == default.keys():
            queued.append(trial.params)
    done = study.get_trials(states=(states.COMPLETE,))
    if not any(trial.params == default for trial in done):
        queued = [default, *(p for p in queued if p != default)]
    for params in queued:
        study.enqueue_trial(params, skip_if_exists=False)


def _num_done(optuna: Any, study: Any) -> int:
    """The trials that have ended by themselves."""
    states = optuna.trial.TrialState
    complete = study.get_trials(states=(states.COMPLETE, states.PRUNED))
    failed = study.get_trials(states=(states.FAIL,))
    return len(complete) + sum("reason" in t.user_attrs for t in failed)


class _Search:
    """What all trials of a search share.

    Args:
        given: see `tune`.
        space: the ranges.
        out: see `tune`.
        num_splits: see `tune`.
        termination: see `tune`.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        space: Sequence[Range],
        out: pathlib.Path,
        num_splits: int,
        termination: Termination,
    ) -> None:
        self._given = dict(given)
        self._out = out
        self._num_splits = num_splits
        self._termination = termination
        self.space = space

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial, name -> value."""
        return {**self._given, **params}

    def config(self, params: Mapping[str, Any], split: int) -> Config:
        """The configuration of a trial's run on its n-th split."""
        settings = self.settings(params)
        name = json.dumps(params, sort_keys=True)
        name = hashlib.sha256(name.encode()).hexdigest()[:10]
        base = config_lib.resolve(settings)
        # All trials have the same pairs of seeds.
        changed = {
            "seed": base.seed + split,
            "run_dir": str(self._out / "runs" / f"{name}-{split}"),
        }
        if base.label_split != "first":
            changed["split_seed"] = base.split_seed + split
        if base.hyperparameters.uses_unlabeled:
            changed["supervised_twin"] = "off"
        return config_lib.resolve({**settings, **changed})

    def one_trial(self, optuna: Any, study: Any, objective: Objective) -> None:
        """Asks for settings, trains them, and tells the result."""
        trial = study.ask()
        number = trial.number
        params = {part.name: part.suggest(trial) for part in self.space}
        is_default = params == {part.name: part.default for part in self.space}
        shown = ", ".join(f"{name}={value}" for name, value in params.items())
        print(f"trial {number}: {shown}", flush=True)
        states = optuna.trial.TrialState
        values: list[float] = []
        try:
            for split in range(self._num_splits):
                config = self.config(params, split)
                values.append(
                    self._one_run(config, trial, is_default, values, objective)
                )
                trial.set_user_attr("values", values)
        except _Pruned:
            study.tell(trial, state=states.PRUNED)
            print(f"trial {number}: pruned", flush=True)
            return
        except UserError as error:
            # Without the default there is nothing to compare with.
            if is_default:
                raise
            logging.warning("trial %d: %s", number, error)
            trial.set_user_attr("reason", str(error))
            study.tell(trial, state=states.FAIL)
            return
        study.tell(trial, statistics.fmean(values))
        listed = ", ".join(f"{value:.4f}" for value in values)
        print(
            f"trial {number}: validation accuracy "
            f"{statistics.fmean(values):.4f} ({listed})",
            flush=True,
        )

    def _one_run(
        self,
        config: Config,
        trial: Any,
        is_default: bool,
        values: Sequence[float],
        objective: Objective,
    ) -> float:
        """The validation accuracy of one split."""
        every = math.ceil(config.num_steps / config.evaluate_every) + 1

        def report(evaluation: int, accuracy: float) -> bool:
            mean = statistics.fmean([*values, accuracy])
            trial.report(mean, len(values) * every + min(evaluation, every - 1))
            # The default is what all others are compared with.
            return not is_default and trial.should_prune()

        metrics = pathlib.Path(config.run_dir) / "metrics.jsonl"
        watch = _Watch(self._termination, metrics, report)
        try:
            return objective(config, watch)
        except Terminated:
            if watch.pruned and not self._termination.requested:
                raise _Pruned from None
            raise
        finally:
            keras.backend.clear_session()

    def flags(self, params: Mapping[str, Any]) -> str:
        """The text of a flagfile with the settings of a trial."""
        config = config_lib.resolve(self.settings(params))
        return "\n".join(config.to_flags()) + "\n"


def _finish(optuna: Any, study: Any, search: _Search) -> dict[str, Any]:
    """Chooses, and writes `trials.csv`, `tune.json` and `best.flags`."""
    names = [part.name for part in search.space]
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    default = {part.name: part.default for part in search.space}
    first = next(t for t in complete if t.params == default)
    best = max(complete, key=lambda t: (t.value, -t.number))
    rival = first.user_attrs["values"]
    better, gain, error = is_better(best.user_attrs["values"], rival)
    winner = best if better else first
    num_pruned = len(study.get_trials(states=(optuna.trial.TrialState.PRUNED,)))
    summary = {
        "num_trials": _num_done(optuna, study),
        "num_pruned": num_pruned,
        "default": default,
        "default_values": rival,
        "best": best.params,
        "best_values": best.user_attrs["values"],
        "gain": gain,
        "standard_error": error,
        "default_kept": not better,
        "winner": winner.params,
    }
    summary["sentences"] = sentences(summary)
    rows: list[list[Any]] = [["trial", "state", *names, "mean", "values"]]
    for trial in study.trials:
        values = trial.user_attrs.get("values", [])
        rows.append(
            [
                trial.number,
                trial.state.name.lower(),
                *(trial.params.get(name, "") for name in names),
                trial.value if trial.value is not None else "",
                " ".join(f"{value:.4f}" for value in values),
            ]
        )
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    out = search._out
    files.write_text(out / "trials.csv", text.getvalue())
    files.write_text(out / "tune.json", json.dumps(summary, indent=1) + "\n")
    files.write_text(out / "best.flags", search.flags(winner.params))
    return summary


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What was found, in words.

    Args:
        summary: the content of `tune.json`.
    """
    count, num_splits = summary["num_trials"], len(summary["default_values"])
    default = statistics.fmean(summary["default_values"])
    text = [
        f"{count} trials, {summary['num_pruned']} of them pruned, on "
        f"{num_splits} splits each. The default settings have a mean "
        f"validation accuracy of {default:.4f}. Test images were not used."
    ]
    if summary["best"] == summary["default"]:
        return [*text, "No other settings have a higher one. They are kept."]
    settings = ", ".join(f"--{k}={v}" for k, v in summary["best"].items())
    best = statistics.fmean(summary["best_values"])
    text.append(
        f"The best settings, {settings}, have {best:.4f}: "
        f"{summary['gain']:+.4f}, with a standard error of "
        f"{summary['standard_error']:.4f} over the splits."
    )
    if summary["default_kept"]:
        text.append("That is not more than the error: the default is kept.")
    else:
        text.append(
            "That is more than the error: they are chosen. As the best of "
            f"{count} trials they look better here than they are."
        )
    return text
