"""Writes flags/ from the table in tools/settings.py.

    python tools/make_flagfiles.py            writes flags/
    python tools/make_flagfiles.py --check    fails if flags/ is out of date
    python tools/make_flagfiles.py --costs    counts the FLOPs of the networks
                                              before it writes

Writes a flagfile per run, and flags/README.md with a line per number in the
tables. flags/flops.json holds the FLOPs per image of every network, because
counting them takes TensorFlow and minutes. The hours in the flagfiles are

    steps * images per step * passes * FLOPs / (peak of the GPU * utilization)

where `PASSES` says to how many forward passes per image the work of a method
amounts. Augmentation, evaluation and the short finetuning stage are left out.
"""

import argparse
import json
import pathlib
import sys
import textwrap
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl import config  # noqa: E402
from tools import settings  # noqa: E402

FLAGS = ROOT / "flags"
GPU = "NVIDIA A100"
# From its data sheet, in operations per second. float32 is computed as TF32.
PEAK = {"mixed_bfloat16": 312e12, "float32": 156e12}
UTILIZATION = 0.3

# Method -> forward passes per labeled and per unlabeled image and step. A
# gradient counts as 2 further passes, and so does a forward-mode derivative.
PASSES = {
    "supervised": (3, 0),
    "supervised_mixup": (3, 0),
    "label_smoothing": (3, 0),
    "randaugment": (3, 0),
    "pi_model": (3, 6),
    "temporal_ensembling": (3, 3),
    "mean_teacher": (3, 4),
    "fast_swa": (3, 4),
    # A clean pass; one for a random direction and one for the adversarial one,
    # both with gradients. `passes` adds the entropy loss.
    "vat": (3, 7),
    # Labeled: the gradient is computed twice, to align and to update.
    # Unlabeled: a pass with the gradient to align, its derivative by the
    # labels and the gradient of the update; VAT without its clean pass.
    "lga": (5, 13),
    "sntg": (3, 6),
    # The decoder counts as much as the network.
    "swwae": (3, 6),
    # A real image; two generated ones, with gradients for both networks. The
    # generator itself is left out.
    "cc_gan": (3, 13),
    "ict": (3, 4),
    # Labeled images: in the mixed batch, and again for the meta loss.
    "learning_to_reweight": (8, 6),
    "meta_semi": (8, 6),
    "meta_semi_ict": (8, 6),
    "mixmatch": (3, 8),
    # Unlabeled: a guess without gradient; with gradients a mixed view, an
    # unmixed and a rotated one. Mixed strong views are added below. Labeled:
    # also a probe without gradient.
    "remixmatch": (4, 10),
    # A guess from two views without gradient; with gradients two mixed views,
    # an unmixed one and five transformed ones.
    "enaet": (3, 26),
    "fixmatch": (3, 6),
    "uda": (3, 6),
    "noisy_student": (3, 3),
    "billion_scale": (3, 3),
    # Labeled: features for the probe, without gradient. Unlabeled: two views
    # with gradients, of BYOL also by the target; of MoCo one by each.
    "simclr": (1, 6),
    "byol": (1, 8),
    "moco_v2": (1, 4),
    "pcl": (1, 4),
    # The image and nine patches of half its sides, with gradients.
    "pirl": (1, 10),
    # Teacher: all views. Student: a strong view, its derivative in a separate
    # pass, and the gradient of the labeled loss.
    "meta_pseudo_labels": (6, 12),
}


class Run(typing.NamedTuple):
    """A flagfile.

    Attributes:
        cells: the cells with this path; all have the same settings.
        config: the resolved `Config`.
    """

    cells: list
    config: config.Config

    @property
    def network(self):
        """Its key in flags/flops.json: network, image shape and classes."""
        task = self.cells[0].task
        channels = 1 if task.name.startswith("digits") else 3
        size = task.image_size
        return f"{self.config.model} {size}x{size}x{channels} {task.classes}"


def runs():
    """All flagfiles, path below flags/ -> `Run`.

    Raises:
        ValueError: if cells with one path differ in a setting.
        ConfigError: if a setting is not allowed.
    """
    found = {}
    for cell in settings.cells():
        values = {name: s.value for name, s in cell.settings.items()}
        resolved = config.resolve({"algo": cell.method, **values})
        run = found.setdefault(cell.path, Run([], resolved))
        if run.config != resolved:
            raise ValueError(
                f"Cells with the path {cell.path} have different settings, "
                f"among them {cell.row}. Give them different variants."
            )
        run.cells.append(cell)
    return dict(sorted(found.items()))


