"""The run directory: one process, one configuration, one origin.

`config.json` holds the settings of a run, `provenance.json` the data and the
library versions. A run is resumed only if both are unchanged. Importing this
module imports no TensorFlow.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import time

import numpy as np
from absl import logging

import tf_metassl
from tf_metassl import config as config_lib
from tf_metassl import files, hyperparameters
from tf_metassl.contract import DatasetInfo
from tf_metassl.errors import ConfigError

# Written before it is known whether the run can start.
NORMALIZATION = "normalization.npz"

# The rule by which new runs draw batches, see `stage.seed_offset`. From 3 on,
# labels that training uses are hidden from the metrics of pseudo-labels.
BATCH_SEED_VERSION = 3

_LOCK = ".lock"
_CONFIG = "config.json"
_FLAGS = "run.flags"
_DATASET = "dataset.json"
_PROVENANCE = "provenance.json"
# The environment variable that decides which convolutions TensorFlow uses.
_KERNELS = "TF_ENABLE_ONEDNN_OPTS"
_EXTENSIONS = "extensions.json"


def fresh(config):
    """A folder below `runs/` that does not exist yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    dataset = config.dataset.replace("/", "-")
    base = pathlib.Path("runs") / f"{config.algo}-{dataset}-{stamp}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


@contextlib.contextmanager
def locked(run_dir):
    """Keeps other processes from writing the same run.

    The lock ends with the process that holds it, however that ends. A folder
    that holds nothing else at the end is removed.

    Args:
        run_dir: folder of the run; made if necessary.

    Raises:
        ConfigError: if another process holds the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / _LOCK
    with files.locked(path) as held:
        if not held:
            raise ConfigError(
                f"--run_dir={run_dir} is being written by "
                f"{files.holder(path)}. Wait for it to end, or use another "
                f"--run_dir.{files.advice(path)}"
            )
        try:
            yield
        finally:
            if not (run_dir / _CONFIG).exists():
                # Windows removes no open file; the folder stays there.
                with contextlib.suppress(OSError):
                    path.unlink()
                    run_dir.rmdir()


def load_config(run_dir):
    """The configuration of the run in `run_dir`.

    Raises:
        ConfigError: if there is no run.
    """
    path = pathlib.Path(run_dir) / _CONFIG
    if not path.is_file():
        raise ConfigError(
            f"--run_dir={run_dir} is not the folder of a run: it has no "
            f"{_CONFIG}."
        )
    values = _read_json(path)
    if values is None:
        flagfile = path.with_name(_FLAGS)
        config = config_lib.Config.from_flags(_lines(flagfile))
        logging.warning("%s is damaged; %s is used instead.", path, flagfile)
        return dataclasses.replace(config, run_dir=str(run_dir))
    try:
        return config_lib.Config.from_json(values)
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be used: {error}.") from error


def is_run(folder):
    """Whether the folder is that of a run."""
    return (pathlib.Path(folder) / _CONFIG).is_file()


def check_trust(config, run_dir, trust_model_code, network=""):
    """Raises ConfigError unless the code of the run's network is trusted.

    Args:
        config: the `Config` of the run.
        run_dir: its folder.
        trust_model_code: whether any code is trusted.
        network: the name of the network that is trusted.
    """
    if network and network != config.model:
        raise ConfigError(
            f"{network}: the run in {run_dir} has the network "
            f"--model={config.model}. Leave it out, or name that one."
        )
    if ":" in config.model and not (trust_model_code or network):
        raise ConfigError(
            f"The run in {run_dir} has the network --model={config.model}. "
            "Building it runs the code of that module, which has to be on "
            "this machine. If you trust it, add --trust_model_code, or name "
            f"it: {config.model}."
        )


def on_this_machine(config):
    """The configuration with which one machine restores a run of several."""
    if config.strategy in ("multi_worker", "tpu"):
        return dataclasses.replace(config, strategy="auto")
    return config


def _read_json(path):
    """The content of a JSON file, or None if it is damaged or missing."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


# Settings that are those of the recorded run where they have this value.
_REPLACED = {
    **config_lib.UNKNOWN,
    **{
        field.name: field.default
        for field in config_lib.common_fields()
        if field.name in config_lib.BEFORE
    },
}


