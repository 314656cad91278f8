"""The supervised twin of a run, and whether the run is better than it.

The twin is the network of the method's student with the same initial weights,
trained on the labels alone: the same labeled images and weak views step by
step, the same optimizer and number of steps. A run that is not better than its
twin has gained nothing from its unlabeled images.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_metassl import options
from tf_metassl.algorithms.algorithm import Algorithm, Stage
from tf_metassl.algorithms.supervised import Supervised
from tf_metassl.data import spelling
from tf_metassl.run.build import Experiment

# Name of the twin's stage, and of the folders of its files.
NAME = "twin"

NOT_COMPARED = (
    "No supervised twin was trained: without validation images the run cannot "
    "be compared with it, and whether the unlabeled images helped is not "
    "known. Hold images out with --num_validation."
)

# The unlabeled images that are predicted if the run is not better.
MAX_POOL = 5000

# A larger share of pseudo-labels in other classes than the labels is much.
_LARGE_SHIFT = 0.2
# A smaller share of selected pseudo-labels is little.
_SMALL_SELECTED = 0.1
# The normal distribution's quantile 0.975.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Pairs:
    """How often a run and its twin are right on the same images.

    Attributes:
        num_images: the images that both have classified.
        only_run: images that only the run classifies correctly.
        only_twin: images that only the twin classifies correctly.
    """

    num_images: int
    only_run: int
    only_twin: int

    @property
    def difference(self) -> float:
        """The accuracy of the run minus that of its twin."""
        return (self.only_run - self.only_twin) / self.num_images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference.

        It is Wald's with one more image of either kind (Bonett and Price,
        2012), which holds its level with few images and where all of them
        agree.
        """
        total = self.num_images + 2
        run, twin = (self.only_run + 1) / total, (self.only_twin + 1) / total
        spread = _Z * math.sqrt((run + twin - (run - twin) ** 2) / total)
        return max(run - twin - spread, -1.0), min(run - twin + spread, 1.0)

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `undecided` if the interval holds 0."""
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "undecided"

    @property
    def images_needed(self) -> int:
        """Images with which the same difference would be beyond its interval.

        0 if the run is not ahead at all.
        """
        if self.difference <= 0:
            return 0
        low, high = self.interval
        ratio = (high - low) / 2 / self.difference
        return math.ceil(self.num_images * ratio**2)


@dataclasses.dataclass(frozen=True)
class Pool:
    """What the run makes of the unlabeled images.

    Attributes:
        num_images: how many of them were predicted.
        shift: the share of the predictions that would have to be of another
            class for their classes to be as frequent as those of the labels.
        label: the class that is predicted too often by most.
        predicted_share: its share of the predictions.
        labeled_share: its share of the labels.
    """

    num_images: int
    shift: float
    label: int
    predicted_share: float
    labeled_share: float


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run says about its twin.

    Attributes:
        notes: sentences for the report.
        row: the twin's row of the final table; None if it has none.
        record: content of `twin.json`; empty if there is none.
    """

    notes: Sequence[str]
    row: Mapping[str, Any] | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def share_of_images(experiment: Experiment) -> float:
    """The images of a step of the twin, as a share of those of the run.

    Every view counts. Further networks, passes and stages of a method do not:
    the twin costs at most this share of the run.
    """
    pools = experiment.pools(experiment.algorithm)
    views = sum(pool.batch_size * len(pool.views) for pool in pools)
    return experiment.config.batch_size / views


def wanted(experiment: Experiment) -> bool:
    """Whether the run is to have a twin, see `--supervised_twin`."""
    config = experiment.config
    if not config.hyperparameters.uses_unlabeled:
        return False
    if config.supervised_twin == "auto":
        return (
            config.num_steps >= options.TWIN_STEPS
            and share_of_images(experiment) < options.TWIN_SHARE
        )
    return config.supervised_twin == "on"


def line(experiment: Experiment) -> str:
    """What the plan says of the twin; empty if there is none."""
    if not wanted(experiment):
        return ""
    if not experiment.has_validation:
        return "none: there are no validation images to compare it on"
    config = experiment.config
    return (
        f"supervised, on the labels alone: {config.num_steps} steps of "
        f"{config.batch_size} images, at most "
        f"{100 * share_of_images(experiment):.1f} % of the cost of the run"
    )


def limited(experiment: Experiment) -> Experiment:
    """The experiment with the twin's share of `--time_budget_minutes`."""
    minutes = experiment.config.time_budget_minutes
    minutes *= share_of_images(experiment)
    config = dataclasses.replace(experiment.config, time_budget_minutes=minutes)
    return dataclasses.replace(experiment, config=config)


def stage(experiment: Experiment) -> Stage:
    """The twin as a stage of the run, which is trained after all others."""

    def build() -> Algorithm:
        # The weights with which the run began.
        keras.utils.set_random_seed(experiment.config.seed)
        return experiment.algorithm.rebuild(
            experiment.config.num_steps, cls=Supervised
        )

    return Stage(NAME, experiment.config.num_steps, build)


