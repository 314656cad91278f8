"""Runs the cells of a table over seeds; writes the table and its figure.

    python tools/reproduce_table.py --table=meta_semi_5 --scale=small \
        --seeds=3 --data_dir=DIR --out=results

Every cell is the training command with some flags, run once per seed (that of
weights, batches and splits alike). `--scale=paper` runs the cell's flagfile as
it is. `--scale=small` is a miniature of it that two CPU cores finish, see
`SMALL`; `--scale=long` is the same with five times the steps, `--scale=smoke`
shows in a few that it runs at all. `--only=TEXT` runs some of the cells.

A finished run is a line of OUT/runs.jsonl. A run whose settings are there
already, under whatever flags and for whatever table, is not repeated; an
unfinished one goes on from its checkpoint in OUT/runs. OUT/TABLE_SCALE.md, .csv
and .png are written from the lines alone, again after every run.
"""

import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import typing

import matplotlib.figure
from absl import app, flags

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
    """A miniature of the papers' runs.

    Attributes:
        what: says so under the table's title.
        flags: that replace the flagfile's, where a method has them.
        labels: for one of the paper's.
        max_ratio: bound on `--unlabeled_batch_ratio`.
        seconds_per_hour: of a time budget.
        timed_steps: `--num_steps` of runs with one; more than fit.
        checkpoints: how many a run has under `--protocol=median_20`.
    """

    what: str
    flags: dict
    labels: float
    max_ratio: int
    seconds_per_hour: float
    timed_steps: int
    checkpoints: int