def with_recorded_defaults(config, run_dir):
    """Fills in the defaults that the run in `run_dir` has found.

    They depend on the images, and on the version that began the run.

    Args:
        config: a `Config`.
        run_dir: folder of the run, which may be new.

    Returns:
        A `Config`.
    """
    if not (pathlib.Path(run_dir) / _CONFIG).exists():
        return config
    old = load_config(run_dir)
    found = {
        name: getattr(old, name)
        for name, default in _REPLACED.items()
        if getattr(config, name) == default
    }
    if "steps_per_execution" in found:
        found["steps_per_execution"] = _steps_per_call(config, old)
    hp = _with_recorded_hyperparameters(config, old)
    return dataclasses.replace(config, hyperparameters=hp, **found)


def _steps_per_call(config, old):
    """Those of the run, or fewer if its numbers of steps have changed."""
    per_call = old.steps_per_execution
    numbers = config_lib.numbers_of_steps(config).values()
    return math.gcd(per_call, *numbers) if per_call else per_call


def extended(config, run_dir):
    """The configuration of a run that `--extend_to` makes longer.

    Args:
        config: a `Config` with the settings that the run began with.
        run_dir: folder of the run.

    Returns:
        A `Config` whose `num_steps` is `--extend_to`; `config` without it.

    Raises:
        ConfigError: if there is no finished run of so many steps.
    """
    if not config.extend_to:
        return config
    flag = f"--extend_to={config.extend_to}"
    if not is_run(run_dir):
        raise ConfigError(
            f"{flag} continues a finished run, and there is none in "
            f"--run_dir={run_dir}. For a new one use --num_steps."
        )
    old = load_config(run_dir)
    known = {old.num_steps, *_lengths(run_dir)}
    if config.num_steps not in known:
        raise ConfigError(
            f"--num_steps={config.num_steps}: the run in {run_dir} was started "
            f"with --num_steps={min(known)}. Give {flag} the settings of the "
            "run."
        )
    if config.extend_to < old.num_steps:
        raise ConfigError(
            f"{flag}: the run in {run_dir} has {old.num_steps} steps already."
        )
    if config.extend_to > old.num_steps and (
        (step := _last_step(run_dir)) < old.num_steps
    ):
        raise ConfigError(
            f"{flag}: the run in {run_dir} has finished {step} of "
            f"{old.num_steps} steps. Let the command without --extend_to "
            "finish it first."
        )
    every = config.evaluate_every
    if _evaluates_by_default(dataclasses.asdict(config)):
        every = old.evaluate_every
    return dataclasses.replace(
        config, num_steps=config.extend_to, evaluate_every=every
    )


def extensions(run_dir):
    """The extensions of a run, a list of `(from, to)` numbers of steps."""
    found = _read_json(pathlib.Path(run_dir) / _EXTENSIONS) or []
    return [(entry["from"], entry["to"]) for entry in found]


def _lengths(run_dir):
    """The numbers of steps that the run has had as its last one."""
    return {steps for entry in extensions(run_dir) for steps in entry}


def _last_step(run_dir):
    """The step of the newest checkpoint of the stage `train`; 0 without."""
    folder = pathlib.Path(run_dir) / "checkpoints" / "train"
    names = [path.name for path in folder.glob("step-*")]
    return int(max(names).removeprefix("step-")) if names else 0


def _declare_extension(config, run_dir):
    """Records that the run is made longer, before its configuration is."""
    if not (config.extend_to and is_run(run_dir)):
        return
    known = extensions(run_dir)
    entry = (load_config(run_dir).num_steps, config.num_steps)
    if entry[0] < entry[1] and entry not in known:
        text = json.dumps(
            [{"from": a, "to": b} for a, b in [*known, entry]], indent=2
        )
        files.write_text(pathlib.Path(run_dir) / _EXTENSIONS, text + "\n")


