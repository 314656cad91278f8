"""Which tables, cells and scales `tools/reproduce_table.py` offers.

A table is a list of cells. A cell is a training command without its seeds. A
scale replaces some of the flags of every cell, so that a table can be run on a
small machine.
"""

import dataclasses
import functools
import pathlib
import sys
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl import config as config_lib  # noqa: E402
from tf_metassl.algorithms import (  # noqa: E402
    ALGORITHMS,
    hyperparameters_class,
)
from tf_metassl.run import command_line  # noqa: E402
from tools import settings  # noqa: E402


class Scale(typing.NamedTuple):
    """How the runs of the papers are made smaller.

    Attributes:
        text: describes the scale below the title of a table.
        flags: name -> value; replaces the value in the flagfile, for methods
            that have the flag.
        labels: how many labels to use for one label of the paper.
        max_ratio: upper bound on `--unlabeled_batch_ratio`.
        seconds_per_hour: seconds for one hour of a time budget.
        timed_steps: `--num_steps` of runs with a time budget; more than fit
            into it.
        checkpoints: number of checkpoints of a run with
            `--protocol=median_20`.
    """

    text: str
    flags: dict
    labels: float
    max_ratio: int
    seconds_per_hour: float
    timed_steps: int
    checkpoints: int


SMALL = Scale(
    text=(
        "A small version of the paper's experiment, not a reproduction of it: "
        "MNIST at 14 x 14 with a hundredth of the labels, the same number for "
        "every class; a CNN with 187,114 trainable parameters and no dropout; "
        "pixels scaled to [-1, 1]; the views of that dataset; float32; 600 "
        "steps of 32 labeled images and at most 128 unlabeled images. Settings "
        "that are a number of steps shrink in proportion to the run, but "
        "warm-up, ramps, waiting time and finetuning to no less than a tenth "
        "of the run. The time constant of the moving average is at most a "
        "tenth of the run, learning rates are at most 0.1, and the weight of "
        "the teacher's UDA loss is 1. One hour of a time budget becomes 12 "
        "seconds. Cells on ImageNet are left out. All other settings are those "
        "of the flagfile. With the default settings of the methods, this "
        "experiment puts supervised training, MixUp, FixMatch, UDA and "
        "training with all labels into their known order, see "
        "instruments/gate.md. Differences between methods may not agree with "
        "those in the paper."
    ),
    flags={
        "dataset": "mnist",
        "num_validation": 2000,
        "model": "strided_cnn",
        "image_size": 14,
        "normalization": "unit",
        "label_split": "balanced",
        "weak_augmentation": "auto",
        "strong_augmentation": "auto",
        "strong_magnitude": 0.0,
        "batch_size": 32,
        "num_steps": 600,
        "evaluate_every": 100,
        "evaluate_on_labeled": True,
        "precision": "float32",
        "finetune_batch_size": 0,
        "dropout": 0.0,
        "teacher_dropout": 0.0,
        "uda_weight": 1.0,
    },
    labels=0.01,
    max_ratio=4,
    seconds_per_hour=12,
    timed_steps=100_000,
    checkpoints=100,
)
SMOKE = Scale(
    text=(
        "A smoke test: a few steps, to check that every cell runs. The numbers "
        "have no meaning."
    ),
    flags={
        "dataset": "digits",
        "num_validation": 200,
        "model": "digits_cnn",
        "normalization": "unit",
        "label_split": "balanced",
        "weak_augmentation": "auto",
        "strong_augmentation": "auto",
        "strong_magnitude": 0.0,
        "batch_size": 16,
        "num_steps": 20,
        "finetune_steps": 20,
        "evaluate_every": 10,
        "evaluate_on_labeled": True,
        "precision": "float32",
        "finetune_batch_size": 0,
    },
    labels=0.01,
    max_ratio=1,
    seconds_per_hour=0.1,
    timed_steps=1000,
    checkpoints=20,
)
SCALES = {"small": SMALL, "smoke": SMOKE}

# Named like a number of training steps, but not one.
_OTHER_STEPS = ("lookahead_steps", "gradient_accumulation_steps")
# Numbers of training steps that are not named so.
_LENGTHS = (
    *("cycle_start", "swa_start", "swa_every"),
    *("cluster_start", "cluster_every"),
)
_NOT_TOO_SHORT = ("warmup", "ramp", "wait", "finetune")
_MAX_LEARNING_RATE = 0.1
# Settings for one dataset only, which get their defaults back on another.
_OF_A_DATASET = ("svhn_extra", "stl10_fold", "image_size", "stored_size")
_SEEDS = ("seed", "split_seed", "stl10_fold")