SMALL = Scale(
    what=(
        "A miniature, not the paper's experiment: Fashion-MNIST with a tenth "
        "of the labels, balanced over the classes, a CNN with 24,058 "
        "parameters and no dropout, pixels scaled to -1 ... 1, float32, 2,000 "
        "steps of 32 labeled images and at most twice as many unlabeled ones. "
        "Lengths in steps shrink like the run, but warm-ups, ramps, waits and "
        "finetuning to no less than a tenth of it; the average forgets within "
        "at most a tenth; learning rates are at most 0.1, and the weight of "
        "the teacher's UDA loss is 1. An hour of a time budget is 12 seconds. "
        "Cells on ImageNet have no miniature. All else is the flagfile's. "
        "These choices were made by validation accuracy, before any table, so "
        "that supervised training, UDA and Meta-Semi learn in so few steps. "
        "Differences between methods may not be those of the paper."
    ),
    flags={
        "dataset": "fashion_mnist",
        "num_validation": 1000,
        "model": "small_cnn",
        "normalization": "unit",
        "label_split": "balanced",
        "batch_size": 32,
        "num_steps": 2000,
        "evaluate_every": 100,
        "evaluate_on_labeled": True,
        "precision": "float32",
        "finetune_batch_size": 0,
        "dropout": 0.0,
        "teacher_dropout": 0.0,
        "uda_weight": 1.0,
    },
    labels=0.1,
    max_ratio=2,
    seconds_per_hour=12,
    timed_steps=100_000,
    checkpoints=100,
)
LONG = SMALL._replace(
    what=SMALL.what.replace("2,000", "10,000"),
    flags={**SMALL.flags, "num_steps": 10_000, "evaluate_every": 500},
)
SMOKE = Scale(
    what="A few steps that show that it runs; the numbers mean nothing.",
    flags={
        "dataset": "digits",
        "num_validation": 200,
        "model": "digits_cnn",
        "normalization": "unit",
        "label_split": "balanced",
        "weak_augmentation": "auto",
        "strong_augmentation": "auto",
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
SCALES = {"small": SMALL, "long": LONG, "smoke": SMOKE}

_COUNTED_ELSE = ("lookahead_steps", "gradient_accumulation_steps")
_NOT_TOO_SHORT = ("warmup", "ramp", "wait", "finetune")
_MAX_LEARNING_RATE = 0.1
_LENGTHS = ("cycle_start", "swa_start", "swa_every")
# What is only for one dataset goes back to its default.
_OF_A_DATASET = ("svhn_extra", "stl10_fold", "image_size", "stored_size")
_SEEDS = ("seed", "split_seed", "stl10_fold")


class Cell(typing.NamedTuple):
    """A number of a table.

    Attributes:
        row: the method.
        data: what it is trained on; the table's column.
        number: the paper's, with its unit; empty if there is none.
        flags: of the training command, without seeds.
    """

    row: str
    data: str
    number: str
    flags: tuple

    @property
    def name(self):
        """What tells it from the other cells of its table."""
        return f"{self.row}, {self.data}"

    @property
    def settings(self):
        """What its flags mean, see `settings_of`."""
        return settings_of(self.flags)


class Table(typing.NamedTuple):
    """Cells and how they are shown.

    Attributes:
        title: the paper's name of it.
        cells: list of `Cell`.
        unit: `accuracy` or `error`.
        figure: function of cells, records and unit that draws, or None.
        scale: of its runs: `paper`, `digits` or a key of `SCALES`.
        stem: of the files that it is written to.
    """

    title: str
    cells: list
    unit: str = "accuracy"
    figure: typing.Callable | None = None
    scale: str = "paper"
    stem: str = ""

    @property
    def what(self):
        """How the runs differ from the paper's; empty if they do not."""
        return SCALES[self.scale].what if self.scale in SCALES else ""

    @property
    def heading(self):
        """The title, and in what way it is not the paper's."""
        kinds = {
            "small": " in miniature",
            "long": " in miniature, more steps",
            "smoke": ", a few steps",
        }
        return self.title + kinds.get(self.scale, "")


@functools.cache
def settings_of(arguments):
    """What decides a run's numbers, seeds aside: name -> value.

    Args:
        arguments: flags of the training command, a tuple.
    """
    # Flagfiles are named from the project's root, where runs are started.
    arguments = [
        argument.replace("--flagfile=", f"--flagfile={ROOT}/")
        for argument in arguments
    ]
    values = config_lib.compared(command_line.parse(arguments))
    return {k: v for k, v in values.items() if k not in _SEEDS}


def is_run_of(record, wanted):
    """Whether a record is that of a run with the settings `wanted`.

    A setting that the record does not know came later: the run is taken to
    have had its default.
    """
    then = record["settings"]
    if not then.keys() <= wanted.keys():
        return False
    return all(
        then.get(name, default) == wanted[name]
        for name, default in _defaults(wanted["algo"]).items()
    )


@functools.cache
def _defaults(algo):
    """The default of every setting of a method, name -> value."""
    fields = [
        *dataclasses.fields(config_lib.Config),
        *dataclasses.fields(hyperparameters_class(algo)),
    ]
    compared = settings_of((f"--algo={algo}",))
    return {f.name: f.default for f in fields if f.name in compared}


# The tables.


def tables(scale):
    """Name -> `Table`, at a scale, without those that have no miniature."""
    found = {}
    for cell in settings.cells():
        paper, _, rest = cell.table.partition(", ")
        kind, _, number = rest.partition(" ")
        if kind not in ("Table", "Figure"):
            continue
        is_mpl = paper == "Meta Pseudo Labels"
        name = "mpl" if is_mpl else "meta_semi"
        name += "_figure" * (kind == "Figure") + f"_{number}"
        table = found.setdefault(
            name,
            Table(cell.table, [], "accuracy" if is_mpl else "error"),
        )
        if scale == "paper" or cell.task.image_size <= 96:
            table.cells.append(_of_paper(cell, scale))
    found = {name: table for name, table in found.items() if table.cells}
    found["mpl_figure_4"] = _training_accuracy(scale)
    found["feedback"] = _feedback(scale)
    found = {
        name: table._replace(
            figure=_FIGURES.get(name), scale=scale, stem=f"{name}_{scale}"
        )
        for name, table in found.items()
    }
    return found | _digits(scale)


def _of_paper(cell, scale, row=None, **extra):
    """A cell of tools/settings.py at a scale, with further flags."""
    changes = miniature(cell, SCALES[scale]) if scale != "paper" else {}
    data = cell.task.text
    if changes:
        data = f"{changes['num_labeled']} labels, for {data}"
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


def miniature(cell, scale):
    """The flags, name -> value, that make a cell's run small.

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
    shrink = num_steps / values["num_steps"]
    for name, value in values.items():
        is_length = name.endswith("_steps") and name not in _COUNTED_ELSE
        if (is_length or name in _LENGTHS) and value and name not in changes:
            length = value * shrink
            if any(word in name for word in _NOT_TOO_SHORT):
                length = max(length, min(value, num_steps / 10))
            changes[name] = max(1, round(length))
        if name.endswith("learning_rate") and value > _MAX_LEARNING_RATE:
            changes[name] = _MAX_LEARNING_RATE
    per_class = max(1, round(scale.labels * cell.task.labels / 10))
    changes["num_labeled"] = 10 * per_class
    ratio = values["unlabeled_batch_ratio"]
    changes["unlabeled_batch_ratio"] = min(ratio, scale.max_ratio)
    # The average's memory, 1 / (1 - decay) steps, is a length, too, but
    # shrunk like the run it would be none.
    longest = 1 - 10 / num_steps
    if values["ema_decay"] > longest > 0:
        changes["ema_decay"] = longest
    if budget := values["time_budget_minutes"]:
        changes["time_budget_minutes"] = budget * scale.seconds_per_hour / 3600
        changes["num_steps"] = scale.timed_steps
    defaults = config_lib.Config.__dataclass_fields__
    for name in _OF_A_DATASET:
        if name in given:
            changes[name] = defaults[name].default
    return changes


def _of_figure_3(method, task="cifar10_4000"):
    """A cell of Meta Pseudo Labels' Figure 3.

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
            _of_figure_3(method, task), scale, row=row, evaluate_on_labeled=True
        )
        for task in tasks
        for method, row in (
            ("supervised", "Supervised"),
            ("meta_pseudo_labels", "Meta Pseudo Labels"),
        )
    ]
    return Table("Meta Pseudo Labels, Figure 4", cells)


