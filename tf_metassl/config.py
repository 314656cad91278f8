"""Configuration of a run: its fields, and their resolution from given values.

Imports no TensorFlow, so that a wrong value is reported at once. Flags are
defined and read by `tf_metassl.run.command_line`, files are written by
`tf_metassl.run.run_directory`.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

from tf_metassl import models, options
from tf_metassl.algorithms import (
    ALGORITHMS,
    ALIASES,
    RECIPES,
    hyperparameters_class,
)
from tf_metassl.contract import MIX_BLOCK
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.options import DataOptions
from tf_metassl.errors import ConfigError
from tf_metassl.hyperparameters import (
    Hyperparameters,
    MetaSemiIct,
    Reweighting,
    StudentFeedback,
    decay_over,
    depends_on_length,
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
        """The configuration that `to_json` returned as a dict.

        A setting that is missing, because a later version added it, gets its
        default, or what did the same in the versions before.

        Raises:
            ConfigError: if it is no configuration, or one of a newer version.
        """
        try:
            values = {**BEFORE, **values}
            hp = hyperparameters_class(values["algo"])
            before = BEFORE_OF.get(values["algo"], {})
            own = {**before, **values["hyperparameters"]}
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigError(
                "it is no configuration of a run "
                f"({type(error).__name__}: {error})"
            ) from error
        unknown = {
            *values.keys() - {f.name for f in dataclasses.fields(cls)},
            *own.keys() - {f.name for f in dataclasses.fields(hp)},
        }
        if unknown:
            raise ConfigError(
                f"it has the settings {', '.join(sorted(unknown))}, which this "
                "version of tf_metassl does not know: use the version that "
                "made the run"
            )
        values["hyperparameters"] = hp(**own)
        return cls(**values)

    @staticmethod
    def from_flags(lines: Collection[str]) -> "Config":
        """The configuration that `to_flags` returned as lines.

        Raises:
            ConfigError: if it is no configuration.
        """
        texts = dict(
            line.removeprefix("--").partition("=")[::2] for line in lines
        )
        kinds: dict[str, Callable[[str], Any]] = {
            f.name: type(f.default) for f in common_fields()
        }
        for name, users in hyperparameters_by_name().items():
            kinds[name] = type(next(iter(users.values())).default)
        # `bool` of any text but the empty one is true.
        try:
            given = {
                name: text == "True"
                if kinds[name] is bool
                else kinds[name](text)
                for name, text in texts.items()
            }
        except (KeyError, ValueError) as error:
            raise ConfigError(f"run.flags cannot be read: {error}") from error
        before = BEFORE_OF.get(texts.get("algo", ""), {})
        return resolve({**BEFORE, **before, **given})

    def to_flags(self) -> list[str]:
        """Lines of a flagfile that reproduces the run in another folder."""
        values = self.to_json()
        values |= values.pop("hyperparameters")
        for name in ("run_dir", "allow_changed", "extend_to"):
            del values[name]
        return [f"--{name}={value}" for name, value in values.items()]


# Settings that changed what a run does when they were added -> what a run that
# was begun before does.
BEFORE: Mapping[str, Any] = {
    "evaluate_networks": "all",
    "steps_per_execution": 1,
}
# The same for settings of a method, by method.
BEFORE_OF: Mapping[str, Mapping[str, Any]] = {
    "learning_to_reweight": {"learned_view": "weak"},
    "ensemble_self_training": {"learned_view": "weak"},
    "swwae": {"learned_view": "weak"},
    "cc_gan": {"learned_view": "weak"},
}

# Settings whose default is found when the images are known -> what they are
# before that.
UNKNOWN: Mapping[str, Any] = {
    "model": "auto",
    "num_validation": -1,
    "steps_per_execution": 0,
}

# Hyperparameters whose default depends on the images, or was another one in
# version 0.1.0 -> the default. A run that is resumed keeps what it began with.
CHANGED_DEFAULTS: Mapping[str, Any] = {
    "vat_epsilon": 0.0,
    "tsa_schedule": "off",
    "meta_gradient": "auto",
    "meta_labeled_batch": "mixed",
    "labeled_loss_batch": "raw",
    # Of one method.
    "ict.unlabeled_loss_weight": 1.0,
    "learning_to_reweight.labeled_loss_weight": 3.0,
    "learning_to_reweight.learned_view": "strong",
    "ensemble_self_training.learned_view": "strong",
    "swwae.learned_view": "strong",
    "cc_gan.learned_view": "strong",
    "moco_v2.contrast_temperature": 0.5,
    "pcl.contrast_temperature": 0.5,
}

# Hyperparameters whose default follows the length of the run, and what it was
# before.
FORMER_DEFAULTS: Mapping[str, Any] = {
    "byol.target_decay": 0.99,
    "moco_v2.target_decay": 0.99,
    "pcl.target_decay": 0.99,
}

# The versions and the data of a run, see `tf_metassl.run.run_directory`.
PROVENANCE = (
    "tensorflow",
    "keras",
    "numpy",
    "tf_metassl",
    "TF_ENABLE_ONEDNN_OPTS",
    "train_images",
    "test_images",
    "splits",
)

# Paths, output and the handling of failures do not change a run's results.
_NOT_COMPARED = (
    "run_dir",
    "extend_to",
    "tracker",
    "profile_steps",
    "verbose",
    "collapse",
    "supervised_twin",
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
    "real_labels",
)


def resolve(given: Mapping[str, Any]) -> Config:
    """A `Config` from the settings in `given`, name -> value.

    Raises:
        ConfigError: if a value is not allowed, or excludes another one.
    """
    given = dict(given)
    algo = given.get("algo", "meta_semi")
    given = {**RECIPES.get(algo, {}), **given}
    algo = given["algo"] = ALIASES.get(algo, algo)
    dataset = given.setdefault("dataset", _implied_dataset(given))
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
    for name, value in given.items():
        _check(fields.get(name) or hp[name], value)
    for name in PATHS & given.keys():
        given[name] = os.path.expanduser(given[name])
    defaults = dict(DATASETS[dataset].defaults)
    if given.get("model") == "auto":
        del given["model"]
    model = given.get("model", defaults["model"])
    # The networks that are chosen by the size of the images have none.
    network = None if model == UNKNOWN["model"] else _network(model)
    dropout = network.dropout if network else 0.0
    if network and network.has_own_scaling:
        defaults["normalization"] = "unit"
    for name in fields | hp:
        if name.endswith("dropout"):
            defaults[name] = dropout
    settings = {**defaults, **given}
    for name in hp.keys() - given.keys():
        if depends_on_length(hp[name]):
            settings[name] = default_of(hp[name], settings)
    config = Config(
        hyperparameters=own(**{k: v for k, v in settings.items() if k in hp}),
        **{k: v for k, v in settings.items() if k in fields},
    )
    if not config.evaluate_every:
        every = default_evaluate_every(
            config.num_steps, config.steps_per_execution
        )
        config = dataclasses.replace(config, evaluate_every=every)
    _check_read(config, given)
    _check_together(config)
    return config


def default_of(
    field: dataclasses.Field, settings: Mapping[str, Any]
) -> int | float:
    """The default of a hyperparameter that depends on the run's length.

    Args:
        field: for which `depends_on_length` is true.
        settings: name -> value; fields that are missing have their defaults.

    Returns:
        A number of steps, or the decay of an average.
    """
    common = {f.name: f.default for f in common_fields()} | dict(settings)
    if spans := field.metadata["spans"]:
        return decay_over(spans * common["num_steps"])
    steps = round(field.metadata["share"] * common["num_steps"])
    # 0 would mean something else, such as no stage.
    steps = max(steps, 1)
    every = common["steps_per_execution"] or 1
    return -(-steps // every) * every


def numbers_of_steps(config: Config) -> dict[str, int]:
    """Setting -> steps, of those that end at whole calls; 0 where it is off."""
    hp = config.hyperparameters
    return {
        "num_steps": config.num_steps,
        "evaluate_every": config.evaluate_every,
        "ctaugment_every": config.ctaugment_every,
        "cluster_every": getattr(hp, "cluster_every", 0),
        "extend_to": config.extend_to,
        **hp.later_stage_steps,
    }


def steps_per_call(config: Config, most: int) -> int:
    """The most steps per call that divide all numbers of steps of a run.

    Args:
        config: a `Config`; its `steps_per_execution` is ignored.
        most: upper bound, at least 1.
    """
    common = math.gcd(*numbers_of_steps(config).values())
    return max(n for n in range(1, most + 1) if common % n == 0)


def default_evaluate_every(num_steps: int, steps_per_execution: int) -> int:
    """`--evaluate_every` if it is not given: a tenth of the run."""
    every, per_call = max(num_steps // 10, 1), steps_per_execution or 1
    return -(-every // per_call) * per_call


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


# What is said of a run even if it is the default.
_ALWAYS_SAID = (
    *("algo", "dataset", "model", "num_labeled", "seed"),
    *("num_steps", "batch_size", "learning_rate"),
)


def distinguishing(config: Config) -> dict[str, Any]:
    """The settings by which a run is told from others, name -> value.

    Those that decide its numbers and are not the method's defaults on the
    dataset, and a few that always count.
    """
    given = {"algo": config.algo, "dataset": config.dataset}
    usual = compared(resolve(given))
    return {
        name: value
        for name, value in compared(config).items()
        if name in _ALWAYS_SAID or value != usual[name]
    }


# Settings that are paths; a leading ~ is the home folder.
PATHS = {
    "run_dir",
    "data_dir",
    "manual_dir",
    "labeled_dir",
    "unlabeled_dir",
    "validation_dir",
    "test_dir",
    "manifest",
    "array_file",
    "tfrecord",
    "cache_dir",
    "real_labels",
}


def allowed_changes(config: Config) -> set[str]:
    """The fields that `--allow_changed` names, a set."""
    return set(filter(None, config.allow_changed.replace(" ", "").split(",")))


def _implied_dataset(given: Mapping[str, Any]) -> str:
    """The dataset that is meant if `--dataset` is not given.

    Raises:
        ConfigError: if both kinds of images of one's own are given.
    """
    datasets = {
        "labeled_dir": "folder",
        "manifest": "csv",
        "array_file": "array_file",
        "tfrecord": "tfrecord",
        "tfds_name": "tfds",
    }
    named = [name for name in datasets if given.get(name)]
    if len(named) > 1:
        raise ConfigError(
            f"{' and '.join('--' + name for name in named)} exclude each "
            "other: the images come from one of them."
        )
    return datasets[named[0]] if named else "digits"


# What TensorFlow's shapes, seeds and step counts hold without wrapping round.
_LARGEST_INTEGER = 2**31 - 1


def _check(field: dataclasses.Field, value: Any) -> None:
    """Raises ConfigError unless `value` is allowed for `field`."""
    allowed = field.metadata
    name = field.name
    kind = type(field.default)
    # A number without a fraction is a float, too; a truth value is no number.
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(
            f"--{name}={value!r}: must be of type {kind.__name__}, not "
            f"{type(value).__name__}."
        )
    if allowed["choices"]:
        _check_choice(name, value, allowed["choices"])
    if kind not in (int, float):
        return
    if not math.isfinite(value):
        raise ConfigError(f"--{name}={value}: must be a finite number.")
    low, high = allowed["minimum"], allowed["maximum"]
    largest = _LARGEST_INTEGER if kind is int and high is None else high
    # Written so that what cannot be compared is not allowed.
    if (low is None or value >= low) and (largest is None or value <= largest):
        return
    if low is not None and high is not None:
        wanted = f"between {low} and {high}"
    elif low is not None and value < low:
        wanted = f"at least {low}"
    else:
        wanted = f"at most {largest}"
    raise ConfigError(f"--{name}={value}: must be {wanted}.")


def unread(config: Config) -> dict[str, str]:
    """The common settings that a run does not read -> why not."""
    return (
        _without_reader(config)
        | _unread_views(config)
        | _unread_data(config)
        | _unread_network(config)
    )


def _without_reader(config: Config) -> dict[str, str]:
    """Settings of another dataset, optimizer and so on, and of its method."""
    data_fields = {field.name for field in dataclasses.fields(DataOptions)}
    found = {}
    for field in common_fields():
        readers = dict(field.metadata["read_by"])
        if field.name in data_fields:
            readers["dataset"] = tuple(
                name
                for name, row in DATASETS.items()
                if field.name in row.reads
            )
        for name, allowed in readers.items():
            if getattr(config, name) not in allowed:
                found[field.name] = (
                    f"with --{name}={getattr(config, name)}; it is for "
                    f"--{name}={', '.join(allowed)}. Leave it out, or change "
                    f"--{name}"
                )
    hp = config.hyperparameters
    method = f"with --algo={config.algo}, which does not use {{}}. Leave it out"
    method += ", or change --algo"
    if not hp.uses_unlabeled:
        names = (
            "unlabeled_batch_ratio",
            "labeled_inside_unlabeled",
            "foreign_share",
            "supervised_twin",
        )
        found |= dict.fromkeys(names, method.format("unlabeled images"))
    if not hp.uses_contrastive_policy:
        why = method.format("contrastive views")
        found["contrastive_augmentation"] = why
    if not hp.uses_strong_policy:
        why = method.format("the strong view")
        found |= dict.fromkeys(("strong_augmentation", "strong_magnitude"), why)
    return found


def _unread_views(config: Config) -> dict[str, str]:
    """Settings of augmentation policies other than those of the run."""
    hp, row, found = config.hyperparameters, DATASETS[config.dataset], {}
    strong, weak = config.strong_augmentation, config.weak_augmentation
    if strong == "auto":
        strong = row.strong_policy
    if weak == "auto":
        weak = row.weak_policy
    if hp.uses_strong_policy and strong not in options.RAND_AUGMENT_POLICIES:
        found["strong_magnitude"] = (
            f"with --strong_augmentation={strong}; it is for "
            f"--strong_augmentation={', '.join(options.RAND_AUGMENT_POLICIES)}"
            ". Leave it out, or change --strong_augmentation"
        )
    if weak not in options.MIRRORING:
        found["mirror"] = (
            f"with --weak_augmentation={weak}, which mirrors no image. Leave "
            "it out"
        )
    if not hp.uses_ctaugment and (
        strong != "ctaugment" or not hp.uses_strong_policy
    ):
        found["ctaugment_every"] = (
            "without CTAugment; it is for --strong_augmentation=ctaugment and "
            "--algo=remixmatch. Leave it out"
        )
    if not hp.uses_weak_policy and strong in options.REPLACE_WEAK:
        why = (
            f"with --strong_augmentation={strong}, which takes its place in "
            f"all views of --algo={config.algo}. Leave it out"
        )
        found |= dict.fromkeys(("weak_augmentation", "mirror"), why)
    return found


def _unread_data(config: Config) -> dict[str, str]:
    """Settings of splits and images that others leave nothing to decide."""
    found = {}
    if not config.known_classes:
        found["foreign_share"] = (
            "without --known_classes, which says what is foreign"
        )
    elif config.hyperparameters.uses_unlabeled:
        found["labeled_inside_unlabeled"] = (
            "with --known_classes, whose pool has no labeled image. Leave it "
            "out"
        )
    if config.label_split == "first" and not config.known_classes:
        found["split_seed"] = (
            "with --label_split=first, which draws nothing. Leave it out, or "
            "change --label_split"
        )
    row = DATASETS[config.dataset]
    if "resize" in row.reads and not (
        config.image_size or row.published.image_size
    ):
        found["resize"] = (
            "without --image_size, the size of the squares. Set it"
        )
    if config.test_dir:
        found["test_fraction"] = "with --test_dir. Leave one of them out"
    # 0 is what a run with images of its own for validation records.
    if config.validation_dir and config.num_validation > 0:
        found["num_validation"] = "with --validation_dir. Leave one of them out"
    return found


def _unread_network(config: Config) -> dict[str, str]:
    """Settings of layers that the network does not have or train."""
    found = {}
    if config.cache_features:
        found["dropblock"] = (
            "with --cache_features, which runs the layers before the last one "
            "once. Leave it out"
        )
    elif config.model not in models.with_dropblock():
        found["dropblock"] = (
            f"with --model={config.model}; it is for --model="
            f"{', '.join(models.with_dropblock())}"
        )
    if not config.init_weights:
        found["init_last_layer"] = (
            "without --init_weights, which it comes from. Leave it out"
        )
    if config.freeze == "backbone":
        found["backbone_learning_rate_scale"] = (
            "with --freeze=backbone, which does not train them. Leave it out"
        )
    if config.model == UNKNOWN["model"]:
        return found
    network = _network(config.model)
    if network.has_own_scaling:
        found["normalization"] = (
            f"with --model={config.model}, which scales pixels itself. Leave "
            "it out"
        )
    if not network.has_batch_norm:
        found["batch_norm"] = (
            f"with --model={config.model}, which has none. Leave it out"
        )
    return found


def _check_read(config: Config, given: Mapping[str, Any]) -> None:
    """Raises ConfigError if a given setting would have no effect.

    A value that is the field's default is allowed: nothing is lost then.
    """
    defaults = {field.name: field.default for field in common_fields()}
    for name, why in unread(config).items():
        if name in given and given[name] != defaults[name]:
            raise ConfigError(f"--{name}={given[name]} has no effect {why}.")


# What `tf-metassl export --formats` writes, see `tf_metassl.run.formats`.
EXPORT_FORMATS = ("saved_model", "onnx", "litert", "keras")


def check_formats(names: Sequence[str]) -> None:
    """Raises ConfigError if there is no format of a name."""
    if not set(names) <= set(EXPORT_FORMATS):
        raise ConfigError(
            f"--formats={','.join(names)}: must be one or more of "
            f"{', '.join(EXPORT_FORMATS)}, with commas between them."
        )


def check_batches(config: Config, num_replicas: int) -> None:
    """Raises ConfigError if a batch cannot be divided over the replicas."""
    shares = num_replicas * config.gradient_accumulation_steps
    if config.batch_size % shares:
        raise ConfigError(
            f"--batch_size={config.batch_size} must be a multiple of "
            f"{shares}: {num_replicas} replicas times "
            f"--gradient_accumulation_steps={config.gradient_accumulation_steps}."
        )
    for name, size in config.hyperparameters.later_batch_sizes.items():
        if size % num_replicas:
            raise ConfigError(
                f"--{name}={size} must be a multiple of the {num_replicas} "
                "replicas."
            )


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


def profiled_steps(config: Config) -> tuple[int, int]:
    """The first and the last step that are profiled; 0 and -1 for none.

    Raises:
        ConfigError: if `--profile_steps` is not two steps of the run.
    """
    text = config.profile_steps
    if not text:
        return 0, -1
    last_step = max(config.num_steps, config.extend_to)
    try:
        first, last = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--profile_steps={text}: must be first,last, such as 20,30."
        ) from error
    if not 1 <= first <= last <= last_step:
        raise ConfigError(
            f"--profile_steps={text}: must be two steps from 1 to "
            f"{last_step}, the last one of the run, in this order."
        )
    return first, last


def _check_starts(config: Config) -> None:
    """Raises ConfigError for a part of a method that would never begin.

    A default is allowed: it is a share of the run, which rounding makes as long
    as a run of a few steps.
    """
    hp = config.hyperparameters
    last_step = max(config.num_steps, config.extend_to)
    for field in dataclasses.fields(hp):
        name, value = field.name, getattr(hp, field.name)
        if not name.endswith("_start") or value < last_step:
            continue
        if value != default_of(field, vars(config)):
            raise ConfigError(
                f"--{name}={value} is never reached: the run has {last_step} "
                "steps. Use a smaller one, or a larger --num_steps."
            )


def _check_extension(config: Config) -> None:
    """Raises ConfigError if a run cannot be extended, whatever it holds."""
    later = [
        k for k, v in config.hyperparameters.later_stage_steps.items() if v
    ]
    if later:
        why = (
            f"--algo={config.algo} trains further stages after the main one "
            f"({', '.join('--' + name for name in later)}), which would have "
            "to begin again"
        )
    elif config.time_budget_minutes or config.patience:
        name = "patience" if config.patience else "time_budget_minutes"
        why = f"--{name} ends the run, not a number of steps"
    elif config.extend_to < config.num_steps:
        why = f"--num_steps={config.num_steps} is more"
    elif not config.run_dir:
        why = "--run_dir is empty; name the folder of the finished run"
    else:
        return
    raise ConfigError(f"--extend_to={config.extend_to}: {why}.")


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
    if config.extend_to:
        _check_extension(config)
    profiled_steps(config)
    if isinstance(hp, StudentFeedback):
        _check_feedback(hp)
        if hp.feedback == "taylor" and config.precision == "mixed_bfloat16":
            raise ConfigError(
                "--feedback=taylor is the small difference of two losses, "
                "which --precision=mixed_bfloat16 rounds to noise. Use "
                "--precision=float32, or --feedback=dot or per_example."
            )
    if isinstance(hp, Reweighting):
        is_difference = hp.meta_gradient == "finite_difference"
        if is_difference and config.precision == "mixed_bfloat16":
            raise ConfigError(
                "--meta_gradient=finite_difference is the small difference of "
                "two losses, which --precision=mixed_bfloat16 rounds to noise. "
                "Use --precision=float32, or --meta_gradient=forward_mode."
            )
    if config.cache_features and config.strong_augmentation == "ctaugment":
        raise ConfigError(
            "--strong_augmentation=ctaugment learns how to make views during "
            f"training, and --cache_features={config.cache_features} makes "
            "them before. Leave one of them out."
        )
    if config.cache_features and hp.changes_images:
        raise ConfigError(
            f"--cache_features={config.cache_features}: a step of --algo="
            f"{config.algo} changes images or makes new ones, and features "
            "cannot be changed so. Leave it out, or choose another --algo."
        )
    if config.cache_features and hp.uses_contrastive_policy:
        raise ConfigError(
            f"--cache_features={config.cache_features} stores weak and strong "
            f"views, and --algo={config.algo} reads contrastive ones. Leave it "
            "out, or choose another --algo."
        )
    if isinstance(hp, MetaSemiIct) and hp.mix_partners != "own":
        raise ConfigError(
            f"--mix_partners={hp.mix_partners}: the consistency loss of "
            "meta_semi_ict needs mixtures of unlabeled images. Use "
            "--mix_partners=own."
        )
    for name, value in numbers_of_steps(config).items():
        if value % (config.steps_per_execution or 1):
            raise ConfigError(
                f"--{name}={value} must be a multiple of "
                f"--steps_per_execution={config.steps_per_execution}."
            )
    # The first evaluation is always the best so far.
    least = (config.patience + 1) * config.evaluate_every
    stages = (config.num_steps, *hp.later_stage_steps.values())
    if config.patience and least >= max(stages):
        raise ConfigError(
            f"--patience={config.patience} has no effect: with "
            f"--evaluate_every={config.evaluate_every} it ends a stage at step "
            f"{least} at the earliest, and none is longer. Lower one of them."
        )
    _check_starts(config)
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
    # How many there are without the flag is known when TensorFlow has started.
    check_batches(config, max(config.num_replicas, 1))
    parts = config.gradient_accumulation_steps
    if hp.mixes and config.batch_size % (MIX_BLOCK * parts):
        raise ConfigError(
            f"--batch_size={config.batch_size}: must be a multiple of "
            f"{MIX_BLOCK * parts} with MixUp, whose partners are drawn in "
            f"blocks of {MIX_BLOCK} that are not divided"
            + (" by --gradient_accumulation_steps." if parts > 1 else ".")
        )
