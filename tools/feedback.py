"""Measures what the student's feedback does for Meta Pseudo Labels.

    python tools/feedback.py --out=results --experiment=two_moons --seeds=10

Trains the same teacher and student with every form of the feedback, without it,
with its sign flipped and with the feedback of one image given to another, from
the same seeds. Nothing but the labels reaches the student afterwards: there is
no finetuning, so that the accuracy is that of learning from the teacher alone.

Finished trainings are kept in OUT/feedback.jsonl and not repeated; OUT/
feedback.md has the means and the differences, paired by seed.
"""

import dataclasses
import json
import pathlib
import statistics
import sys
import time

import numpy as np
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl import config as config_lib  # noqa: E402
from tf_metassl import files  # noqa: E402
from tools import table_report  # noqa: E402

FORMS = ("taylor", "dot", "per_example", "exact_soft")
# Row -> settings. Shuffled feedback is per_example's.
ROWS = {
    "off": {"feedback": "off"},
    "off, soft labels": {"feedback": "off", "pseudo_label": "soft"},
    **{form: {"feedback": form} for form in FORMS},
    "per_example, sign flipped": {"feedback_sign": -1},
    "per_example, shuffled": {},
}
# The rows that a row with feedback is compared with.
CONTROLS = {
    **dict.fromkeys(ROWS, "off"),
    "exact_soft": "off, soft labels",
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training in which feedback may matter.

    Attributes:
        text: what it is.
        settings: of the run.
        wrong_labels: share of the labels that are wrong for the teacher's own
            loss; the student's labeled loss, whose change is the feedback, has
            the true ones.
        rows: keys of `ROWS`.
    """

    text: str
    settings: dict
    wrong_labels: float = 0.0
    rows: tuple = tuple(ROWS)


_MOONS = {
    "dataset": "two_moons",
    "uda_weight": 0.0,
    "steps_per_execution": 100,
}
EXPERIMENTS = {
    "two_moons": Experiment(
        "two moons, 6 labels, no UDA (the toy of the paper)", _MOONS
    ),
    "two_moons_wrong": Experiment(
        "two moons, 40 labels, 30 % of them wrong for the teacher",
        {**_MOONS, "num_labeled": 40},
        wrong_labels=0.3,
    ),
    "digits_wrong": Experiment(
        "digits, 100 labels, 40 % of them wrong for the teacher, no UDA",
        {
            "dataset": "digits",
            "num_labeled": 100,
            "uda_weight": 0.0,
            "steps_per_execution": 50,
        },
        wrong_labels=0.4,
        rows=(
            "off",
            "dot",
            "per_example",
            "per_example, sign flipped",
            "per_example, shuffled",
        ),
    ),
}


def wrong(labels, share, num_classes, seed):
    """Labels of which a share is replaced by another class.

    Args:
        labels: `[N]` integers.
        share: of them, rounded down.
        num_classes: C.
        seed: which ones, and by what.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))[: int(share * len(labels))]
    changed = labels.copy()
    shift = rng.integers(1, num_classes, len(rows))
    changed[rows] = (labels[rows] + shift) % num_classes
    return changed


def method(experiment, row, labels, labeled_rows, num_classes, seed):
    """The `MetaPseudoLabels` of an experiment and a row."""
    import tensorflow as tf

    from tf_metassl.algorithms.meta_pseudo_labels import MetaPseudoLabels

    told = labels.copy()
    told[labeled_rows] = wrong(
        labels[labeled_rows], experiment.wrong_labels, num_classes, seed
    )

    class Variant(MetaPseudoLabels):
        def _labeled_loss(self, labeled, logits):
            label = tf.gather(tf.constant(told), labeled["index"])
            return super()._labeled_loss({**labeled, "label": label}, logits)

        def feedback_of_examples(self, before, target):
            h = super().feedback_of_examples(before, target)
            # Images of a batch are in random order: each gets the feedback of
            # another one.
            return tf.roll(h, 1, 0) if row == "per_example, shuffled" else h

    return Variant


