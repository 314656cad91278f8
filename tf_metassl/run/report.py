"""What a run prints and reports: plan, final table, report.md, figures."""

import dataclasses
import io
import json
import math
import pathlib
import textwrap

import matplotlib.figure
import numpy as np
import tensorflow as tf

from tf_metassl import files, hyperparameters, models
from tf_metassl.data import spelling, splits
from tf_metassl.run import collapse, forecast, twin

# Metric of a network -> its name in the final table.
MEASURES = {
    "accuracy": "accuracy",
    "top_5_accuracy": "top-5",
    "macro_f1": "macro-F1",
    "real_precision": "ReaL",
}


def plan(experiment):
    """What a run is going to do, as lines of text.

    Args:
        experiment: an `Experiment`.
    """
    config = experiment.config
    budget = config.time_budget_minutes
    lines = [
        ("method", config.algo),
        *_data_lines(experiment),
        ("views", _views(experiment)),
        *(
            (
                pool.name,
                f"{pool.batch_size} images a step, "
                f"{config.num_steps * pool.batch_size / len(pool.rows):,.1f} "
                "passes",
            )
            for pool in experiment.pools(experiment.algorithm)
        ),
        (
            "steps",
            f"{config.num_steps}"
            + f" (--extend_to={config.extend_to})" * bool(config.extend_to)
            + f" or {budget:g} minutes" * bool(budget)
            + f" or --patience={config.patience}" * bool(config.patience)
            + f", {config.steps_per_execution} per call"
            * (config.steps_per_execution > 1)
            + f", evaluated every {config.evaluate_every}; "
            f"reported: {config.selection}",
        ),
        *(("", text) for text in _lengths(config)),
        ("network", f"{config.model}: {networks(experiment.algorithm)}"),
        *(("", text) for text in _trained_part(config)),
        *(("", text) for text in filter(None, [forecast.line(experiment)])),
        *(("twin", text) for text in filter(None, [twin.line(experiment)])),
        (
            "devices",
            f"{config.strategy}: "
            f"{experiment.strategy.num_replicas_in_sync} x {device_kind()}, "
            f"{config.precision}" + (", XLA" if config.jit_compile else ""),
        ),
        *_without_effect(experiment),
    ]
    return "\n".join(
        f"{name + ':' if name else '':<11}{text}" for name, text in lines
    )


def _trained_part(config):
    """Lines about what networks start from and what of them is trained."""
    lines = []
    if config.init_weights:
        which = "all weights"
        if not config.init_last_layer:
            which = "weights before the last layer"
        lines.append(f"{which}: {config.init_weights}")
    if config.freeze == "backbone":
        lines.append("only the last layer is trained")
        if config.cache_features:
            lines[-1] += (
                f", on stored features of {config.cache_features} weak and "
                "as many strong views of each image"
            )
    elif config.freeze == "lora":
        lines.append(
            "only the last layer and additions of rank "
            f"{models.LORA_RANK} to kernels are trained"
        )
    elif config.freeze == "fixres":
        lines.append("only the last layer and the last batch norm are trained")
    return lines


def _lengths(config):
    """Lines about stages, ramps and averages, which follow `num_steps`."""
    hp = config.hyperparameters
    lengths = [
        f"{field.name} {getattr(hp, field.name)}"
        for field in dataclasses.fields(hp)
        if hyperparameters.depends_on_length(field)
        and field.name not in hp.without_effect
    ]
    lines = textwrap.wrap(", ".join(lengths), 100)
    # A finetuned network has been trained before.
    for name, steps in hp.scheduled_stage_steps.items():
        if 10 * steps < config.num_steps:
            lines.append(
                f"The exported network is trained for --{name}={steps}, less "
                f"than a tenth of --num_steps={config.num_steps}."
            )
    return lines


def _views(experiment):
    """The policies of the views that the method reads."""
    policy = experiment.augmentation
    hp = experiment.config.hyperparameters
    strong = f", strong: {policy.strong}"
    contrastive = f", contrastive: {policy.contrastive}"
    mirrored = ", none is mirrored" * (not policy.mirror)
    return (
        f"weak: {policy.weak}{strong * hp.uses_strong_policy}"
        f"{contrastive * hp.uses_contrastive_policy}{mirrored}"
    )