class Cell(typing.NamedTuple):
    """A number of a table.

    Attributes:
        row: the method.
        data: what it is trained on; a column of the table.
        number: the paper's, with its unit; empty if there is none.
        flags: of the training command, without seeds.
        first: flags of a run with the same seeds whose network it starts
            from; empty if there is none.
    """

    row: str
    data: str
    number: str
    flags: tuple
    first: tuple = ()

    @property
    def name(self):
        """Identifies the cell in its table."""
        return f"{self.row}, {self.data}"

    @property
    def settings(self):
        """The settings that its flags resolve to, see `settings_of`."""
        found = settings_of(self.flags)
        return found | ({"init_weights": self.command} if self.first else {})

    @property
    def command(self):
        """Its flags, and those of the run that it starts from."""
        words = " ".join(self.flags)
        if self.first:
            words += f" --init_weights=RUN, a run with {' '.join(self.first)}"
        return words


class Table(typing.NamedTuple):
    """Cells and how they are shown.

    Attributes:
        name: value of `--table`.
        title: the paper's name of it.
        cells: list of `Cell`.
        unit: `accuracy` or `error`.
        scale: `paper`, `digits` or a key of `SCALES`.
        contrasts: pairs of rows whose difference, second minus first, is
            shown with an interval.
    """

    name: str
    title: str
    cells: list
    unit: str = "accuracy"
    scale: str = "paper"
    contrasts: tuple = ()

    @property
    def text(self):
        """How its runs differ from the paper's; empty if they do not."""
        return SCALES[self.scale].text if self.scale in SCALES else ""

    @property
    def heading(self):
        """The title, with the scale unless it is the paper's."""
        scales = {
            "small": " (small scale)",
            "smoke": " (smoke test)",
        }
        return self.title + scales.get(self.scale, "")

    @property
    def stem(self):
        """Name of its files, without the extension."""
        scale = "" if self.scale == "digits" else f"_{self.scale}"
        return self.name + scale


@functools.cache
def settings_of(arguments):
    """The settings that decide the numbers of a run, name -> value.

    Seeds are not among them.

    Args:
        arguments: flags of the training command, a tuple.
    """
    # Runs are started in the project's root; this process may not be.
    arguments = [
        argument.replace("--flagfile=", f"--flagfile={ROOT}/")
        for argument in arguments
    ]
    values = config_lib.compared(command_line.parse(arguments))
    return {k: v for k, v in values.items() if k not in _SEEDS}


@functools.cache
def defaults_of(algo):
    """The default of every setting of a method, name -> value."""
    fields = [
        *dataclasses.fields(config_lib.Config),
        *dataclasses.fields(hyperparameters_class(algo)),
    ]
    compared = settings_of((f"--algo={algo}",))
    return {f.name: f.default for f in fields if f.name in compared}


@functools.cache
def tables(scale):
    """All tables at a scale, name -> `Table`.

    Tables whose images are too large for the scale are left out.
    """
    found = {}
    for cell in settings.cells():
        paper, _, rest = cell.table.partition(", ")
        kind, _, number = rest.partition(" ")
        if kind not in ("Table", "Figure"):
            continue
        is_mpl = paper == "Meta Pseudo Labels"
        name = "mpl" if is_mpl else "meta_semi"
        name += "_figure" * (kind == "Figure") + f"_{number}"
        unit = "accuracy" if is_mpl else "error"
        table = found.setdefault(name, Table(name, cell.table, [], unit))
        if scale == "paper" or cell.task.image_size <= 96:
            table.cells.append(_of_paper(cell, scale))
    found = {name: table for name, table in found.items() if table.cells}
    for table in (_training_accuracy(scale), _feedback(scale)):
        found[table.name] = table
    found = {name: table._replace(scale=scale) for name, table in found.items()}
    return found | _digits(scale) | _instruments(scale)


