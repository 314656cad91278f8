"""Configuration of a run: its fields, and their resolution from given values.

Imports no TensorFlow, so that a wrong value is reported at once. Flags are
defined and read by `tf_metassl.run.command_line`, files are written by
`tf_metassl.run.run_directory`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Self

from tf_metassl import models, options
from tf_metassl.algorithms import ALGORITHMS, ALIASES, hyperparameters_class
from tf_metassl.contract import MIX_BLOCK
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.options import DataOptions
from tf_metassl.errors import ConfigError
from tf_metassl.hyperparameters import (
    Hyperparameters,
    StudentFeedback,
    setting,
)


# The fields begin with those of the last base.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    options.RunOptions,
    options.MonitoringOptions,
    options.ExecutionOptions,
    options.OptimizationOptions,
    options.NetworkOptions,
    DataOptions,
    options.SplitOptions,
):
    """A resolved run: every default filled in.

    `hyperparameters` holds those of the method; all other fields are the same
    for every method. A flag of the same name sets each field.
    """

    algo: str = setting(
        "meta_semi",
        "The method to train with.",
        choices=(*ALGORITHMS, *ALIASES),
    )
    hyperparameters: Hyperparameters

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON-ready dict; `from_json` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that `to_json` returned as a dict."""
        values = dict(values)
        hp = hyperparameters_class(values["algo"])
        values["hyperparameters"] = hp(**values["hyperparameters"])
        return cls(**values)

    def to_flags(self) -> list[str]:
        """Lines of a flagfile that reproduces the run in another folder."""
        values = self.to_json()
        values |= values.pop("hyperparameters")
        del values["run_dir"], values["allow_changed"]
        return [f"--{name}={value}" for name, value in values.items()]


# Settings whose default is found when the images are known -> what they are
# before that.
UNKNOWN: Mapping[str, Any] = {"model": "auto", "num_validation": -1}

# The versions and the data of a run, see `tf_metassl.run.run_directory`.
PROVENANCE = (
    "tensorflow",
    "keras",
    "numpy",
    "tf_metassl",
    "train_images",
    "test_images",
    "splits",
)

# Paths, output and the handling of failures do not change a run's results.
_NOT_COMPARED = (
    "run_dir",
    "verbose",
    "collapse",
    "checkpoint_minutes",
    "keep_checkpoints",
    "max_loss",
    "recover_from_nan",
    "allow_changed",
    "tpu",
    "data_dir",
    "manual_dir",
    "cache_dir",
    "cache_gib",
    "missing_labels",
)