def _without_effect(experiment):
    """A line about settings that change nothing, or none."""
    config = experiment.config
    hp = config.hyperparameters
    defaults = {f.name: f.default for f in dataclasses.fields(hp)}
    names = [
        f"--{name} ({why})"
        for name, why in hp.without_effect.items()
        if getattr(hp, name) != defaults[name]
    ]
    if not hp.uses_unlabeled and config.unlabeled_dir:
        names.append(f"--unlabeled_dir (--algo={config.algo})")
    has_its_own = experiment.source.validation_rows is not None
    if has_its_own and config.num_validation > 0:
        names.append("--num_validation (there are validation images)")
    return [("no effect", ", ".join(names))] if names else []


def _data_lines(experiment):
    """The plan's lines about images and splits, `(name, text)` each."""
    config, rows = experiment.config, experiment.splits
    source, info = experiment.source, experiment.source.info
    height, width, channels = info.image_shape
    duplicates = splits.duplicates(source, rows)
    notes = "\n".join(
        [
            *textwrap.wrap(source.description, 100),
            *textwrap.wrap(splits.describe_absent(source, rows), 100),
            splits.describe_duplicates(source, duplicates),
        ]
    )
    return [
        (
            "images",
            f"{info.name} {height}x{width}x{channels}, {info.num_classes} "
            f"classes: {len(rows.labeled)} labeled{_inside(rows, duplicates)}, "
            f"{len(rows.unlabeled)} unlabeled, {len(rows.validation)} "
            f"validation, {len(source.test)} test",
        ),
        ("splits", f"split seed {config.split_seed}, {rows.fingerprint}"),
        *(("", line) for line in _class_balance(experiment)),
        *(("", line) for line in notes.splitlines()),
    ]


def _class_balance(experiment):
    """A line about how few images of a class are made up for, or none."""
    kind = experiment.config.class_balance
    if kind == "none":
        return []
    source, rows = experiment.source, experiment.splits
    counts = np.bincount(
        source.train.labels[rows.labeled], minlength=source.info.num_classes
    )
    what = {
        "sampling": "the labeled batches draw every class equally often",
        "loss": "the labeled loss is weighted by inverse class frequency",
    }[kind]
    return [
        f"{what}; there are {counts.min()} to {counts.max()} labeled images "
        "of a class"
    ]


def _inside(rows, duplicates):
    """How many labeled images are in the unlabeled pool, in brackets."""
    if not len(rows.unlabeled):
        return ""
    count = len(np.intersect1d(rows.labeled, rows.unlabeled))
    count += len(duplicates.get(("labeled", "unlabeled"), ()))
    if count in (0, len(rows.labeled)):
        where = "inside" if count else "outside"
        return f" ({where} the unlabeled pool)"
    return f" ({count} of them inside the unlabeled pool)"


def networks(algorithm):
    """The evaluated networks and their numbers of trainable parameters.

    Batch-norm averages do not count, as in `python -m tf_metassl.summary`. An
    average of the student's parameters has as many as the student, although it
    is not trained itself.

    Args:
        algorithm: an `Algorithm`.

    Returns:
        Text such as `student 140,458 parameters, ema 140,458 parameters`.
    """

    def count(network):
        trained = network.trainable_variables
        trained = trained or algorithm.student.trainable_variables
        return sum(math.prod(variable.shape) for variable in trained)

    return ", ".join(
        f"{role} {count(network):,} parameters"
        for role, network in algorithm.evaluated_networks.items()
    )


def device_kind():
    """`GPU` if TensorFlow sees one, else `CPU`."""
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def unused_time(config, stage):
    """What to do about a stage that did not use up its time budget.

    Args:
        config: the `Config`.
        stage: the `Stage`.
    """
    return (
        f"The {stage.num_steps} steps of {stage.name} took less than "
        f"--time_budget_minutes={config.time_budget_minutes:g}. Raise the "
        "number of steps for a comparison at equal time."
    )


def table(rows):
    """The final table in Markdown.

    Args:
        rows: dicts as `evaluation.final_metrics` makes them, and that of a
            twin; the last one has all columns.
    """
    columns = {
        f"{split}_{name}": f"{split} {title}"
        for split in ("validation", "test")
        for name, title in MEASURES.items()
        if f"{split}_{name}" in rows[-1]
    }
    lines = [
        f"| network | {' | '.join(columns.values())} |",
        f"| --- |{' --: |' * len(columns)}",
    ]
    last_stage = rows[-1]["stage"]
    for row in rows:
        name = row["network"]
        if row["stage"] != "train":
            name = f"{name}, after {row['stage']}"
        if row["deployed"] and row["stage"] == last_stage:
            name += " (exported)"
        numbers = " | ".join(
            f"{row[name]:.4f}" if name in row else "" for name in columns
        )
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines)