def pairs(run: np.ndarray, twin: np.ndarray, labels: np.ndarray) -> Pairs:
    """Compares two predictions of the same images.

    Args:
        run: `[N, C]` logits of the run.
        twin: `[N, C]` logits of its twin.
        labels: `[N]` integers.
    """
    run_right, twin_right = (
        logits.argmax(axis=1) == labels for logits in (run, twin)
    )
    return Pairs(
        len(labels),
        int(np.sum(run_right & ~twin_right)),
        int(np.sum(twin_right & ~run_right)),
    )


def pool(logits: np.ndarray, labels: np.ndarray) -> Pool:
    """Compares the classes of predictions with those of the labels.

    Args:
        logits: `[M, C]` of unlabeled images.
        labels: `[N]` integers of the labeled ones.
    """
    num_classes = logits.shape[1]
    predicted, labeled = (
        np.bincount(values, minlength=num_classes) / len(values)
        for values in (logits.argmax(axis=1), labels)
    )
    excess = predicted - labeled
    label = int(excess.argmax())
    return Pool(
        len(logits),
        float(np.abs(excess).sum() / 2),
        label,
        float(predicted[label]),
        float(labeled[label]),
    )


def selected_share(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of pseudo-labels that the run selected last.

    Args:
        rows: of metrics.jsonl.

    Returns:
        None if the method does not measure it.
    """
    found = [row["selected_share"] for row in rows if "selected_share" in row]
    return found[-1] if found else None


def notes(
    pairs: Pairs,
    label_counts: Sequence[int],
    pool: Pool | None,
    selected: float | None,
    class_names: Sequence[str],
) -> list[str]:
    """What a report says of a run and its twin, a list of sentences.

    Args:
        pairs: of the validation images.
        label_counts: labeled images of each class.
        pool: of the unlabeled images; None if they have not been predicted.
        selected: see `selected_share`.
        class_names: one per class.
    """
    low, high = (100 * bound for bound in pairs.interval)
    evidence = (
        f"of {pairs.num_images} validation images, {pairs.only_run} are "
        "classified correctly by the exported network alone and "
        f"{pairs.only_twin} by its supervised twin alone, a difference of "
        f"{100 * pairs.difference:+.1f} points (95 % interval {low:+.1f} to "
        f"{high:+.1f})."
    )
    if pairs.verdict == "better":
        return [f"The run is better than supervised training: {evidence}"]
    if pairs.verdict == "worse":
        found = [
            f"The unlabeled images have done harm: {evidence} Check what they "
            "show, or train with --algo=supervised."
        ]
    else:
        found = [
            "The run is not shown to be better than supervised training: "
            f"{evidence}",
            _too_few_images(pairs),
        ]
    least = min(range(len(label_counts)), key=label_counts.__getitem__)
    found.append(
        f"{sum(label_counts)} labeled images of {len(label_counts)} classes; "
        f"the fewest, {label_counts[least]}, are of class "
        f"{spelling.one_line(class_names[least])}."
    )
    if pool:
        found.append(_shifted(pool, class_names))
    if selected is not None:
        little = " So few add little to the labels."
        found.append(
            f"At the last evaluation {100 * selected:.1f} % of the "
            "pseudo-labels were selected."
            + little
            * (selected < _SMALL_SELECTED)
        )
    return found


def _too_few_images(pairs: Pairs) -> str:
    """How much the validation images can show, a sentence or two."""
    low, high = pairs.interval
    text = (
        f"With {pairs.num_images} validation images the interval is "
        f"{100 * (high - low):.1f} points wide."
    )
    if pairs.images_needed > pairs.num_images:
        text += (
            f" About {pairs.images_needed:,} would show this difference: raise "
            "--num_validation, or compare runs with several seeds."
        )
    return text


def _shifted(pool: Pool, class_names: Sequence[str]) -> str:
    """How the classes of the pseudo-labels differ from those of the labels."""
    text = (
        f"The classes of the pseudo-labels and of the labels differ by "
        f"{100 * pool.shift:.1f} % of {pool.num_images:,} unlabeled images"
    )
    if pool.shift:
        name = spelling.one_line(class_names[pool.label])
        text += (
            f", most of all class {name}: {100 * pool.predicted_share:.1f} % "
            f"of the pseudo-labels, {100 * pool.labeled_share:.1f} % of the "
            "labels"
        )
    much = (
        " That is much: the unlabeled images may be of other classes, or "
        "their classes of other frequencies."
    )
    return f"{text}.{much * (pool.shift >= _LARGE_SHIFT)}"


def record(
    pairs: Pairs,
    row: Mapping[str, Any],
    share: float,
    pool: Pool | None,
    selected: float | None,
) -> dict[str, Any]:
    """The content of `twin.json`.

    Args:
        pairs: of the validation images.
        row: the twin's row of the final table.
        share: see `share_of_images`.
        pool: of the unlabeled images; None if they have not been predicted.
        selected: see `selected_share`.
    """
    return {
        **{k: v for k, v in row.items() if k.startswith("validation_")},
        "share_of_images": share,
        **dataclasses.asdict(pairs),
        "difference": pairs.difference,
        "interval": list(pairs.interval),
        "verdict": pairs.verdict,
        "pseudo_labels": dataclasses.asdict(pool) if pool else None,
        "selected_share": selected,
    }