def _with_recorded_hyperparameters(config, old):
    """The hyperparameters, with the defaults that the run began with.

    Numbers of steps that follow from `--num_steps` stay what they were if the
    run is made longer. Version 0.1.0 had one default for runs of any length,
    and for images of any size.

    Args:
        config: a `Config`.
        old: the one that the run has recorded.

    Returns:
        A `Hyperparameters`.
    """
    if old.algo != config.algo:
        return config.hyperparameters
    given = dataclasses.asdict(config.hyperparameters)
    changed = config_lib.CHANGED_DEFAULTS
    kept = {
        name: getattr(old.hyperparameters, name)
        for name, value in given.items()
        for key in (name, f"{config.algo}.{name}")
        if key in changed and changed[key] == value
    }
    for field in dataclasses.fields(config.hyperparameters):
        if not hyperparameters.depends_on_length(field):
            continue
        now = getattr(config.hyperparameters, field.name)
        then = getattr(old.hyperparameters, field.name)
        former = config_lib.FORMER_DEFAULTS.get(
            f"{config.algo}.{field.name}", field.default
        )
        by_default = now in _defaults(field, config)
        if by_default and then in (*_defaults(field, old), former):
            kept[field.name] = then
    for name, value in kept.items():
        if value != getattr(config.hyperparameters, name):
            print(f"As the run began: --{name}={value}")
    return dataclasses.replace(config.hyperparameters, **kept)


def _defaults(field, config):
    """The default with the steps per call, and before they were found."""
    unknown = config_lib.UNKNOWN["steps_per_execution"]
    return [
        config_lib.default_of(
            field,
            {"num_steps": config.num_steps, "steps_per_execution": per_call},
        )
        for per_call in (config.steps_per_execution, unknown)
    ]


def save_config(config, run_dir):
    """Writes `config.json` and `run.flags` into `run_dir`."""
    run_dir = pathlib.Path(run_dir)
    text = json.dumps(config.to_json(), indent=2) + "\n"
    files.write_text(run_dir / _CONFIG, text)
    lines = "\n".join(config.to_flags()) + "\n"
    files.write_text(run_dir / _FLAGS, lines)


def normalization(run_dir):
    """Where the scaling of pixels is kept.

    A file that was left by a start that failed is removed.

    Args:
        run_dir: folder of the run.

    Returns:
        A `pathlib.Path`.
    """
    run_dir = pathlib.Path(run_dir)
    path = run_dir / NORMALIZATION
    if not (run_dir / _CONFIG).exists():
        path.unlink(missing_ok=True)
    return path


def versions():
    """What else the bits of a run depend on: libraries and oneDNN, a dict."""
    # A command imports this module before it has checked its flags.
    import keras
    import tensorflow as tf

    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "tf_metassl": tf_metassl.__version__,
        _KERNELS: os.environ.get(_KERNELS, ""),
    }


def data_fingerprint(source, splits):
    """Short hashes of the images, the labels and the splits.

    Args:
        source: a `Source`.
        splits: the `Splits` of its training images.

    Returns:
        Dict with `train_images`, `test_images` and `splits`.
    """

    def digest(images):
        result = hashlib.sha256()
        for values in (
            images.content_hashes(np.arange(len(images))),
            images.labels,
        ):
            result.update(np.ascontiguousarray(values).tobytes())
        return result.hexdigest()[:16]

    return {
        "train_images": digest(source.train),
        "test_images": digest(source.test),
        "splits": splits.fingerprint,
    }


def check_settings(config, run_dir):
    """Raises ConfigError if `run_dir` holds anything but the same run.

    Compares settings and versions, which are known before any data is read.
    """
    # The list of bad images is written even if the run does not start. Hidden
    # files are the lock and files that a killed process was writing.
    if not run_dir.exists() or all(
        path.name in ("bad_images.csv", NORMALIZATION)
        or path.name.startswith(".")
        for path in run_dir.iterdir()
    ):
        return
    recorded = load_config(run_dir)
    # Versions that recorded a setting that nothing reads did not refuse it.
    unread = config_lib.unread(recorded).keys() & config_lib.unread(config)
    old, new = (
        {k: v for k, v in config_lib.compared(c).items() if k not in unread}
        for c in (recorded, config)
    )
    if _evaluates_by_default(old) and _evaluates_by_default(new):
        # It follows from the number of steps; nobody has set it.
        old["evaluate_every"] = new["evaluate_every"]
    if new["steps_per_execution"] == _steps_per_call(config, recorded):
        old["steps_per_execution"] = new["steps_per_execution"]
    if config.extend_to:
        old["num_steps"] = new["num_steps"]
    elif new["num_steps"] in _lengths(run_dir) - {old["num_steps"]}:
        raise ConfigError(
            f"The run in {run_dir} was extended to {old['num_steps']} steps. "
            f"Add --extend_to={old['num_steps']} to resume it."
        )
    old |= _recorded(run_dir, versions())
    _compare(old, new | versions(), config, run_dir)