def recovery(entry):
    """One recovery of `stage.run_stage` as a sentence.

    Args:
        entry: a dict, see `tf_metassl.run.resume.ResumeState`.
    """
    return (
        f"{entry['what']} at step {entry['at']} of {entry['stage']}: the run "
        f"went back to step {entry['back_to']} and continued with other "
        "batches."
    )


def extension(config, old, new):
    """A sentence about a finished run that was continued.

    Args:
        config: the `Config`.
        old: the number of steps that the run had.
        new: the number that it was given.
    """
    return (
        f"The run was finished at step {old} and then extended to {new} steps. "
        f"From step {old} on its learning rate is that of a run of {new} steps "
        f"(--lr_schedule={config.lr_schedule}); ramps and other lengths are "
        f"those that it began with. A run that has {new} steps from the start "
        "can end with another result."
    )


def stage_events(stage, state, patience):
    """Recoveries and the early end of a stage, a list of sentences.

    Args:
        stage: the `Stage`.
        state: its last `ResumeState`.
        patience: `--patience`.
    """
    said = [recovery(entry) for entry in state.recoveries]
    return [*said, *filter(None, [early_end(stage, state, patience)])]


def early_end(stage, state, patience):
    """A sentence about a stage that its patience has ended; else empty.

    Args:
        stage: the `Stage`.
        state: its last `ResumeState`.
        patience: `--patience`.
    """
    if not state.out_of_patience(patience) or state.step >= stage.num_steps:
        return ""
    return (
        f"The stage {stage.name} ended at step {state.step} of "
        f"{stage.num_steps}: in {patience} evaluations in succession the "
        "validation accuracy was not above "
        f"{state.best_validation:.4f}, the highest before (--patience)."
    )


def write(
    run_dir,
    *,
    plan,
    results,
    events,
    rows,
    confusion,
    class_names,
    evaluations=1,
    compared=None,
):
    """Writes report.md, results.json and the figures.

    A figure that cannot be drawn does not keep the rest from being written.

    Args:
        run_dir: folder of the run.
        plan: text of the plan.
        results: rows of the final table, see `table`.
        events: sentences of all stages, see `stage_events`.
        rows: all rows of metrics.jsonl.
        confusion: `[C, C]` test counts of the exported network; rows are true
            classes.
        class_names: one per class.
        evaluations: how many different results the run has had on the test
            images.
        compared: the `twin.Result`; None without a twin.

    Returns:
        Text that says which file holds what, and the errors of the figures, a
        list of texts.
    """
    run_dir = pathlib.Path(run_dir)
    method = next(line for line in plan.splitlines() if "method" in line)
    found = notes(
        results, events, rows, evaluations, compared, confusion, class_names
    )
    said = "".join(f"- {note}\n" for note in found)
    text = (
        f"# {method.split()[-1]}\n\n```\n{plan}\n```\n\n"
        f"{table(with_twin(results, compared))}\n\n"
        f"{_absent(confusion, class_names)}{said}\n"
        "![Learning curves](learning_curve.png)\n\n"
        "![Confusion matrix of the exported network on the test images]"
        "(confusion_matrix.png)\n"
    )
    files.write_text(run_dir / "report.md", text)
    files.write_text(run_dir / "results.json", json.dumps(results, indent=2))
    figures = {
        "learning_curve.png": lambda: learning_curve(rows),
        "confusion_matrix.png": lambda: confusion_matrix(
            confusion, class_names
        ),
    }
    errors = []
    for name, draw in figures.items():
        picture = io.BytesIO()
        try:
            draw().savefig(picture, format="png", dpi=120)
            files.write_bytes(run_dir / name, picture.getbuffer())
        except Exception as error:
            # Whatever a library says of a name or a number: the run is done.
            errors.append(f"{name}: {type(error).__name__}: {error}")
    places = [
        ("report", "report.md"),
        ("page", "report.html"),
        ("model", "export/1"),
        ("metrics", "metrics.jsonl"),
        ("TensorBoard", "tensorboard"),
        ("checkpoints", "checkpoints"),
    ]
    text = "\n".join(f"{n + ':':<13}{run_dir / p}" for n, p in places)
    return text, errors


def with_twin(results, compared):
    """The rows of the final table, the first one that of a twin.

    Args:
        results: rows of the final table.
        compared: the `twin.Result`; None without a twin.
    """
    row = compared and compared.row
    return [row, *results] if row else results