def _of_paper(cell, scale, row=None, **extra):
    """A cell of tools/settings.py at a scale, with further flags."""
    changes = scaled(cell, SCALES[scale]) if scale != "paper" else {}
    data = cell.task.text
    if changes:
        data = f"{changes['num_labeled']} labels (paper: {data})"
    return Cell(
        row or cell.row,
        data,
        "" if row else cell.number,
        (
            f"--flagfile=flags/{cell.path}",
            *_as_flags({**changes, **extra}),
        ),
    )


def _as_flags(values):
    return tuple(
        f"--{k}={str(v).lower() if isinstance(v, bool) else v}"
        for k, v in values.items()
    )


def scaled(cell, scale):
    """The flags that fit a cell's run to a scale, name -> value.

    Args:
        cell: a `settings.Cell`.
        scale: a `Scale`.
    """
    given = {name: setting.value for name, setting in cell.settings.items()}
    resolved = config_lib.resolve({"algo": cell.method, **given})
    values = resolved.to_json()
    values |= values.pop("hyperparameters")
    changes = {k: v for k, v in scale.flags.items() if k in values}
    num_steps = changes["num_steps"]
    changes |= _shorter(values, changes, num_steps)
    per_class = max(1, round(scale.labels * cell.task.labels / 10))
    changes["num_labeled"] = 10 * per_class
    if resolved.hyperparameters.uses_unlabeled:
        ratio = values["unlabeled_batch_ratio"]
        changes["unlabeled_batch_ratio"] = min(ratio, scale.max_ratio)
    # The time constant of the average, 1 / (1 - decay) steps, does not shrink
    # in proportion: too few steps would be left to average over.
    longest = 1 - 10 / num_steps
    if values["ema_decay"] > longest > 0:
        changes["ema_decay"] = longest
    if budget := values["time_budget_minutes"]:
        changes["time_budget_minutes"] = budget * scale.seconds_per_hour / 3600
        changes["num_steps"] = scale.timed_steps
    defaults = config_lib.Config.__dataclass_fields__
    for name in _OF_A_DATASET:
        if name in given and name not in scale.flags:
            changes[name] = defaults[name].default
    return changes


def _shorter(values, fixed, num_steps):
    """Lengths and learning rates for a run of `num_steps`, name -> value.

    Args:
        values: the settings of the run at the paper's scale, name -> value.
        fixed: names of settings that the scale sets itself.
        num_steps: steps of the shorter run.
    """
    changes = {}
    shrink = num_steps / values["num_steps"]
    for name, value in values.items():
        is_length = name.endswith("_steps") and name not in _OTHER_STEPS
        if (is_length or name in _LENGTHS) and value and name not in fixed:
            length = value * shrink
            if any(word in name for word in _NOT_TOO_SHORT):
                length = max(length, min(value, num_steps / 10))
            changes[name] = max(1, round(length))
        if name.endswith("learning_rate") and value > _MAX_LEARNING_RATE:
            changes[name] = _MAX_LEARNING_RATE
    return changes


def _of_figure_3(method, task="cifar10_4000"):
    """A cell of Figure 3 of Meta Pseudo Labels.

    Args:
        method: `--algo`.
        task: name of its `settings.Task`.
    """
    return next(
        cell
        for cell in settings.cells()
        if cell.table == "Meta Pseudo Labels, Figure 3"
        and (cell.method, cell.task.name) == (method, task)
    )


def _training_accuracy(scale):
    tasks = ["cifar10_4000"] + ["imagenet_10pct"] * (scale == "paper")
    cells = [
        _of_paper(
            _of_figure_3(method, task),
            scale,
            row=row,
            evaluate_on_labeled=True,
            # The figure shows the teacher, too.
            evaluate_networks="all",
        )
        for task in tasks
        for method, row in (
            ("supervised", "Supervised"),
            ("meta_pseudo_labels", "Meta Pseudo Labels"),
        )
    ]
    return Table("mpl_figure_4", "Meta Pseudo Labels, Figure 4", cells)


def _feedback(scale):
    """Variants of the student's feedback; not a table of the paper."""
    base = _of_figure_3("meta_pseudo_labels")
    rows = {
        "off": {"feedback": "off"},
        # What the released code trains: its feedback has no gradient.
        "off, soft labels": {"feedback": "off", "pseudo_label": "soft"},
        "taylor": {"feedback": "taylor"},
        "dot": {"feedback": "dot"},
        # As in the flagfile.
        "per_example": {},
        "exact_soft": {"feedback": "exact_soft"},
        "per_example, sign flipped": {"feedback_sign": -1},
    }
    cells = [
        _of_paper(base, scale, row=row, **changes)
        for row, changes in rows.items()
    ]
    title = "Meta Pseudo Labels, variants of the student's feedback"
    return Table("feedback", title, cells)