def _feedback(scale):
    """What of the student's feedback helps; not a table of the paper."""
    base = _of_figure_3("meta_pseudo_labels")
    rows = {
        "off": {"feedback": "off"},
        # What the released code trains, whose feedback has no gradient.
        "off, soft labels": {"feedback": "off", "pseudo_label": "soft"},
        "taylor": {"feedback": "taylor"},
        "dot": {"feedback": "dot"},
        # The flagfile's own.
        "per_example": {},
        "exact_soft": {"feedback": "exact_soft"},
        "per_example, sign flipped": {"feedback_sign": -1},
    }
    cells = [
        _of_paper(base, scale, row=row, **changes)
        for row, changes in rows.items()
    ]
    return Table("The feedback of Meta Pseudo Labels", cells)


def _digits(scale):
    """Tables on scikit-learn's digits with nothing but defaults."""
    short = ("--num_steps=6", "--evaluate_every=3") * (scale == "smoke")

    def cell(row, *given):
        return Cell(row, "30 labels", "", (*given, *short))

    # After a few steps no teacher is as confident as students want it.
    further = {"noisy_student": ("--confidence_threshold=0",)} if short else {}
    methods = [
        cell(name, f"--algo={name}", *further.get(name, ()))
        for name in ALGORITHMS
    ]
    choices = {
        "default": (),
        "divided by the number of unlabeled": (
            "--weight_normalizer=num_unlabeled",
        ),
        "judged by mixed labeled images": ("--meta_labeled_batch=mixed",),
        "weak view pseudo-labeled": ("--pseudo_label_view=weak",),
        "no labeled loss in the update": ("--labeled_loss_weight=0",),
        "literal Algorithm 1": (
            "--labeled_loss_weight=0",
            "--meta_labeled_batch=mixed",
            "--pseudo_label_view=weak",
        ),
    }
    # forward_mode gives the same numbers sooner.
    common = ("--algo=meta_semi", "--meta_gradient=forward_mode")
    found = {
        "digits": Table("Every method on digits", methods),
        "digits_meta_semi_choices": Table(
            "What the slides leave open of Meta-Semi, on digits",
            [cell(row, *common, *given) for row, given in choices.items()],
        ),
    }
    return {
        name: table._replace(
            scale="smoke" if short else "digits",
            stem=f"{name}_smoke" if short else name,
        )
        for name, table in found.items()
    }


# Running.


