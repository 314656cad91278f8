"""Configuration of a run: documented fields, flags made from them, files.

The only module that reads flags. It imports no TensorFlow, so that `--help`
and a wrong value answer at once.
"""

import dataclasses
import json
import os
import pathlib

from absl import flags

from tf_metassl import hyperparameters as hyperparameters_lib
from tf_metassl import models
from tf_metassl.algorithms import ALGORITHMS, ALIASES
from tf_metassl.contract import MIX_BLOCK
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.options import DataOptions
from tf_metassl.errors import ConfigError
from tf_metassl.hyperparameters import (
    Hyperparameters,
    StudentFeedback,
    setting,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DataOptions):
    """A resolved run: every default filled in.

    `hyperparameters` holds those of the method; all other fields are the same
    for every method. A flag of the same name sets each field.
    """

    hyperparameters: Hyperparameters

    algo: str = setting(
        "meta_semi",
        "The method to train with.",
        choices=(*ALGORITHMS, *ALIASES),
    )
    run_dir: str = setting(
        "",
        "Where everything is written; a run that is there already is resumed "
        "if its configuration is the same. Empty = a fresh folder below runs/.",
    )

    # Data.
    dataset: str = setting(
        "digits", "The images to train on.", choices=tuple(DATASETS)
    )
    num_labeled: int = setting(
        30,
        "Labeled training images. 0 = all that have a label and are not held "
        "out.",
        minimum=0,
    )
    num_validation: int = setting(
        200, "Labeled images held out to choose settings by.", minimum=1
    )
    split_seed: int = setting(
        0, "Which training images are the labeled ones.", minimum=0
    )
    labeled_inside_unlabeled: bool = setting(
        True, "Whether labeled images are in the unlabeled pool too."
    )
    weak_augmentation: str = setting(
        "auto",
        "Policy of the weak view; auto: what suits the dataset.",
        choices=(
            "auto",
            "none",
            "crop",
            "flip_crop",
            "narrow_crop",
            "flip_narrow_crop",
            "mpl",
            "random_crop",
            "resized_crop",
            "affine",
            "jitter",
        ),
    )
    strong_augmentation: str = setting(
        "auto",
        "Policy of the strong view; auto: what suits the dataset.",
        choices=(
            "auto",
            "mpl",
            "mpl_imagenet",
            "fixmatch",
            "uda",
            "affine_digits",
            "jitter_points",
        ),
    )
    strong_magnitude: float = setting(
        0.0,
        "Magnitude of a RandAugment policy with a fixed one. 0 = its own.",
        minimum=0.0,
    )

    # Network.
    model: str = setting(
        "auto",
        f"{', '.join(models.NETWORKS)}, {models.FURTHER}; auto: what suits the "
        "dataset.",
    )
    normalization: str = setting(
        "unit",
        "How the network scales pixels. unit: to -1...1; mean_std: minus the "
        "mean and divided by the standard deviation of each channel, as the "
        "literature has them for "
        + ", ".join(n for n, d in DATASETS.items() if d.pixel_statistics)
        + ", else of the "
        "training images; zca: whitened over all pixels of an image.",
        choices=("unit", "mean_std", "zca"),
    )
    dropout: float = setting(
        0.0,
        "Dropout of the student, before the last layer, in cnn13 after both "
        "poolings. 0 = off. Unless it is given, the network's own rate: "
        + ", ".join(
            f"{name} {network.dropout}"
            for name, network in models.NETWORKS.items()
            if network.dropout
        )
        + ", else off.",
        minimum=0.0,
        maximum=0.99,
    )
    batch_norm: str = setting(
        "auto",
        "Statistics over the global batch (synchronized) or one replica's "
        "share (local); auto: synchronized if there are several replicas.",
        choices=("auto", "local", "synchronized"),
    )

    # Optimization.
    seed: int = setting(
        0, "Seed of initial weights, batches and augmentation.", minimum=0
    )
    num_steps: int = setting(1000, "Training steps.", minimum=1)
    time_budget_minutes: float = setting(
        0.0,
        "Minutes from a stage's first step, those of evaluations included, "
        "after which it is evaluated and ends. The learning rate takes its "
        "course over them, unless --num_steps are done before. 0 = no limit.",
        minimum=0.0,
    )
    batch_size: int = setting(
        64, "Labeled images per step, over all replicas.", minimum=1
    )
    unlabeled_batch_ratio: int = setting(
        2, "Unlabeled images per labeled image in a step.", minimum=1
    )
    optimizer: str = setting(
        "sgd",
        "sgd, with Nesterov momentum, or adam.",
        choices=("sgd", "adam"),
    )
    learning_rate: float = setting(
        0.1, "Peak of the learning rate.", minimum=0.0
    )
    lr_schedule: str = setting(
        "cosine",
        "How the rate falls: cosine, to 0; cosine_7_16, FixMatch's cos(7/16 pi "
        "t), to 0.195 of the peak; constant, not at all.",
        choices=("cosine", "cosine_7_16", "constant"),
    )
    warmup_steps: int = setting(
        0, "Steps of linear warm-up before the fall. 0 = off.", minimum=0
    )
    momentum: float = setting(
        0.9,
        "Nesterov momentum of sgd, beta_1 of adam. 0 = off.",
        minimum=0.0,
        maximum=0.999,
    )
    weight_decay: float = setting(
        1e-4, "w in gradient + w * kernel. 0 = off.", minimum=0.0
    )
    decoupled_weight_decay: bool = setting(
        False,
        "Decay by kernel * (1 - w * learning rate) after the step instead of "
        "through the gradient, as MixMatch does with adam.",
    )
    gradient_clip_norm: float = setting(
        0.0, "Bound on the gradient's global norm. 0 = off.", minimum=0.0
    )

    # Execution.
    strategy: str = setting(
        "auto",
        "one_device; mirrored: all local GPUs, or --num_replicas logical CPU "
        "devices; multi_worker: the same command on every machine that "
        "TF_CONFIG or SLURM names; tpu: see --tpu; auto: multi_worker if they "
        "name several, else mirrored if there are several GPUs.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    tpu: str = setting(
        "",
        "Name or address of the TPU of --strategy=tpu; local: this machine is "
        "a TPU VM. Empty = what the environment says.",
    )
    num_replicas: int = setting(
        0, "Replicas of --strategy=mirrored. 0 = all GPUs.", minimum=0
    )
    precision: str = setting(
        "float32",
        "Precision of the networks' layers; logits and losses are float32.",
        choices=("float32", "mixed_bfloat16"),
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Micro-batches that a step is divided into, one after another, for "
        "batches that do not fit into memory. Batch norm sees one at a time. "
        "Not for methods with a meta gradient. 1 = off.",
        minimum=1,
    )
    remat: bool = setting(
        False,
        "Compute activations again for the gradient instead of keeping them: "
        "the same result with less memory and more time.",
    )
    jit_compile: bool = setting(False, "Compile the training step with XLA.")
    steps_per_execution: int = setting(
        1, "Steps per call of the compiled function.", minimum=1
    )

    # Watching and choosing.
    evaluate_every: int = setting(
        0,
        "Steps between evaluations, each with a checkpoint. 0 = a tenth of the "
        "run.",
        minimum=0,
    )
    evaluate_on_labeled: bool = setting(
        False,
        "Evaluate on the labeled training images, too, without augmentation: "
        "rows of the split labeled in metrics.jsonl.",
    )
    eval_batch_size: int = setting(
        256, "Images per evaluation batch.", minimum=1
    )
    selection: str = setting(
        "last",
        "The checkpoint that is reported and exported: last, or "
        "best_validation. Never chosen by the test images.",
        choices=("last", "best_validation"),
    )
    collapse: str = setting(
        "warn",
        "What to do if nearly all pseudo-labels are of one class, or none is "
        "selected: warn; stop: after two such intervals between evaluations in "
        "succession; off.",
        choices=("warn", "stop", "off"),
    )
    verbose: int = setting(
        2,
        "2: progress bar; 1: a line per evaluation; 0: only the plan and the "
        "final table.",
        choices=(0, 1, 2),
    )

    # Surviving.
    checkpoint_minutes: float = setting(
        10.0,
        "Minutes between checkpoints. 0 = at evaluations alone.",
        minimum=0.0,
    )
    keep_checkpoints: int = setting(
        2,
        "How many checkpoints to keep beside the best by validation.",
        minimum=1,
    )
    max_loss: float = setting(
        1e4,
        "A larger training loss, in the mean since the last evaluation, has "
        "exploded and stops the run. 0 = only one that is not finite.",
        minimum=0.0,
    )
    recover_from_nan: int = setting(
        0,
        "How often a loss that is not finite, or has exploded, sends the run "
        "back to its last checkpoint, to go on with other batches. 0 = never: "
        "stop.",
        minimum=0,
    )
    allow_changed: str = setting(
        "",
        "Fields, separated by commas, in which a run may differ from what its "
        "--run_dir holds and be resumed all the same, such as num_replicas. "
        "Empty = none.",
    )

    def to_json(self):
        """The configuration as a JSON-ready dict; `from_json` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values):
        """The configuration that `to_json` described."""
        values = dict(values)
        hp = hyperparameters_lib.of(values["algo"])
        values["hyperparameters"] = hp(**values["hyperparameters"])
        return cls(**values)

    def to_flags(self):
        """Lines of a flagfile that reproduces the run in a fresh folder."""
        values = self.to_json()
        values |= values.pop("hyperparameters")
        del values["run_dir"], values["allow_changed"]
        return [f"--{name}={value}" for name, value in values.items()]


# What a run was made from and with, see `tf_metassl.run.run_directory`.
PROVENANCE = (
    "tensorflow",
    "keras",
    "numpy",
    "tf_metassl",
    "train_images",
    "test_images",
    "splits",
)

# Where things are, how much is printed and what is done about accidents is not
# part of what a run is.
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
)


def define_flags(values=None):
    """Defines one flag per field of `Config` and of all hyperparameters.

    Args:
        values: where, `flags.FlagValues`; the global ones if None.
    """
    values = flags.FLAGS if values is None else values
    for field in _config_fields():
        _define(values, field, field.metadata["help"])
    for users in _hyperparameters_by_name().values():
        field = next(iter(users.values()))
        help_text = field.metadata["help"]
        # Inherited hyperparameters share one text, others are listed by method.
        if len({f.metadata["help"] for f in users.values()}) > 1:
            help_text = " ".join(
                f"[{algo}] {f.metadata['help']}" for algo, f in users.items()
            )
        defaults = ", ".join(f"{a}: {f.default}" for a, f in users.items())
        _define(
            values,
            field,
            f"{help_text} (default of {defaults})",
            show_default=False,
        )


def from_flags(values=None):
    """Resolves the parsed flags to a `Config`.

    A flag that was given wins over the dataset's default, and that over the
    field's.

    Args:
        values: flag values; the global ones if None.

    Raises:
        ConfigError: if a value is not allowed, or does not go with another.
    """
    values = flags.FLAGS if values is None else values
    given = {
        name: getattr(values, name)
        for name in [f.name for f in _config_fields()]
        + list(_hyperparameters_by_name())
        if getattr(values, name) is not None
    }
    return resolve(given)


def parse(arguments):
    """The `Config` that a command line means; the global flags stay alone.

    Args:
        arguments: strings such as `--algo=supervised`, without the program.

    Raises:
        ConfigError: see `from_flags`.
        flags.Error: if one is not a flag or does not parse.
    """
    values = flags.FlagValues()
    define_flags(values)
    values(["train", *arguments])
    return from_flags(values)


def resolve(given):
    """A `Config` from the settings in `given`, name -> value.

    Raises:
        ConfigError: if a value is not allowed, or does not go with another.
    """
    given = dict(given)
    algo = given.get("algo", "meta_semi")
    algo = given["algo"] = ALIASES.get(algo, algo)
    dataset = given.get("dataset", "digits")
    _check_choice("algo", algo, tuple(ALGORITHMS))
    _check_choice("dataset", dataset, tuple(DATASETS))
    own = hyperparameters_lib.of(algo)
    hp = {f.name: f for f in dataclasses.fields(own)}
    fields = {f.name: f for f in _config_fields()}
    for name in given:
        if name not in fields and name not in hp:
            known = name in _hyperparameters_by_name()
            raise ConfigError(
                f"--{name} is not a setting of --algo={algo}, which has: "
                f"{', '.join('--' + k for k in hp)}."
                if known
                else f"Unknown setting {name!r}."
            )
    defaults = dict(DATASETS[dataset].defaults)
    if given.get("model") == "auto":
        del given["model"]
    network = _network(given.get("model", defaults["model"]))
    for name in fields | hp:
        if name.endswith("dropout"):
            defaults[name] = network.dropout
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


def define_run_flags():
    """Defines the flags of commands on a finished run."""
    flags.DEFINE_string("run_dir", None, "Folder of a finished run.")
    flags.DEFINE_string(
        "output",
        None,
        "Where to write an export; servers expect a number as the last part. "
        "Empty = export/1 in the run's folder.",
    )
    flags.mark_flag_as_required("run_dir")


def run_from_flags():
    """What `define_run_flags` got: the run's configuration and two folders.

    A run of several workers or a TPU is evaluated where the command is given:
    the networks are the same.

    Returns:
        `(config, run_dir, output)`.

    Raises:
        ConfigError: if `--run_dir` holds no run.
    """
    run_dir = pathlib.Path(flags.FLAGS.run_dir)
    output = pathlib.Path(flags.FLAGS.output or run_dir / "export" / "1")
    config = load(run_dir)
    if config.strategy in ("multi_worker", "tpu"):
        config = dataclasses.replace(config, strategy="auto")
    return config, run_dir, output


def load(run_dir):
    """The configuration of the run in `run_dir`.

    Raises:
        ConfigError: if there is no run.
    """
    path = pathlib.Path(run_dir) / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"--run_dir={run_dir} is not the folder of a run: it has no "
            "config.json."
        )
    return Config.from_json(json.loads(path.read_text()))


def save(config, run_dir):
    """Writes `config.json` and `run.flags` into `run_dir`."""
    run_dir = pathlib.Path(run_dir)
    text = json.dumps(config.to_json(), indent=2) + "\n"
    write_text(run_dir / "config.json", text)
    write_text(run_dir / "run.flags", "\n".join(config.to_flags()) + "\n")


def write_text(path, text):
    """Writes a file that is whole or not there, whenever the process ends."""
    aside = path.with_name(f".{path.name}")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def compared(config):
    """Field -> value, of all fields in which two runs must not differ."""
    values = config.to_json()
    values |= values.pop("hyperparameters")
    for name in _NOT_COMPARED:
        del values[name]
    return values


def allowed_changes(config):
    """The fields that `--allow_changed` names, a set."""
    return set(filter(None, config.allow_changed.replace(" ", "").split(",")))


def _config_fields():
    return [f for f in dataclasses.fields(Config) if f.metadata]


def _hyperparameters_by_name():
    """Name of a hyperparameter -> method -> field."""
    result = {}
    for algo in ALGORITHMS:
        for field in dataclasses.fields(hyperparameters_lib.of(algo)):
            result.setdefault(field.name, {})[algo] = field
    return result


def _define(values, field, help_text, show_default=True):
    if field.metadata["choices"]:
        help_text += " One of: " + ", ".join(
            map(str, field.metadata["choices"])
        )
    if show_default:
        help_text += f" (default: {field.default!r})"
    define = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }[type(field.default)]
    define(field.name, None, help_text, flag_values=values)


def _check(field, value):
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


def _check_choice(name, value, choices):
    if value not in choices:
        raise ConfigError(
            f"--{name}={value}: must be one of "
            f"{', '.join(str(c) for c in choices)}."
        )


def _network(name):
    """What is known of the network called `name`."""
    try:
        return models.find(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_feedback(hp):
    """Raises ConfigError if the feedback says nothing about such labels.

    Here, because the method that would notice may be that of a later stage.
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