def _digits(scale):
    """Tables on scikit-learn's digits, with the defaults of every method."""
    short = ("--num_steps=6", "--evaluate_every=3") * (scale == "smoke")

    def cell(row, *given):
        return Cell(row, "30 labels", "", (*given, *short))

    # After six steps no teacher reaches the default threshold.
    further = {"noisy_student": ("--confidence_threshold=0",)} if short else {}
    methods = [
        cell(name, f"--algo={name}", *further.get(name, ()))
        for name in ALGORITHMS
    ]
    titles = {
        "digits": ("All methods on digits", methods),
    }
    scale = "smoke" if short else "digits"
    return {
        name: Table(name, title, cells, scale=scale)
        for name, (title, cells) in titles.items()
    }


class Instrument(typing.NamedTuple):
    """A small experiment that two CPU cores finish.

    It must put methods with a known order into that order before any other
    method is judged by it.

    Attributes:
        data: column of the tables.
        flags: of all methods.
        unlabeled: further flags of methods with unlabeled images.
        strong: further flags of methods with strong views.
        num_steps: of a run.
    """

    data: str
    flags: tuple = ()
    unlabeled: tuple = ()
    strong: tuple = ()
    num_steps: int = 600

    def cell(self, row, given, further=()):
        """The `Cell` of a method on these images.

        Args:
            row: what the method is called in the table.
            given: its flags; {longer} stands for 5/3 of the steps. A `Then`
                has those of two runs.
            further: flags of all cells of a table.
        """
        if isinstance(given, Then):
            first = self.cell(row, given.first, further)
            second = self.cell(row, given.flags, further)
            return second._replace(first=first.flags)
        longer = self.num_steps * 5 // 3
        given = tuple(flag.format(longer=longer) for flag in given)
        hp = command_line.parse(given).hyperparameters
        return Cell(
            row,
            self.data,
            "",
            (
                *self.flags,
                *given,
                *(self.unlabeled if hp.uses_unlabeled else ()),
                *(self.strong if hp.uses_strong_policy else ()),
                *further,
            ),
        )


class Then(typing.NamedTuple):
    """Flags of a run, and those of one that starts from its network."""

    first: tuple
    flags: tuple


_AT_14_PIXELS = (
    "--image_size=14",
    "--model=strided_cnn",
    "--num_labeled=40",
    "--num_validation=2000",
    "--batch_size=32",
    "--evaluate_every=300",
)
INSTRUMENTS = {
    "digits": Instrument("digits, 30 labels"),
    "mnist": Instrument(
        "MNIST at 14 x 14, 40 labels",
        ("--dataset=mnist", *_AT_14_PIXELS, "--num_steps=600"),
        ("--unlabeled_batch_ratio=4",),
    ),
    "fashion_mnist": Instrument(
        "Fashion-MNIST at 14 x 14, 40 labels",
        ("--dataset=fashion_mnist", *_AT_14_PIXELS, "--num_steps=1200"),
        ("--unlabeled_batch_ratio=4",),
        # Gray images have no colors for the other policies to change.
        ("--strong_augmentation=affine_digits",),
        1200,
    ),
}
_GATE = {
    "supervised": ("--algo=supervised",),
    "supervised, MixUp": ("--algo=supervised_mixup",),
    "supervised, RandAugment": ("--algo=randaugment",),
    "UDA": ("--algo=uda",),
    "FixMatch": ("--algo=fixmatch",),
    "supervised, all labels": ("--algo=supervised", "--num_labeled=0"),
}
_KNOWN_ORDER = (
    ("supervised", "supervised, MixUp"),
    ("supervised, MixUp", "UDA"),
    ("supervised, MixUp", "FixMatch"),
    ("supervised, RandAugment", "UDA"),
    ("supervised, RandAugment", "FixMatch"),
    ("UDA", "supervised, all labels"),
    ("FixMatch", "supervised, all labels"),
)