def protocol_flags(protocol, wanted, num_checkpoints):
    """Further flags for a run that is reported by a protocol.

    Args:
        protocol: `last`, `best_validation` or `median_20`.
        wanted: settings of the run.
        num_checkpoints: for `median_20`, of the main stage. A later stage,
            which is as short as finetuning, has 20.

    Raises:
        ValueError: if a stage is too short to have 20 checkpoints.
    """
    if protocol == "best_validation":
        return ("--selection=best_validation",)
    if protocol == "last":
        return ()
    every = wanted["num_steps"] // num_checkpoints
    for name in ("finetune_steps", "student_steps", "round_steps"):
        if steps := wanted.get(name):
            every = min(every, steps // 20)
    if wanted["time_budget_minutes"]:
        every = wanted["evaluate_every"]
    every -= every % wanted["steps_per_execution"]
    if every < 1:
        raise ValueError(
            "--protocol=median_20 wants 20 checkpoints of every stage, each "
            "after at least one step and --steps_per_execution."
        )
    return (
        *("--keep_checkpoints=20", "--checkpoint_minutes=0"),
        f"--evaluate_every={every}",
    )


def seeds(cell, seed):
    """The flags in which runs of a cell differ, name -> value."""
    same = {"seed": seed, "split_seed": seed}
    # STL-10 comes with ten choices of labeled images.
    if cell.settings["dataset"] == "stl10":
        same["stl10_fold"] = seed % 10
    return same


def run(cell, seed, *, folder, protocol, num_checkpoints, threads, further=()):
    """Trains once, or goes on with it.

    Args:
        cell: the `Cell`.
        seed: of weights, batches and splits.
        folder: where runs are.
        protocol: `last`, `best_validation` or `median_20`.
        num_checkpoints: see `protocol_flags`.
        threads: of TensorFlow's operations.
        further: flags that say where things are on this machine.

    Returns:
        `(record, run_dir)`: a JSON-ready dict of settings, seed, seconds, the
        final table and accuracies against the step, and the folder of the run,
        which may go when the record is written.

    Raises:
        RuntimeError: if a command fails; the end of its output is shown.
    """
    name = json.dumps([cell.settings, seed, protocol], sort_keys=True)
    digest = hashlib.sha256(name.encode()).hexdigest()
    run_dir = pathlib.Path(folder) / digest[:16]
    given = [
        *cell.flags,
        *protocol_flags(protocol, cell.settings, num_checkpoints),
        *(f"--{name}={value}" for name, value in seeds(cell, seed).items()),
    ]

    def command(module, *rest):
        line = [sys.executable, "-m", f"tf_metassl.{module}", *rest]
        done = subprocess.run(
            [*line, f"--run_dir={run_dir}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads)},
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)}\n{done.stdout[-3000:]}")

    command("train", *given, *further, "--verbose=0")
    results = run_dir / "results.json"
    if protocol == "median_20":
        results = run_dir / "median.json"
        command("evaluate", "--median_of=20", f"--out={results}")
    curve = [
        {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        for row in map(_accuracies, _lines(run_dir / "metrics.jsonl"))
        if row["split"] != "train"
    ]
    record = {
        "settings": cell.settings,
        "seed": seed,
        "protocol": protocol,
        "seconds": round(_seconds(_lines(run_dir / "timing.jsonl")), 1),
        "results": json.loads(results.read_text()),
        "curve": curve,
    }
    return record, run_dir


def _lines(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _accuracies(row):
    return {
        name: value
        for name, value in row.items()
        if name in ("step", "split") or name.endswith("_accuracy")
    }


def _seconds(rows):
    """Of training and evaluating; every stage has a clock of its own."""
    seconds = [row["wall_clock_seconds"] for row in rows]
    following = [*seconds[1:], 0.0]
    return sum(a for a, b in zip(seconds, following, strict=True) if b < a)


def deployed(rows):
    """The row of the exported network: the last one marked so."""
    return [row for row in rows if row["deployed"]][-1]


# Writing.


def of_cell(cell, records, protocol="last"):
    """The records of a cell by seed, one each: two sweeps may have run it."""
    mine = {
        record["seed"]: record
        for record in records
        if record["protocol"] == protocol and is_run_of(record, cell.settings)
    }
    return [mine[seed] for seed in sorted(mine)]


def percent(records, unit, measure="test"):
    """Accuracy or error of the exported network in each record, in per cent.

    Args:
        records: of a cell.
        unit: `accuracy` or `error`.
        measure: `test`, `validation` or `test_top_5`.

    Returns:
        A number per record; none if a measure was not taken, as the five
        likeliest of few classes.
    """
    rows = [deployed(record["results"]) for record in records]
    name = f"{measure}_accuracy"
    values = [100 * row[name] for row in rows if name in row]
    return [100 - v for v in values] if unit == "error" else values


def mean_and_deviation(values):
    """`12.3 ± 0.4`; the deviation is that of a sample, absent for one value."""
    if not values:
        return ""
    text = f"{statistics.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.1f}"
    return text


def markdown(table, records, protocol="last"):
    """The table as text.

    Args:
        table: a `Table`.
        records: all records.
        protocol: whose records to take.
    """
    unit = "Test error" if table.unit == "error" else "Test accuracy"
    reported = {
        "last": "the last checkpoint",
        "best_validation": "the checkpoint that is best by validation",
        "median_20": "the median of the last 20 checkpoints",
    }[protocol]
    lines = [f"# {table.heading}", ""]
    if table.what:
        lines += [table.what, ""]
    lines += [
        f"{unit} of the exported network in per cent, {reported}: mean ± "
        "standard deviation over n seeds, which are those of weights, batches "
        "and splits. Seconds are those of training and evaluating.",
        "",
    ]
    commands, rows = [], []
    for cell in table.cells:
        mine = of_cell(cell, records, protocol)
        if not mine:
            continue
        test = percent(mine, table.unit)
        top_5 = percent(mine, table.unit, "test_top_5")
        held_out = percent(mine, table.unit, "validation")
        seconds = statistics.mean(record["seconds"] for record in mine)
        rows.append(
            {
                "row": cell.row,
                "data": cell.data,
                "paper": cell.number,
                "here": mean_and_deviation(test),
                "top-5": mean_and_deviation(top_5),
                "validation": mean_and_deviation(held_out),
                "n": str(len(mine)),
                "per seed": " ".join(f"{v:.1f}" for v in test),
                "s/run": f"{seconds:.0f}",
            }
        )
        commands.append(f"- {cell.name}: `{' '.join(cell.flags)}`")
    # Of few classes the five likeliest are not counted.
    columns = {
        name: "---" if name in ("row", "data", "paper", "per seed") else "--:"
        for name in (rows[0] if rows else ())
        if name != "top-5" or any(row[name] for row in rows)
    }
    lines += [
        f"| {' | '.join(columns)} |",
        f"| {' | '.join(columns.values())} |",
    ]
    lines += [
        f"| {' | '.join(row[name] for name in columns)} |" for row in rows
    ]
    lines += [
        "",
        "Flags of `python -m tf_metassl.train`, to which `--seed=S "
        "--split_seed=S` is added:",
        "",
        *commands,
    ]
    return "\n".join(lines) + "\n"


def write_csv(path, table, records, protocol="last"):
    """The table for programs, numbers unrounded."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["scale", "row", "data", "paper", "unit", "n", "test_mean"]
            + ["test_std", "test_top_5_mean", "test_top_5_std"]
            + ["validation_mean", "validation_std", "seconds", "flags"]
        )
        for cell in table.cells:
            mine = of_cell(cell, records, protocol)
            if not mine:
                continue
            numbers = []
            for measure in ("test", "test_top_5", "validation"):
                values = percent(mine, table.unit, measure)
                numbers += [
                    statistics.mean(values) if values else "",
                    statistics.stdev(values) if len(values) > 1 else "",
                ]
            seconds = statistics.mean(record["seconds"] for record in mine)
            writer.writerow(
                [table.scale, cell.row, cell.data, cell.number, table.unit]
                + [len(mine), *numbers, seconds, " ".join(cell.flags)]
            )


# Figures: functions of cells, the records of each cell, and the unit.


def _figure(num_panels):
    figure = matplotlib.figure.Figure(
        (1.5 + 4.5 * num_panels, 3.8), layout="constrained"
    )
    panels = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _by(key, pairs):
    """Groups `(cell, records)` by a field of the cell, in order."""
    groups = {}
    for cell, records in pairs:
        groups.setdefault(getattr(cell, key), []).append((cell, records))
    return groups


def _label(unit):
    return f"test {unit} (%)"


def draw_bars(pairs, unit):
    """A bar per row, a panel per dataset."""
    groups = _by("data", pairs)
    figure, panels = _figure(len(groups))
    for axes, (data, mine) in zip(panels, groups.items(), strict=True):
        values = [percent(records, unit) for _, records in mine]
        axes.bar(
            [cell.row.replace(" ", "\n") for cell, _ in mine],
            [statistics.mean(v) for v in values],
            yerr=[statistics.stdev(v) if len(v) > 1 else 0 for v in values],
            capsize=4,
            color="#7fa8d1",
        )
        axes.set(title=data)
    # A fifth of the spread below the lowest bar, so that they differ.
    every = [v for _, records in pairs for v in percent(records, unit)]
    margin = (max(every) - min(every)) / 5 or 1
    panels[0].set_ylim(min(every) - margin, max(every) + margin)
    panels[0].set_ylabel(_label(unit))
    return figure


def _draw_lines(axes, pairs, setting, unit, name=None):
    """Means against a setting of the runs."""

    def place(pair):
        return pair[0].settings[setting]

    pairs = sorted(pairs, key=place)
    places = [place(pair) for pair in pairs]
    values = [percent(records, unit) for _, records in pairs]
    axes.errorbar(
        places,
        [statistics.mean(v) for v in values],
        yerr=[statistics.stdev(v) if len(v) > 1 else 0 for v in values],
        marker="o",
        capsize=3,
        label=name,
    )
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()


def draw_against_labels(pairs, unit):
    """Test error against the number of labels, a line per method."""
    del unit  # As the slides' axis has it.
    figure, (axes,) = _figure(1)
    for row, mine in _by("row", pairs).items():
        _draw_lines(axes, mine, "num_labeled", "error", row)
    axes.set(xlabel="labeled images", ylabel=_label("error"))
    axes.legend()
    return figure


def draw_against_beta(pairs, unit):
    """Meta-Semi against beta, and ICT against its weight."""
    curves = (
        ("meta_semi", "mixup_alpha", "Meta-Semi", "β of MixUp"),
        ("ict", "unlabeled_loss_weight", "ICT", "w of the consistency loss"),
    )
    figure, panels = _figure(len(curves))
    for axes, (algo, setting, title, label) in zip(panels, curves, strict=True):
        mine = [pair for pair in pairs if pair[0].settings["algo"] == algo]
        _draw_lines(axes, mine, setting, unit)
        axes.set(title=title, xlabel=label)
    panels[0].set_ylabel(_label(unit))
    return figure


def draw_training_accuracy(pairs, unit):
    """Accuracy on the labeled training images against the step."""
    del unit
    groups = _by("data", pairs)
    figure, panels = _figure(len(groups))
    for axes, (data, mine) in zip(panels, groups.items(), strict=True):
        _draw_training_accuracy(axes, mine)
        axes.set(title=data, xlabel="step")
        axes.legend()
    panels[0].set_ylabel("accuracy on labeled images (%)")
    return figure


def _draw_training_accuracy(axes, pairs):
    for cell, records in pairs:
        networks = (
            ("student", "teacher") if "Meta" in cell.row else ("student",)
        )
        for network in networks:
            curves = {}
            for record in records:
                for row in record["curve"]:
                    name = f"{network}_accuracy"
                    if row["split"] == "labeled" and name in row:
                        curves.setdefault(row["step"], []).append(row[name])
            # A last stage has other networks and fewer seeds to compare.
            steps = sorted(
                s for s, v in curves.items() if len(v) == len(records)
            )
            name = cell.row + f", {network}" * (len(networks) > 1)
            axes.plot(
                steps,
                [100 * statistics.mean(curves[s]) for s in steps],
                label=name,
            )


_FIGURES = {
    "mpl_figure_3": draw_bars,
    "mpl_figure_4": draw_training_accuracy,
    "mpl_figure_5": draw_against_labels,
    "meta_semi_figure_3": draw_against_beta,
}


def write(out, table, records, protocol="last"):
    """Writes all that there is of a table into the folder `out`.

    Returns:
        The table as text.
    """
    stem = table.stem if protocol == "last" else f"{table.stem}_{protocol}"
    text = markdown(table, records, protocol)
    (out / f"{stem}.md").write_text(text, "utf-8")
    write_csv(out / f"{stem}.csv", table, records, protocol)
    pairs = [
        (cell, mine)
        for cell in table.cells
        if (mine := of_cell(cell, records, protocol))
    ]
    if table.figure and pairs:
        figure = table.figure(pairs, table.unit)
        figure.suptitle(table.heading)
        figure.savefig(out / f"{stem}.png", dpi=130)
    return text


def missing(table, num_seeds, records, protocol="last"):
    """The runs that a table still needs, `(Cell, seed)`, seed by seed.

    Cells that mean the same run share it.
    """
    needed = {}
    for seed in range(num_seeds):
        for cell in table.cells:
            key = json.dumps([cell.settings, seed], sort_keys=True)
            there = [r["seed"] for r in of_cell(cell, records, protocol)]
            if seed not in there:
                needed.setdefault(key, (cell, seed))
    return list(needed.values())


def append(log, record):
    """Adds a line to a file, on disk when this returns."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _num_checkpoints(table):
    """Of a run under `--protocol=median_20`; MixMatch's have some 1,000."""
    if table.scale == "paper":
        return 1000
    return SCALES.get(table.scale, SMALL).checkpoints


def main(_):
    """Runs what is missing and writes the table."""
    values = flags.FLAGS
    found = tables(values.scale)
    if values.table not in found:
        raise app.UsageError(
            f"--table={values.table} has no --scale={values.scale}: its images "
            "are too large. There are " + ", ".join(found) + "."
        )
    table = found[values.table]
    table = table._replace(
        cells=[
            cell._replace(flags=(*cell.flags, *values.extra))
            for cell in table.cells
        ]
    )
    if not any(values.only in cell.name for cell in table.cells):
        raise app.UsageError(f"--only={values.only} leaves no cell.")
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "runs.jsonl"
    train = functools.partial(
        run,
        folder=out / "runs",
        protocol=values.protocol,
        num_checkpoints=_num_checkpoints(table),
        threads=max(1, (os.cpu_count() or 1) // values.jobs),
        further=[f"--data_dir={values.data_dir}"] if values.data_dir else [],
    )

    def written():
        return write(out, table, _lines(log), values.protocol)

    wanted = missing(table, values.seeds, _lines(log), values.protocol)
    with concurrent.futures.ThreadPoolExecutor(values.jobs) as pool:
        started = {
            pool.submit(train, cell, seed): f"{cell.name}, seed {seed}"
            for cell, seed in wanted
            if values.only in cell.name
        }
        failed = []
        try:
            for future in concurrent.futures.as_completed(started):
                name = started[future]
                if error := future.exception():
                    failed.append(name)
                    print(f"{name} failed: {error}", flush=True)
                    continue
                record, run_dir = future.result()
                append(log, record)
                shutil.rmtree(run_dir)
                row = deployed(record["results"])
                print(
                    f"{name}: validation {row['validation_accuracy']:.4f}, "
                    f"test {row['test_accuracy']:.4f}, "
                    f"{record['seconds']:.0f} s",
                    flush=True,
                )
                written()
        except BaseException:
            # Leaving the pool would run whatever is still waiting.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(written())
    if failed:
        sys.exit(f"{len(failed)} runs failed: {'; '.join(failed)}.")


if __name__ == "__main__":
    flags.DEFINE_enum("table", None, list(tables("paper")), "Which table.")
    flags.DEFINE_enum("scale", "small", ["paper", *SCALES], "See above.")
    flags.DEFINE_integer("seeds", 3, "Seeds 0 ... N - 1.", lower_bound=1)
    flags.DEFINE_integer("jobs", 1, "Runs at a time.", lower_bound=1)
    flags.DEFINE_enum(
        "protocol",
        "last",
        ["last", "best_validation", "median_20"],
        "What is reported: the last checkpoint, the best one by validation, or "
        "the median of the last 20. Never one chosen by test images.",
    )
    flags.DEFINE_string("out", "results", "Folder for the results.")
    flags.DEFINE_string("data_dir", "", "Of the training command.")
    flags.DEFINE_string(
        "only", "", "Only cells whose `row, data` has this text are run."
    )
    flags.DEFINE_multi_string("extra", [], "Further flags for every run.")
    flags.mark_flag_as_required("table")
    app.run(main)