def passes(run):
    """Forward passes per labeled and unlabeled image of a run.

    `PASSES`, changed as the hyperparameters of the run require.
    """
    labeled, unlabeled = PASSES[run.config.algo]
    hp = run.config.hyperparameters
    if _is_regularizer(run):
        # The teacher, the student with its derivative, the meta loss.
        return 3 + 6 + 3, 0
    if getattr(hp, "sntg_base", "") == "temporal_ensembling":
        unlabeled = PASSES["temporal_ensembling"][1]
    if run.config.algo == "vat" and hp.entropy_weight:
        # The clean pass has a gradient as well.
        unlabeled += 2
    if run.config.algo == "remixmatch":
        unlabeled += 3 * hp.num_strong_views
    # A sharpness-aware step sees its batch twice.
    times = 2 if run.config.sam_rho else 1
    return times * labeled, times * unlabeled


def images_per_step(run):
    """`(labeled, unlabeled)`; unlabeled is 0 if the method uses none."""
    labeled = run.config.batch_size
    uses = bool(passes(run)[1])
    return labeled, labeled * run.config.unlabeled_batch_ratio * uses


def _is_regularizer(run):
    hp = run.config.hyperparameters
    return getattr(hp, "mpl_unlabeled", "") == "labeled"


def num_steps(run):
    """`(steps, steps with unlabeled images)` of all stages but finetuning."""
    hp = run.config.hyperparameters
    if run.config.algo == "billion_scale":
        return run.config.num_steps, hp.student_steps
    rounds = getattr(hp, "num_rounds", 0) * getattr(hp, "round_steps", 0)
    # The first teacher is trained on labeled images alone.
    return run.config.num_steps + rounds, rounds or run.config.num_steps


def hours(run, flops):
    """Estimated hours on one `GPU`.

    Args:
        run: a `Run`.
        flops: of a forward pass per image.
    """
    per_labeled, per_unlabeled = passes(run)
    labeled, unlabeled = images_per_step(run)
    steps, unlabeled_steps = num_steps(run)
    count = steps * labeled * per_labeled
    count += unlabeled_steps * unlabeled * per_unlabeled
    return count * flops / (PEAK[run.config.precision] * UTILIZATION) / 3600


def flops_by_network(keys):
    """Counts the FLOPs per image of networks, key -> operations."""
    from tf_metassl import models
    from tf_metassl.models import costs

    counted = {}
    for key in sorted(keys):
        name, shape, classes = key.split()
        shape = tuple(map(int, shape.split("x")))
        with costs.shapes_only():
            network = models.build(name, shape, int(classes))
        counted[key] = costs.of(network).flops
    return counted


def _paragraph(text):
    lines = textwrap.wrap(text, 77, break_on_hyphens=False)
    return [f"# {line}" for line in lines]


def flagfile(path, run, flops):
    """The text of a flagfile.

    Args:
        path: below flags/.
        run: a `Run`.
        flops: of a forward pass of its network per image.
    """
    cell, task = run.cells[0], run.cells[0].task
    lines = ["# Written by tools/make_flagfiles.py; do not edit.", "#"]
    lines += _paragraph(f"{cell.method} on {task.text}, {run.config.model}:")
    for other in run.cells:
        lines += _paragraph(f"- {other.table}, {other.row}: {other.number}")
    lines += ["#", "#   python -m tf_metassl.train \\"]
    lines += [f"#     --flagfile=flags/{path}", "#"]
    for note in _notes(run):
        lines += [*_paragraph(note), "#"]
    lines += _costs(run, flops)
    lines += ["#", "# All other flags have the defaults that --help shows."]
    lines.append(f"--algo={cell.method}")
    for source in settings.SOURCES:
        mine = {k: s for k, s in cell.settings.items() if s.source == source}
        if mine:
            lines += ["", *_paragraph(f"{source}.")]
            lines += [f"--{k}={_text(s.value)}" for k, s in mine.items()]
    return "\n".join(lines) + "\n"


def _notes(run):
    """What a reader of the flagfile should know, paragraphs."""
    cell, task = run.cells[0], run.cells[0].task
    notes = []
    if task.missing:
        notes.append(f"This file needs further flags: {task.missing}")
    note = settings.NOTES.get(cell.method)
    if cell.method == "noisy_student":
        size = 4e-9 * task.images * task.classes
        note += f" They take {size:,.0f} GB for this task."
    notes.append(note)
    tables = dict.fromkeys(other.table for other in run.cells)
    notes += [settings.TABLE_NOTES.get(table) for table in tables]
    return list(filter(None, notes))