# The meta gradient on strong views: what it adds to self-training on them.
_STRONG_FORM = ("--algo=meta_semi_strong", "--meta_gradient=forward_mode")
_META_SEMI = ("--algo=meta_semi", "--meta_gradient=forward_mode")
_SELECTION = {
    "supervised, MixUp": _GATE["supervised, MixUp"],
    "FixMatch": _GATE["FixMatch"],
    # At least the time of Meta-Semi's steps: it has 4/3 of FixMatch's passes.
    "FixMatch, 5/3 of the steps": (*_GATE["FixMatch"], "--num_steps={longer}"),
    "FixMatch, MixUp of labeled images": (
        "--algo=fixmatch",
        "--labeled_mixup_alpha=1",
    ),
    "FreeMatch": ("--algo=freematch",),
    "Meta-Semi": _META_SEMI,
    "Meta-Semi, strong views": _STRONG_FORM,
    "Meta-Semi, strong views, constant weights": (
        *_STRONG_FORM,
        "--example_weights=constant",
    ),
    "Meta-Semi, strong views, finite differences": (
        *_STRONG_FORM,
        "--meta_gradient=finite_difference",
    ),
    "Meta-Semi, strong views labeled by the average": (
        *_STRONG_FORM,
        "--labeler=ema",
        "--labeler_mode=inference",
    ),
}
_SELECTED = "Meta-Semi, strong views"
_SELECTION_CONTRASTS = tuple(
    (row, _SELECTED) for row in _SELECTION if row != _SELECTED
)


# The readings of Algorithm 1 that Meta-Semi's Table 5 allows, name -> flags.
READINGS = {
    "R1 (joint)": ("--labels_in_update=joint",),
    "R2 (separate, raw)": (),
    "R3 (separate, mixed)": (
        "--labeled_loss_batch=mixed",
        "--meta_labeled_batch=raw",
    ),
}
_TABLE_5 = {
    "": (),
    ", MixUp of labeled images alone": ("--mixup_on=labeled",),
    ", MixUp of unlabeled images alone": ("--mixup_on=unlabeled",),
    ", no MixUp": ("--mixup_on=none",),
    ", constant weights": ("--example_weights=constant",),
    ", weights -1 and 1": ("--example_weights=plus_minus_one",),
    ", one-hot pseudo-labels": ("--pseudo_label=one_hot",),
    ", without EMA": ("--ema_decay=0",),
}
_RECONSTRUCTIONS = {
    **{name: _GATE[name] for name in ("supervised", "supervised, MixUp")},
    **{
        f"{reading}{row}": (*_META_SEMI, *of_reading, *of_row)
        for reading, of_reading in READINGS.items()
        for row, of_row in _TABLE_5.items()
    },
}
_RECONSTRUCTIONS |= {
    "R2 (separate, raw), pseudo-labels of the weak view": (
        *_META_SEMI,
        "--pseudo_label_view=weak",
    ),
    "Algorithm 1 as printed": (
        *_META_SEMI,
        "--labeled_loss_weight=0",
        "--pseudo_label_view=weak",
    ),
}
_RECONSTRUCTION_CONTRASTS = tuple(
    (reading, f"{reading}{row}")
    for reading in READINGS
    for row in _TABLE_5
    if row
)

# Which labeled images judge the pseudo-labels: mixed ones as Algorithm 1 has
# them, those that are learned as they are, or some that are not learned.
_ALONE = "--judge_share=0.34"
_JUDGES = {
    "mixed": _META_SEMI,
    "raw": (*_META_SEMI, "--meta_labeled_batch=raw"),
    "mixed, twice as many in a batch": (
        *_META_SEMI,
        "--batch_size=128",
        "--unlabeled_batch_ratio=1",
    ),
    "mixed, a third of the labels": (*_META_SEMI, _ALONE),
    "raw, a third of the labels": (
        *_META_SEMI,
        "--meta_labeled_batch=raw",
        _ALONE,
    ),
    "strong views, raw": _STRONG_FORM,
    "strong views, raw, a third of the labels": (*_STRONG_FORM, _ALONE),
}
_JUDGE_CONTRASTS = (
    *(
        ("mixed", row)
        for row in _JUDGES
        if row != "mixed" and not row.startswith("strong")
    ),
    ("strong views, raw", "strong views, raw, a third of the labels"),
)