def _evaluates_by_default(settings):
    return settings["evaluate_every"] == config_lib.default_evaluate_every(
        settings["num_steps"], settings["steps_per_execution"]
    )


def check_data(config, run_dir, fingerprint):
    """Raises ConfigError if the run in `run_dir` has other images."""
    _compare(_recorded(run_dir, fingerprint), fingerprint, config, run_dir)


def save(config, run_dir, fingerprint):
    """Writes the configuration, the versions and the data's fingerprint.

    Args:
        config: a `Config`.
        run_dir: folder of the run.
        fingerprint: of the data, see `data_fingerprint`.
    """
    _declare_extension(config, run_dir)
    save_config(config, run_dir)
    text = json.dumps({**versions(), **fingerprint}, indent=2) + "\n"
    files.write_text(run_dir / _PROVENANCE, text)


def save_dataset(source, run_dir):
    """Writes `dataset.json`, which suffices to restore the networks.

    Args:
        source: a `Source`.
        run_dir: folder of the run.
    """
    values = {
        **dataclasses.asdict(source.info),
        "num_images": len(source.train),
    }
    text = json.dumps(values, indent=2) + "\n"
    files.write_text(pathlib.Path(run_dir) / _DATASET, text)


def recorded_dataset(run_dir):
    """What `save_dataset` has written.

    Returns:
        The `DatasetInfo` and the number of training images; None if the file
        is missing or damaged.
    """
    values = _read_json(pathlib.Path(run_dir) / _DATASET)
    try:
        num_images = int(values.pop("num_images"))
        names, shape = values.pop("class_names"), values.pop("image_shape")
        info = DatasetInfo(
            class_names=tuple(names), image_shape=tuple(shape), **values
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return info, num_images


def batch_seed_version(run_dir):
    """The rule by which the run in `run_dir` draws its batches.

    Returns:
        What `provenance.json` records; 1 if the file was written before there
        was another rule, and `BATCH_SEED_VERSION` if there is no such file.
    """
    path = run_dir / _PROVENANCE
    if not path.exists():
        return BATCH_SEED_VERSION
    return provenance(run_dir).get("batch_seed_version", 1)


def num_test_results(run_dir, results):
    """How many different results a run has had on its test images.

    A run that has ended can be continued with other settings and evaluated
    again. `test_results.jsonl` remembers all results.

    Args:
        run_dir: folder of the run.
        results: rows of the final table.

    Returns:
        The number of results, with these ones, at least 1.
    """
    path = pathlib.Path(run_dir) / "test_results.jsonl"
    known = []
    for line in _lines(path):
        with contextlib.suppress(ValueError):
            known.append(json.loads(line))
    # A run of a version that did not keep this file.
    if not known and (last := _read_json(path.with_name("results.json"))):
        known = [last]
    if results not in known:
        known.append(results)
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in known))
    return len(known)


def _lines(path):
    if not path.exists():
        return []
    return path.read_text("utf-8", errors="replace").splitlines()


def _recorded(run_dir, default):
    """`default` with the values that `provenance.json` has for its keys."""
    known = provenance(run_dir)
    if "tf_metassl" in known:
        # Before it was recorded, the package switched it off.
        known.setdefault(_KERNELS, "0")
    return {name: known.get(name, value) for name, value in default.items()}


def provenance(run_dir):
    """What `provenance.json` records; nothing if it is missing or damaged."""
    path = pathlib.Path(run_dir) / _PROVENANCE
    # A process may have been killed before it wrote the file.
    if not path.exists():
        return {}
    found = _read_json(path)
    if isinstance(found, dict):
        return found
    logging.warning(
        "%s is damaged: whether the run had the same images and libraries is "
        "not known. It is written anew.",
        path,
    )
    return {"batch_seed_version": BATCH_SEED_VERSION}


def _compare(old, new, config, run_dir):
    changes = {
        name: f"{name}: {old.get(name)!r} -> {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    allowed = config_lib.allowed_changes(config)
    refused = [text for name, text in changes.items() if name not in allowed]
    if refused:
        names = ",".join(name for name in changes)
        raise ConfigError(
            f"--run_dir={run_dir} holds a run that differs:\n  "
            + "\n  ".join(refused)
            + "\nUse the same settings, data and libraries to resume it, or "
            f"another --run_dir; --allow_changed={names} resumes it all the "
            "same."
        )
    for text in changes.values():
        print(f"Changed since the run was started: {text}")