def built(name, row, seed):
    """The experiment of a training, ready for its first step."""
    from tf_metassl.data import sources, statistics
    from tf_metassl.run import build

    experiment = EXPERIMENTS[name]
    config = config_lib.resolve(
        {
            "algo": "meta_pseudo_labels",
            "seed": seed,
            "split_seed": seed,
            "verbose": 0,
            "finetune_steps": 0,
            **experiment.settings,
            **ROWS[row],
        }
    )
    whole = build.build_experiment(config, source=sources.load(config.dataset))
    config, source = whole.config, whole.source
    cls = method(
        experiment,
        row,
        source.train.labels,
        whole.splits.labeled,
        source.info.num_classes,
        seed,
    )
    scaling = statistics.scaling(
        config.normalization, config.dataset, source.train, None
    )
    algorithm = build.build_algorithm(
        config, source.info, 1, len(source.train), scaling, cls
    )
    for role in algorithm.roles:
        getattr(algorithm, role).set_weights(
            getattr(whole.algorithm, role).get_weights()
        )
    return dataclasses.replace(whole, algorithm=algorithm)


def train(name, row, seed):
    """Trains one method: its record, a dict."""
    from tf_metassl.run import evaluation

    start = time.monotonic()
    experiment = built(name, row, seed)
    algorithm, config = experiment.algorithm, experiment.config
    algorithm.fit(
        experiment.training_data(algorithm, 0),
        steps_per_epoch=config.num_steps,
        shuffle=False,
        verbose=0,
    )
    measured = evaluation.evaluate(experiment, algorithm, "test")
    return {
        "experiment": name,
        "row": row,
        "seed": seed,
        "seconds": round(time.monotonic() - start, 1),
        **{
            role: round(100 * measured[f"{role}_accuracy"], 2)
            for role in ("student", "teacher")
        },
    }


def gradients(algorithm, batch):
    """The teacher's gradient of every form of the feedback, form -> vector.

    The algorithm's variables are left as they were.
    """
    import tensorflow as tf

    hp = algorithm.hyperparameters
    state = [variable.numpy() for variable in algorithm.state_variables]
    found = {}
    for form in FORMS:
        algorithm.hyperparameters = dataclasses.replace(
            hp, feedback=form, pseudo_label="auto", feedback_baseline=0.0
        )
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        before = algorithm._student_before(labeled, unlabeled)
        variables = [v.value for v in algorithm.trained_variables("teacher")]
        with tf.GradientTape() as tape:
            teacher = algorithm.teacher_pass(labeled, unlabeled)
            scored = algorithm._scored(teacher)
            label = algorithm._label(scored, unlabeled)
            _, gradient = algorithm._update_student(before, label)
            objective, _ = algorithm._feedback(before, gradient, label, scored)
        parts = tape.gradient(objective, variables)
        found[form] = np.concatenate([part.numpy().ravel() for part in parts])
        for variable, value in zip(
            algorithm.state_variables, state, strict=True
        ):
            variable.assign(value)
    algorithm.hyperparameters = hp
    return found