# Photographs of ten classes, in the folder photos/ of the project, and a
# network that has been trained on ImageNet.
_OF_PHOTOS = (
    "--labeled_dir=photos/train",
    "--validation_dir=photos/validation",
    "--test_dir=photos/test",
    "--image_size=96",
    "--model=efficientnet_lite0",
    "--init_weights=imagenet",
    "--batch_size=32",
    "--evaluate_every=100",
    "--learning_rate=0.05",
)
_LAST_LAYER = ("--num_steps=400", "--freeze=backbone", "--cache_features=4")

# Six of ten classes are learned; the unlabeled pool has images of the others.
POOLS = {
    f"digits 0 to 5, 30 labels, {share:.0%} foreign": Instrument(
        f"digits 0 to 5, 30 labels, {share:.0%} foreign",
        ("--known_classes=6", "--num_validation=120"),
        (f"--foreign_share={share}",),
    )
    for share in (0.0, 0.5, 1.0)
}
POOLS |= {
    "long-tailed": Instrument(
        "digits, 30 labels, long-tailed", ("--label_split=long_tailed",)
    ),
    # The rest is as in digits.
    "corpora": Instrument(
        "digits, 30 labels, 50% Fashion-MNIST",
        (
            "--array_file=pools/digits_and_clothes.npz",
            "--known_classes=10",
            "--num_labeled=30",
            "--num_validation=200",
            "--model=digits_cnn",
            "--num_steps=600",
            "--learning_rate=0.1",
            "--weight_decay=0.0001",
            "--weak_augmentation=affine",
        ),
        ("--foreign_share=0.5",),
        ("--strong_augmentation=affine_digits",),
    ),
}
_AT_16_PIXELS = (
    "--model=strided_cnn",
    "--batch_size=64",
    "--num_steps=2000",
    "--evaluate_every=500",
)
# The files are made by tools/make_pools.py.
POOLS |= {
    f"animals, {share:.0%} foreign": Instrument(
        f"CIFAR-10's animals at 16 x 16, 240 labels, {share:.0%} foreign",
        (
            "--array_file=pools/animals_first.npz",
            "--known_classes=6",
            "--num_labeled=240",
            "--num_validation=1200",
            *_AT_16_PIXELS,
        ),
        ("--unlabeled_batch_ratio=3", f"--foreign_share={share}"),
        num_steps=2000,
    )
    for share in (0.0, 0.5, 1.0)
}
POOLS |= {
    "labels of people": Instrument(
        "CIFAR-10 at 16 x 16, 400 labels, 40% wrong",
        (
            "--array_file=pools/human_labels.npz",
            "--num_labeled=400",
            "--num_validation=2000",
            *_AT_16_PIXELS,
        ),
        ("--unlabeled_batch_ratio=3",),
        num_steps=2000,
    )
}
POOLS |= {
    f"photos, {share:.0%} foreign": Instrument(
        f"clothing photos, last layer, 60 labels, {share:.0%} foreign",
        (*_OF_PHOTOS, *_LAST_LAYER, "--num_labeled=60", "--known_classes=6"),
        ("--unlabeled_batch_ratio=2", f"--foreign_share={share}"),
    )
    for share in (0.0, 1.0)
}
_POOL_ROWS = {
    "supervised": _GATE["supervised"],
    "supervised, MixUp": _GATE["supervised, MixUp"],
    "FixMatch": _GATE["FixMatch"],
    "FreeMatch": _SELECTION["FreeMatch"],
    "Meta Pseudo Labels": ("--algo=meta_pseudo_labels",),
    "Meta-Semi": _META_SEMI,
    _SELECTED: _SELECTION[_SELECTED],
    f"{_SELECTED}, constant weights": _SELECTION[
        f"{_SELECTED}, constant weights"
    ],
}
_POOL_CONTRASTS = (
    ("supervised", "FixMatch"),
    ("supervised, MixUp", "FixMatch"),
    *((row, _SELECTED) for row in _POOL_ROWS if row != _SELECTED),
)