def _check_together(config):
    """Raises ConfigError for values that do not go with one another."""
    known = {*compared(config), *_hyperparameters_by_name(), *PROVENANCE}
    if unknown := sorted(allowed_changes(config) - known):
        raise ConfigError(
            f"--allow_changed={config.allow_changed}: {', '.join(unknown)} is "
            "not among the fields that are compared. Name those that the "
            "refusal lists."
        )
    hp = config.hyperparameters
    if isinstance(hp, StudentFeedback):
        _check_feedback(hp)
    warming_up = {
        name: getattr(hp, name)
        for name in ("round_steps", "student_steps")
        if hasattr(hp, name) and getattr(hp, "num_rounds", 1)
    }
    lengths = {
        "num_steps": config.num_steps,
        "evaluate_every": config.evaluate_every,
        "finetune_steps": getattr(hp, "finetune_steps", 0),
        **warming_up,
    }
    for name, value in lengths.items():
        if value % config.steps_per_execution:
            raise ConfigError(
                f"--{name}={value} must be a multiple of "
                f"--steps_per_execution={config.steps_per_execution}."
            )
    wait = getattr(hp, "student_wait_steps", 0)
    if config.warmup_steps + wait >= config.num_steps:
        raise ConfigError(
            f"--warmup_steps={config.warmup_steps} and the student's wait of "
            f"{wait} steps leave nothing of --num_steps={config.num_steps}."
        )
    # Finetuning, the other later stage, has a constant rate.
    for name, value in warming_up.items():
        if config.warmup_steps >= value:
            raise ConfigError(
                f"--warmup_steps={config.warmup_steps} leaves nothing of "
                f"--{name}={value}."
            )
    mixes = getattr(hp, "mixup_alpha", 0)
    parts = config.gradient_accumulation_steps
    if mixes and config.batch_size % (MIX_BLOCK * parts):
        raise ConfigError(
            f"--batch_size={config.batch_size}: must be a multiple of "
            f"{MIX_BLOCK * parts} with MixUp, whose partners are drawn in "
            f"blocks of {MIX_BLOCK} that are not divided"
            + (" by --gradient_accumulation_steps." if parts > 1 else ".")
        )