def notes(
    results,
    events,
    rows,
    evaluations,
    compared=None,
    confusion=None,
    class_names=(),
):
    """What to know about a run and its numbers, a list of sentences.

    Args:
        results: rows of the final table.
        events: sentences of all stages, see `stage_events`.
        rows: of metrics.jsonl.
        evaluations: different results on the test images.
        compared: the `twin.Result`; None without a twin.
        confusion: `[C, C]` test counts of the exported network; rows are true
            classes.
        class_names: one per class.
    """
    found = list(compared.notes) if compared else []
    found += [_test_use(evaluations), _no_validation(results)]
    if confusion is not None:
        found.append(_one_class(confusion, class_names))
    found += [*events, *collapse.notes(rows)]
    return list(filter(None, found))


def _test_use(evaluations):
    """What the test images have been used for, a sentence or two."""
    if evaluations <= 1:
        return (
            "The test images were evaluated once, after training. No "
            "checkpoint was selected by them."
        )
    return (
        f"The test images have been evaluated {evaluations} times with "
        "different results, because the finished run was continued. No "
        "checkpoint was selected by them, but what was decided after the first "
        "evaluation may depend on it."
    )


def _no_validation(results):
    """A sentence about a run without validation images, or nothing."""
    if "validation_accuracy" in results[-1]:
        return ""
    return (
        "No images were held out for validation, so that no setting can be "
        "chosen by this run: choosing one by its test accuracy would make that "
        "accuracy too good."
    )


def _one_class(confusion, class_names):
    """A sentence if all images are predicted to be of one class, or nothing."""
    predicted = confusion.sum(axis=0)
    if np.count_nonzero(predicted) != 1 or np.count_nonzero(confusion) == 1:
        return ""
    name = spelling.one_line(class_names[int(predicted.argmax())])
    return (
        f"The exported network says {name} of every test image: it tells no "
        "class from another."
    )


def _absent(confusion, class_names):
    """A sentence about classes without test images, or the empty string."""
    names = [
        spelling.shortened(name)
        for name, row in zip(class_names, confusion, strict=True)
        if not row.sum()
    ]
    if not names:
        return ""
    return (
        f"{len(names)} of {len(class_names)} classes have no test images and "
        f"do not count for macro-F1: {', '.join(names[:20])}"
        f"{', ...' * (len(names) > 20)}.\n\n"
    )


def learning_curve(rows):
    """Plots losses and accuracies against the step.

    Args:
        rows: rows of metrics.jsonl.

    Returns:
        A matplotlib figure.
    """
    figure = matplotlib.figure.Figure((9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    train = [row for row in rows if row["split"] == "train"]
    held_out = [row for row in rows if row["split"] == "validation"]
    _plot(left, train, [k for k in _names(train) if k.endswith("loss")])
    left.set(title="training", xlabel="step", ylabel="loss")
    shares = [
        k for k in _names(train) if k.endswith(("label_accuracy", "share"))
    ]
    _plot(right, train, shares, linestyle=":")
    _plot(right, held_out, [k for k in _names(held_out) if "accuracy" in k])
    right.set(
        title="validation (solid), pseudo-labels (dotted)",
        xlabel="step",
        ylim=(0, 1),
    )
    for axes in (left, right):
        if axes.get_lines():
            axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    return figure


def confusion_matrix(confusion, class_names):
    """Plots a confusion matrix; colors are shares of the true class.

    Classes are named up to 100 of them, counts are written up to 30.

    Args:
        confusion: `[C, C]` counts; rows are true classes.
        class_names: one per class.

    Returns:
        A matplotlib figure.
    """
    class_names = [spelling.shortened(name) for name in class_names]
    size = min(max(4.0, 0.45 * len(class_names) + 1.5), 16.0)
    if len(class_names) <= 100:
        # Room for long names, which have been shortened.
        size += 0.1 * max(max(map(len, class_names)) - 10, 0)
    figure = matplotlib.figure.Figure((size, size), layout="constrained")
    axes = figure.subplots()
    support = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(confusion / support, cmap="Blues", vmin=0, vmax=1)
    if len(class_names) <= 100:
        ticks = range(len(class_names))
        small = {"fontsize": 6} if len(class_names) > 30 else {}
        # A name may hold dollar signs, which are no formula here.
        small["parse_math"] = False
        axes.set_xticks(ticks, class_names, rotation=90, **small)
        axes.set_yticks(ticks, class_names, **small)
    axes.set(xlabel="predicted", ylabel="true", title="test images")
    if len(class_names) <= 30:
        for (i, j), count in np.ndenumerate(confusion):
            if count:
                dark = count > 0.5 * support[i, 0]
                axes.text(
                    j,
                    i,
                    int(count),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "black",
                )
    return figure


def _names(rows):
    """All metric names in `rows`, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _plot(axes, rows, names, **style):
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name, **style)