def cosines(name, seed, num_batches=8, num_times=10):
    """How each form points along the exact gradient during a training.

    Args:
        name: key of `EXPERIMENTS`.
        seed: of the training, whose feedback is `per_example`.
        num_batches: on which gradients are averaged at each time.
        num_times: how often, evenly spread.

    Returns:
        A record: form -> mean cosine of one batch, and of the mean gradient.
    """

    def cosine(a, b):
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / lengths) if lengths else 0.0

    experiment = built(name, "per_example", seed)
    algorithm, config = experiment.algorithm, experiment.config
    data = iter(experiment.training_data(algorithm, 0))
    step = algorithm.make_train_function()
    single, averaged = [], []
    every = config.num_steps // num_times
    for _ in range(num_times):
        for _ in range(every // config.steps_per_execution):
            step(data)
        found = [gradients(algorithm, next(data)) for _ in range(num_batches)]
        single += [
            {form: cosine(g[form], g["exact_soft"]) for form in FORMS}
            for g in found
        ]
        mean = {form: np.mean([g[form] for g in found], 0) for form in FORMS}
        averaged.append(
            {form: cosine(mean[form], mean["exact_soft"]) for form in FORMS}
        )
    return {
        "experiment": name,
        "seed": seed,
        "one batch": {f: np.mean([c[f] for c in single]) for f in FORMS},
        "mean of 8": {f: np.mean([c[f] for c in averaged]) for f in FORMS},
    }


def report(records, angles):
    """The page, a text.

    Args:
        records: of `train`.
        angles: of `cosines`.
    """
    lines = [
        "# The student's feedback in Meta Pseudo Labels",
        "",
        "Made by `python tools/feedback.py`. Test accuracy in percent of "
        "student and teacher at the end of the first stage, without finetuning "
        "and without averaging; mean ± standard deviation over n seeds. "
        "Differences are paired by seed, with the interval that holds 95 % of "
        "the means of 10,000 bootstrap samples of the seeds.",
        "",
    ]
    for name, experiment in EXPERIMENTS.items():
        found = {
            row: {
                r["seed"]: r
                for r in records
                if (r["experiment"], r["row"]) == (name, row)
            }
            for row in experiment.rows
        }
        # Differences of single seeds would be read as results.
        if all(len(by_seed) < 3 for by_seed in found.values()):
            continue
        lines += [
            f"## {experiment.text[0].upper()}{experiment.text[1:]}",
            "",
            "| feedback | student | teacher | n | less the row without "
            "feedback, student | interval | teacher | interval |",
            "| --- | --: | --: | --: | --: | --: | --: | --: |",
        ]
        for row, by_seed in found.items():
            if by_seed:
                lines.append(_line(row, by_seed, found[CONTROLS[row]]))
        of_name = [angle for angle in angles if angle["experiment"] == name]
        if of_name:
            lines += ["", *_angles(of_name)]
        lines.append("")
    return "\n".join(lines)


def _line(row, by_seed, control):
    """A row of the table: means, and differences to another row."""
    texts = [row]
    for role in ("student", "teacher"):
        texts.append(
            table_report.mean_and_deviation([r[role] for r in by_seed.values()])
        )
    texts.append(str(len(by_seed)))
    for role in ("student", "teacher"):
        seeds = sorted(by_seed.keys() & control.keys())
        values = [by_seed[s][role] - control[s][role] for s in seeds]
        if by_seed is control or len(values) < 2:
            texts += ["", ""]
            continue
        low, high = table_report.bootstrap_interval(values)
        texts.append(f"{statistics.mean(values):+.1f}")
        texts.append(f"{low:+.1f} … {high:+.1f}")
    return f"| {' | '.join(texts)} |"


def _angles(records):
    """Lines with the cosines of every form."""
    lines = [
        "Cosine of the teacher's gradient of each form to that of exact_soft, "
        f"during trainings from {len(records)} seeds:",
        "",
        "| gradient of | " + " | ".join(FORMS[:-1]) + " |",
        "| --- |" + " --: |" * len(FORMS[:-1]),
    ]
    for kind, text in (
        ("one batch", "one batch"),
        ("mean of 8", "the mean of 8 batches"),
    ):
        values = [
            f"{statistics.mean(r[kind][form] for r in records):.2f}"
            for form in FORMS[:-1]
        ]
        lines.append(f"| {text} | {' | '.join(values)} |")
    return lines


def read(path):
    """The records of a file, a list; empty without the file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def main(argv):
    """Trains what is missing and writes the page."""
    from tf_metassl.run import command_line

    if argv[1:]:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    command_line.quieten()
    flags_ = flags.FLAGS
    out = pathlib.Path(flags_.out)
    out.mkdir(parents=True, exist_ok=True)
    path, angles_path = out / "feedback.jsonl", out / "feedback_cosines.jsonl"
    chosen = [flags_.experiment] if flags_.experiment else list(EXPERIMENTS)
    for name in chosen:
        for seed in range(flags_.seeds):
            for row in EXPERIMENTS[name].rows:
                done = {
                    (r["experiment"], r["row"], r["seed"]) for r in read(path)
                }
                if (name, row, seed) in done:
                    continue
                record = train(name, row, seed)
                print(record, flush=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
        for seed in range(min(flags_.seeds, flags_.cosine_seeds)):
            done = {(r["experiment"], r["seed"]) for r in read(angles_path)}
            if (name, seed) not in done:
                record = cosines(name, seed)
                print(record, flush=True)
                with angles_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
    text = report(read(path), read(angles_path))
    files.write_text(out / "feedback.md", text)


if __name__ == "__main__":
    flags.DEFINE_string("out", "results", "Folder of the records.")
    flags.DEFINE_enum(
        "experiment", None, sorted(EXPERIMENTS), "Which; all if not given."
    )
    flags.DEFINE_integer("seeds", 10, "Trainings of each row.")
    flags.DEFINE_integer("cosine_seeds", 3, "Trainings to compare gradients.")
    app.run(main)
