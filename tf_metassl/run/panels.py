"""What the exported network says of images, for the report of a run.

Everything is computed once, at the end of a run: how far its confidences can
be trusted, the test images that it gets wrong most confidently, what it makes
of the unlabeled pool, and the limits of the measurement.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_metassl.contract import FOREIGN
from tf_metassl.data import image_ops, spelling
from tf_metassl.data.datasets import DATASETS, TFDS
from tf_metassl.data.store import Images
from tf_metassl.run import calibration
from tf_metassl.run.build import Experiment
from tf_metassl.run.calibration import Calibration, Reliability
from tf_metassl.run.measurement import wilson_interval
from tf_metassl.run.page_parts import number

# Test images shown, and unlabeled images predicted.
_SHOWN, _MAX_POOL = 12, 5000
# Bars of the histogram of confidences.
_BARS = 20
# A class with fewer labeled images has few, and an interval of the validation
# accuracy that is wider is wide.
_FEW_LABELS, _WIDE = 10, 0.05
# Bounds of an accuracy that are further apart say too little.
_MAX_GAP = 0.1
# Class names in a sentence.
_NAMES = 10
# How a source says that its test images were held out.
_HELD_OUT = "held out because no others are given"


@dataclasses.dataclass(frozen=True)
class Confidence:
    """How right the exported network is at each confidence.

    Attributes:
        split: `test` or `validation`, the images that it is measured on.
        before: a `Reliability`, without the temperature.
        after: with the temperature; None if no temperature was fitted.
    """

    split: str
    before: Reliability
    after: Reliability | None

    @property
    def num_images(self) -> int:
        """How many images it is measured on."""
        return int(self.before.count.sum())


class Mistake(NamedTuple):
    """A test image that the exported network gets wrong.

    Attributes:
        pixels: `[H, W, C]` uint8.
        actual: its class.
        predicted: what the network says.
        confidence: the calibrated probability of that.
    """

    pixels: np.ndarray
    actual: str
    predicted: str
    confidence: float


class PoolClass(NamedTuple):
    """The unlabeled images that are predicted to be of one class.

    Attributes:
        name: of the class.
        count: how many.
        known: for how many of them the true class is known.
        right: for how many of those it is this one.
    """

    name: str
    count: int
    known: int
    right: int


@dataclasses.dataclass(frozen=True)
class Pool:
    """What the exported network makes of the unlabeled images.

    Attributes:
        confidences: `[N]` of the images predicted.
        classes: a `PoolClass` for each class.
        histogram: `[20]` counts of the confidences in (0, 0.05], ...
        sentences: which images these are and how many are right.
        selection: what training selected, sentences.
    """

    confidences: np.ndarray
    classes: Sequence[PoolClass]
    histogram: np.ndarray
    sentences: Sequence[str]
    selection: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Panels:
    """The parts of a report that need predictions.

    Attributes:
        confidence: None without test and validation images.
        mistakes: the most confident ones, at most 12.
        pool: None if the method uses no unlabeled images or there are none.
        limits: sentences.
    """

    confidence: Confidence | None = None
    mistakes: Sequence[Mistake] = ()
    pool: Pool | None = None
    limits: Sequence[str] = ()


def collect(
    experiment: Experiment,
    predict: Callable[[Images], np.ndarray],
    fitted: Calibration,
    rows: Sequence[Mapping[str, Any]],
    validation_accuracy: float | None,
) -> Panels:
    """Predicts the test images and the unlabeled pool.

    Args:
        experiment: of a run that has been trained.
        predict: images as networks see them -> `[N, C]` logits of the exported
            network.
        fitted: its `Calibration`.
        rows: of metrics.jsonl.
        validation_accuracy: of the exported network; None without validation
            images.
    """
    names = [spelling.one_line(n) for n in experiment.source.info.class_names]
    source = experiment.source
    test = experiment.seen.test
    logits = predict(test)
    if len(test):
        found = confidence("test", logits, test.labels, fitted)
    elif experiment.has_validation:
        images = experiment.validation_images
        found = confidence("validation", predict(images), images.labels, fitted)
    else:
        found = None
    return Panels(
        found,
        mistakes(logits, source.test, source.info.image_shape, fitted, names),
        _pool(experiment, predict, fitted, rows, names),
        limits(
            names,
            test_counts=np.bincount(source.test.labels, minlength=len(names)),
            label_counts=np.bincount(
                source.train.labels[experiment.splits.labeled],
                minlength=len(names),
            ),
            num_validation=len(experiment.splits.validation),
            validation_accuracy=validation_accuracy,
            size=_size(experiment),
            chosen=_test_choice(experiment) if len(test) else "",
        ),
    )


def confidence(
    split: str, logits: np.ndarray, labels: np.ndarray, fitted: Calibration
) -> Confidence:
    """Measures confidences with and without the temperature.

    Args:
        split: name of the images.
        logits: `[N, C]`.
        labels: `[N]` integers.
        fitted: a `Calibration`.
    """
    before = Calibration().probabilities(logits)
    after = None
    if fitted.num_images:
        after = calibration.reliability(fitted.probabilities(logits), labels)
    return Confidence(split, calibration.reliability(before, labels), after)


def mistakes(
    logits: np.ndarray,
    images: Images,
    image_shape: Sequence[int],
    fitted: Calibration,
    class_names: Sequence[str],
) -> list[Mistake]:
    """The images that are wrong with the highest confidence.

    Args:
        logits: `[N, C]`.
        images: the N `Images`, as pictures.
        image_shape: height, width and channels of what the network sees, the
            center of an image.
        fitted: a `Calibration`.
        class_names: one per class.

    Returns:
        At most 12, the most confident first; none if the images have other
        than 1 or 3 channels.
    """
    height, width, channels = image_shape
    if channels not in (1, 3) or not len(images):
        return []
    probs = fitted.probabilities(logits)
    predicted, sure = logits.argmax(axis=1), probs.max(axis=1)
    wrong = np.flatnonzero(predicted != images.labels)
    chosen = wrong[np.argsort(-sure[wrong], kind="stable")[:_SHOWN]]
    pixels = image_ops.center_crop(images.read(chosen), height, width)
    return [
        Mistake(
            picture,
            class_names[images.labels[k]],
            class_names[predicted[k]],
            float(sure[k]),
        )
        for picture, k in zip(pixels, chosen, strict=True)
    ]


def _pool(
    experiment: Experiment,
    predict: Callable[[Images], np.ndarray],
    fitted: Calibration,
    rows: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
) -> Pool | None:
    splits, labels = experiment.splits, experiment.source.train.labels
    candidates = np.setdiff1d(splits.unlabeled, splits.labeled)
    uses = experiment.config.hyperparameters.uses_unlabeled
    if not uses or not len(candidates):
        return None
    chosen = np.random.default_rng(0).permutation(candidates)
    chosen = np.sort(chosen[:_MAX_POOL])
    logits = predict(experiment.seen.train.take(chosen))
    # What is known of labeled images is hidden from the metrics of training.
    known = np.sum(labels[candidates] >= 0) / len(splits.unlabeled)
    found = pool(
        logits,
        labels[chosen],
        fitted,
        class_names,
        num_unlabeled=len(splits.unlabeled),
        num_labeled=len(splits.unlabeled) - len(candidates),
    )
    said = selection(
        rows, float(known), experiment.algorithm.selects_whole_images
    )
    return dataclasses.replace(found, selection=said)


def pool(
    logits: np.ndarray,
    labels: np.ndarray,
    fitted: Calibration,
    class_names: Sequence[str],
    *,
    num_unlabeled: int,
    num_labeled: int,
) -> Pool:
    """What is predicted for unlabeled images.

    Args:
        logits: `[N, C]`.
        labels: `[N]` integers; negative where unknown or of no class.
        fitted: a `Calibration`.
        class_names: one per class.
        num_unlabeled: images in the whole pool.
        num_labeled: how many of them are labeled ones, which are not among
            the N.
    """
    num_classes = len(class_names)
    predicted = logits.argmax(axis=1)
    sure = fitted.probabilities(logits).max(axis=1)
    count, known, right = (
        np.bincount(predicted[mask], minlength=num_classes).tolist()
        for mask in (slice(None), labels >= 0, labels == predicted)
    )
    bars = np.ceil(sure * _BARS).astype(int) - 1
    drawn = len(labels) < num_unlabeled - num_labeled
    text = [
        f"The exported network was run on {number(len(labels), 'image')} of "
        f"the unlabeled pool of {num_unlabeled:,}"
        + ", drawn at random with a fixed seed" * drawn
        + "."
    ]
    if num_labeled:
        text.append(
            f"The pool holds {number(num_labeled, 'labeled image')} as well, "
            f"which {'is' if num_labeled == 1 else 'are'} left out."
        )
    if total := sum(known):
        which = f"{total:,} of the" if total < len(labels) else "all"
        text.append(
            f"The true classes of {which} {len(labels):,} images are "
            "known, because the dataset has them, and were not used in "
            f"training. {_percent(sum(right) / total)} of these predictions "
            "are right."
        )
    else:
        text.append("The true classes of the images are not known.")
    if foreign := int(np.sum(labels == FOREIGN)):
        text.append(
            f"{number(foreign, 'image')} "
            f"{'is' if foreign == 1 else 'are'} of classes that the network "
            "does not have; they do not count for precision."
        )
    return Pool(
        sure,
        [
            PoolClass(*row)
            for row in zip(class_names, count, known, right, strict=True)
        ],
        np.bincount(bars, minlength=_BARS),
        text,
    )


def selection(
    rows: Sequence[Mapping[str, Any]], known: float, whole: bool = True
) -> list[str]:
    """What training selected in the steps before its last evaluation.

    Args:
        rows: of metrics.jsonl.
        known: share of the unlabeled pool whose true class is known, and which
            the accuracies of pseudo-labels are measured on.
        whole: whether an image is either selected or not; False if it has a
            weight.

    Returns:
        Sentences; none if the method does not select.
    """
    found = [
        row
        for row in rows
        if row["split"] == "train" and "selected_share" in row
    ]
    if not found:
        return []
    row = found[-1]
    share = row["selected_share"]
    when = f"In the last interval of training, up to step {row['step']:,},"
    if not whole:
        return [f"{when} the mean weight of a pseudo-label was {share:.3f}."]
    text = [f"{when} {_percent(share)} of the pseudo-labels were selected."]
    accuracy = row.get("pseudo_label_accuracy")
    selected = row.get("selected_pseudo_label_accuracy")
    if accuracy is None or selected is None or not known:
        return text
    said = f"{_percent(selected)} of the selected ones were right"
    bounds = rejected_accuracy(share, accuracy, selected, known)
    if bounds:
        low, high = map(_percent, bounds)
        among = low if low == high else f"between {low} and {high}"
        said += f", and {among} of the rejected ones"
    text.append(f"{said}. Only images whose true class is known count.")
    if bounds and known < 1:
        text.append(
            f"These are {_percent(known)} of the pool, the labeled ones not "
            "being counted, while the share selected is of all images: hence "
            "the bounds."
        )
    return text


def rejected_accuracy(
    share: float, accuracy: float, selected_accuracy: float, known: float
) -> tuple[float, float] | None:
    """How many of the rejected pseudo-labels are right.

    With the share s of the known images that are selected, accuracy =
    s * selected_accuracy + (1 - s) * rejected_accuracy. The share is measured
    on all images, so that s lies between two bounds.

    Args:
        share: of all images, how many are selected.
        accuracy: of the known images.
        selected_accuracy: of the known images that are selected.
        known: share of the images that are known, above 0.

    Returns:
        The least and the greatest possible value; None if nothing is rejected
        or they are more than 0.1 apart.
    """
    ends = [(share - (1 - known)) / known, share / known]
    if ends[1] >= 1:
        return None
    found = [
        (accuracy - max(s, 0.0) * selected_accuracy) / (1 - max(s, 0.0))
        for s in ends
    ]
    low, high = (min(max(value, 0.0), 1.0) for value in sorted(found))
    return (low, high) if high - low <= _MAX_GAP else None


def limits(
    class_names: Sequence[str],
    *,
    test_counts: np.ndarray,
    label_counts: np.ndarray,
    num_validation: int,
    validation_accuracy: float | None,
    size: str = "",
    chosen: str = "",
) -> list[str]:
    """What the numbers of a run do not tell, a list of sentences.

    Args:
        class_names: one per class.
        test_counts: `[C]` test images of each class.
        label_counts: `[C]` labeled images of each class.
        num_validation: how many validation images there are.
        validation_accuracy: of the exported network, or None.
        size: a sentence about the size of images.
        chosen: a sentence about how test images were chosen.
    """
    total = len(class_names)
    text = [chosen] if chosen else []
    absent = np.flatnonzero(test_counts == 0)
    if len(absent):
        text.append(
            f"Nothing is measured of {number(len(absent), 'class', 'classes')} "
            f"without test images: {_listed(class_names, absent)}."
        )
    if num_validation and validation_accuracy is not None:
        right = round(validation_accuracy * num_validation)
        low, high = wilson_interval(right, num_validation)
        if high - low > _WIDE:
            text.append(
                f"There are {number(num_validation, 'validation image')}: the "
                f"95 % interval of the validation accuracy is {_percent(low)} "
                f"to {_percent(high)}, {100 * (high - low):.1f} points wide."
            )
    few = np.flatnonzero(label_counts < _FEW_LABELS)
    if len(few):
        least = int(label_counts.min())
        which = "All" if len(few) == total else f"{len(few):,} of {total:,}"
        names = "" if len(few) == total else f": {_listed(class_names, few)}"
        text.append(
            f"{which} classes have fewer than {_FEW_LABELS} labeled images, "
            f"the smallest one {least}{names}."
        )
    return [*text, *filter(None, [size])]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(class_names: Sequence[str], rows: np.ndarray) -> str:
    shown = ", ".join(spelling.shortened(class_names[k]) for k in rows[:_NAMES])
    more = len(rows) - _NAMES
    return shown + (f" and {more:,} more" if more > 0 else "")


def _size(experiment: Experiment) -> str:
    """A sentence about the size of what the network sees."""
    decoding = experiment.decoding
    height, width, channels = decoding.image_shape
    if channels not in (1, 3):
        return ""
    gray = "gray " if channels == 1 else ""
    said = f"The network sees {height} x {width} {gray}pixels: "
    if not decoding.stored_size:
        return f"{said}an image file of another size is refused."
    return (
        f"{said}an image file of another size is resized "
        f"(--resize={decoding.resize})."
    )


def _test_choice(experiment: Experiment) -> str:
    """A sentence about where the test images come from."""
    config, dataset = experiment.config, DATASETS[experiment.config.dataset]
    if _HELD_OUT in experiment.source.description:
        return (
            f"The test images are {100 * config.test_fraction:.0f} % of each "
            "class's labeled images and were held out before training; images "
            "of another origin were not tested."
        )
    if dataset.loader == TFDS and dataset.published.test:
        return (
            "The test images are the published split "
            f"{dataset.published.test} of {config.dataset}."
        )
    if "test_fraction" in dataset.reads:
        return "The test images are those that were given with the data."
    return (
        f"The test images are a fixed part of {config.dataset}, the same for "
        "every seed."
    )