_PHOTOS = Instrument(
    "clothing photos at 96 x 96, 100 labels",
    (*_OF_PHOTOS, "--num_labeled=100"),
    ("--unlabeled_batch_ratio=2",),
)
# What is trained of the network -> flags.
_PRETRAINED = {
    "supervised, last layer": ("--algo=supervised", *_LAST_LAYER),
    "supervised, LoRA": (
        "--algo=supervised",
        "--num_steps=200",
        "--freeze=lora",
        "--backbone_learning_rate_scale=0.01",
    ),
    "supervised, all layers": (
        "--algo=supervised",
        "--num_steps=200",
        "--backbone_learning_rate_scale=0.02",
    ),
    "Meta-Semi, last layer": (*_META_SEMI, *_LAST_LAYER),
    "Meta-Semi, strong views, last layer": (*_STRONG_FORM, *_LAST_LAYER),
    "strong views, constant weights, last layer": (
        *_STRONG_FORM,
        "--example_weights=constant",
        *_LAST_LAYER,
    ),
    "Meta Pseudo Labels, last layer": (
        "--algo=meta_pseudo_labels",
        *_LAST_LAYER,
    ),
    "FixMatch, last layer": ("--algo=fixmatch", *_LAST_LAYER),
    "ensemble self-training, last layer": (
        "--algo=ensemble_self_training",
        *_LAST_LAYER,
    ),
}
_PRETRAINED_CONTRASTS = tuple(
    ("supervised, last layer", row)
    for row in _PRETRAINED
    if row != "supervised, last layer"
) + (
    (
        "strong views, constant weights, last layer",
        "Meta-Semi, strong views, last layer",
    ),
)


# A network that has seen the unlabeled images before it sees labels, on
# photographs: SimCLR and BYOL, and what can be trained from there.
_CIFAR_10 = Instrument(
    "CIFAR-10 at 16 x 16, 400 labels",
    (
        "--dataset=cifar10",
        "--image_size=16",
        "--num_labeled=400",
        "--num_validation=2000",
        *_AT_16_PIXELS,
    ),
)
_SIMCLR = ("--algo=simclr",)
_SELF_SUPERVISED = {
    "supervised": _GATE["supervised"],
    "SimCLR, then finetuned": _SIMCLR,
    "BYOL, then finetuned": ("--algo=byol", "--target_decay=0.99"),
    "Meta-Semi": _META_SEMI,
    "SimCLR, then Meta-Semi": Then(_SIMCLR, _META_SEMI),
}
_SELF_SUPERVISED_CONTRASTS = (
    *(("supervised", row) for row in _SELF_SUPERVISED if row != "supervised"),
    ("Meta-Semi", "SimCLR, then Meta-Semi"),
)


def _instruments(scale):
    """The small experiments: their gate, and Meta-Semi's selection on them."""
    short = ("--num_steps=6", "--evaluate_every=3") * (scale == "smoke")
    scale = "smoke" if short else "digits"
    rows = {
        "gate": (
            "Methods in a known order, to check the instruments",
            _GATE,
            _KNOWN_ORDER,
        ),
        "meta_semi_strong": (
            "Meta-Semi on strong views",
            _SELECTION,
            _SELECTION_CONTRASTS,
        ),
        "meta_semi_reconstruction": (
            "Meta-Semi, Table 5 under three readings of Algorithm 1",
            _RECONSTRUCTIONS,
            _RECONSTRUCTION_CONTRASTS,
        ),
        "judges": (
            "Which labeled images judge Meta-Semi's pseudo-labels",
            _JUDGES,
            _JUDGE_CONTRASTS,
        ),
        "pools": (
            "Unlabeled pools with images of other classes",
            _POOL_ROWS,
            _POOL_CONTRASTS,
        ),
        "pretrained": (
            "A pretrained network and few labels",
            _PRETRAINED,
            _PRETRAINED_CONTRASTS,
        ),
        "self_supervised": (
            "Trained without labels first",
            _SELF_SUPERVISED,
            _SELF_SUPERVISED_CONTRASTS,
        ),
    }
    places = {
        "self_supervised": {"cifar10": _CIFAR_10},
        "pretrained": {"photos": _PHOTOS},
        "meta_semi_reconstruction": {"digits": INSTRUMENTS["digits"]},
        "judges": {"digits": INSTRUMENTS["digits"]},
        "pools": POOLS,
    }
    return {
        name: Table(
            name,
            title,
            [
                instrument.cell(row, given, short)
                for instrument in places.get(name, INSTRUMENTS).values()
                for row, given in methods.items()
            ],
            scale=scale,
            contrasts=contrasts,
        )
        for name, (title, methods, contrasts) in rows.items()
    }