def resolve(given: Mapping[str, Any]) -> Config:
    """A `Config` from the settings in `given`, name -> value.

    Raises:
        ConfigError: if a value is not allowed, or excludes another one.
    """
    given = dict(given)
    algo = given.get("algo", "meta_semi")
    algo = given["algo"] = ALIASES.get(algo, algo)
    dataset = given.get("dataset", "digits")
    _check_choice("algo", algo, tuple(ALGORITHMS))
    _check_choice("dataset", dataset, tuple(DATASETS))
    own = hyperparameters_class(algo)
    hp = {f.name: f for f in dataclasses.fields(own)}
    fields = {f.name: f for f in common_fields()}
    for name in given:
        if name not in fields and name not in hp:
            known = name in hyperparameters_by_name()
            raise ConfigError(
                f"--{name} is not a setting of --algo={algo}, which has: "
                f"{', '.join('--' + k for k in hp)}."
                if known
                else f"Unknown setting {name!r}."
            )
    defaults = dict(DATASETS[dataset].defaults)
    if given.get("model") == "auto":
        del given["model"]
    model = given.get("model", defaults["model"])
    # The networks that are chosen by the size of the images have none.
    dropout = 0.0 if model == UNKNOWN["model"] else _network(model).dropout
    for name in fields | hp:
        if name.endswith("dropout"):
            defaults[name] = dropout
    settings = {**defaults, **given}
    for name, value in settings.items():
        _check(fields.get(name) or hp[name], value)
    config = Config(
        hyperparameters=own(**{k: v for k, v in settings.items() if k in hp}),
        **{k: v for k, v in settings.items() if k in fields},
    )
    if not config.evaluate_every:
        every = max(config.num_steps // 10, 1)
        every = -(-every // config.steps_per_execution)
        config = dataclasses.replace(
            config, evaluate_every=every * config.steps_per_execution
        )
    _check_together(config)
    return config


def common_fields() -> list[dataclasses.Field]:
    """The dataclass fields of the settings that every method has."""
    return [f for f in dataclasses.fields(Config) if f.metadata]


def hyperparameters_by_name() -> dict[str, dict[str, dataclasses.Field]]:
    """Name of a hyperparameter -> method -> its dataclass field."""
    result: dict[str, dict[str, dataclasses.Field]] = {}
    for algo in ALGORITHMS:
        for field in dataclasses.fields(hyperparameters_class(algo)):
            result.setdefault(field.name, {})[algo] = field
    return result


def compared(config: Config) -> dict[str, Any]:
    """Name -> value of the settings that must not change on resuming."""
    values = config.to_json()
    values |= values.pop("hyperparameters")
    for name in _NOT_COMPARED:
        del values[name]
    return values


def allowed_changes(config: Config) -> set[str]:
    """The fields that `--allow_changed` names, a set."""
    return set(filter(None, config.allow_changed.replace(" ", "").split(",")))


def _check(field: dataclasses.Field, value: Any) -> None:
    """Raises ConfigError unless `value` is allowed for `field`."""
    allowed = field.metadata
    if allowed["choices"]:
        _check_choice(field.name, value, allowed["choices"])
    low, high = allowed["minimum"], allowed["maximum"]
    if (low is not None and value < low) or (high is not None and value > high):
        if high is None:
            wanted = f"at least {low}"
        else:
            wanted = f"between {low} and {high}"
        raise ConfigError(f"--{field.name}={value}: must be {wanted}.")


def _check_choice(
    name: str, value: object, choices: Collection[object]
) -> None:
    if value not in choices:
        raise ConfigError(
            f"--{name}={value}: must be one of "
            f"{', '.join(str(c) for c in choices)}."
        )


def _network(name: str) -> models.Network:
    """The description of the network called `name`."""
    try:
        return models.find(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_feedback(hp: StudentFeedback) -> None:
    """Raises ConfigError if the feedback has no gradient with such labels.

    The method itself checks too late: it may belong to a later stage.
    """
    if hp.soft_labels and hp.feedback in ("taylor", "dot", "per_example"):
        raise ConfigError(
            f"--feedback={hp.feedback} scores the teacher on the labels "
            "that it gave; with --pseudo_label=soft that cross-entropy has no "
            "gradient. Use --pseudo_label=sampled or --feedback=exact_soft."
        )
    if hp.feedback == "exact_soft" and not hp.soft_labels:
        raise ConfigError(
            "--feedback=exact_soft differentiates through soft labels: use "
            "--pseudo_label=soft or auto."
        )


def _check_together(config: Config) -> None:
    """Raises ConfigError for values that exclude each other."""
    known = {*compared(config), *hyperparameters_by_name(), *PROVENANCE}
    if unknown := sorted(allowed_changes(config) - known):
        raise ConfigError(
            f"--allow_changed={config.allow_changed}: {', '.join(unknown)} is "
            "not among the fields that are compared. Name those that the "
            "refusal lists."
        )
    hp = config.hyperparameters
    if isinstance(hp, StudentFeedback):
        _check_feedback(hp)
    lengths = {
        "num_steps": config.num_steps,
        "evaluate_every": config.evaluate_every,
        **hp.later_stage_steps,
    }
    for name, value in lengths.items():
        if value % config.steps_per_execution:
            raise ConfigError(
                f"--{name}={value} must be a multiple of "
                f"--steps_per_execution={config.steps_per_execution}."
            )
    wait = hp.wait_steps_of("student")
    if config.warmup_steps + wait >= config.num_steps:
        raise ConfigError(
            f"--warmup_steps={config.warmup_steps} and the student's wait of "
            f"{wait} steps leave nothing of --num_steps={config.num_steps}."
        )
    for name, value in hp.scheduled_stage_steps.items():
        if config.warmup_steps >= value:
            raise ConfigError(
                f"--warmup_steps={config.warmup_steps} leaves nothing of "
                f"--{name}={value}."
            )
    parts = config.gradient_accumulation_steps
    if hp.mixes and config.batch_size % (MIX_BLOCK * parts):
        raise ConfigError(
            f"--batch_size={config.batch_size}: must be a multiple of "
            f"{MIX_BLOCK * parts} with MixUp, whose partners are drawn in "
            f"blocks of {MIX_BLOCK} that are not divided"
            + (" by --gradient_accumulation_steps." if parts > 1 else ".")
        )