def _costs(run, flops):
    """The length of a run and its estimated time, lines of comments."""
    task = run.cells[0].task
    labeled, unlabeled = images_per_step(run)
    steps, unlabeled_steps = num_steps(run)
    needed, budget = hours(run, flops), run.config.time_budget_minutes / 60
    if budget:
        # As many steps as fit into the budget, by the same estimate.
        steps = unlabeled_steps = int(steps * budget / needed)
        length = f"{budget:g} hours, over which the learning rate decays"
        estimate = f"{float(f'{steps:.2g}'):,.0f} steps in this time"
    else:
        length = f"{steps:,} steps"
        estimate = f"{_rounded(needed)} hours"
    epochs = (
        f"{steps * labeled / task.labels:,.0f} epochs of the labeled images"
    )
    if unlabeled:
        images = task.images
        if not run.config.labeled_inside_unlabeled:
            images -= task.labels
        epochs += (
            f" and {unlabeled_steps * unlabeled / images:,.1f} epochs of the "
            f"{images:,} unlabeled images"
        )
    return [
        *_paragraph(f"{length}: {epochs}."),
        *_paragraph(
            f"Estimated, not measured: {estimate} on one {GPU} at "
            f"{UTILIZATION:.0%} of {PEAK[run.config.precision] / 1e12:.0f} "
            f"TFLOP/s, with {flops / 1e9:.3g} GFLOPs per image and forward "
            "pass."
        ),
    ]


def _rounded(value):
    if value < 10:
        return f"{value:.2g}"
    return f"{float(f'{value:.2g}'):,.0f}"


def _text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def index():
    """The text of flags/README.md: every number and its flagfile."""
    lines = [
        "<!-- Written by tools/make_flagfiles.py; do not edit. -->",
        "",
        "# Flagfiles",
        "",
        "A flagfile holds the flags of one run of the tables and figures of "
        "Meta Pseudo Labels (arXiv 2003.10580) and Meta-Semi (arXiv "
        "2007.02394). The numbers below are those of the papers; none was "
        "measured here. A run that appears in several tables has one file. "
        "Rows whose method or network is not implemented here have no file.",
    ]
    tables = {}
    for cell in settings.cells():
        tables.setdefault(cell.table, []).append(cell)
    for table, cells in tables.items():
        lines += ["", f"## {table}", ""]
        if note := settings.TABLE_NOTES.get(table):
            lines += [note, ""]
        if missing := settings.NOT_OFFERED.get(table):
            lines += [f"Rows without a file: {missing}.", ""]
        lines += ["| row | data | number | file |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {cell.row} | {cell.task.text} | {cell.number} "
            f"| [{cell.path}]({cell.path}) |"
            for cell in cells
        ]
    return "\n".join(lines) + "\n"


def files(flops):
    """The files that flags/ must hold, path below flags/ -> text.

    Args:
        flops: operations per image by network, see `Run.network`.
    """
    found = runs()
    texts = {
        path: flagfile(path, run, flops[run.network])
        for path, run in found.items()
    }
    texts["README.md"] = index()
    texts["flops.json"] = json.dumps(flops, indent=2) + "\n"
    return texts


def drifted(texts):
    """Paths below flags/ that differ from `texts`, are missing or surplus."""
    there = {
        p.relative_to(FLAGS).as_posix(): p
        for p in FLAGS.rglob("*")
        if p.is_file()
    }
    return sorted(
        path
        for path in there.keys() | texts.keys()
        if path not in texts
        or path not in there
        or there[path].read_text("utf-8") != texts[path]
    )


def main():
    """Writes flags/, or compares it with tools/settings.py."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--costs", action="store_true", help="count FLOPs")
    arguments = parser.parse_args()
    if arguments.costs:
        flops = flops_by_network({run.network for run in runs().values()})
    else:
        flops = json.loads((FLAGS / "flops.json").read_text("utf-8"))
    texts = files(flops)
    different = drifted(texts)
    if arguments.check and different:
        sys.exit(
            f"Out of date: {', '.join(different)}. Run python "
            "tools/make_flagfiles.py to write them from tools/settings.py."
        )
    if not arguments.check:
        for path in different:
            file = FLAGS / path
            if path not in texts:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(texts[path], "utf-8")


if __name__ == "__main__":
    main()
