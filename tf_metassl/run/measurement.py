"""A classifier measured on labeled picture files of any origin."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_metassl.data import image_files, manifest, spelling
from tf_metassl.data.image_files import ImageFile
from tf_metassl.data.options import DataOptions
from tf_metassl.errors import ConfigError
from tf_metassl.ops import metrics
from tf_metassl.run import calibration
from tf_metassl.run.classifier import Classifier

_MEASURES = ("precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a classifier gets right.

    Attributes:
        class_names: of the classifier.
        confusion: `[C, C]` counts; rows are true classes.
        calibration_error: the expected one, of the calibrated confidences.
        problems: file and reason, of files that could not be read.
    """

    class_names: tuple[str, ...]
    confusion: np.ndarray
    calibration_error: float
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def accuracy(self) -> float:
        """The share of the pictures that is right."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    def by_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support of the classes with pictures.

        Precision is 0 for a class that is never predicted.
        """
        right = np.diag(self.confusion).astype(float)
        support = self.confusion.sum(1)
        predicted = self.confusion.sum(0)
        return {
            name: {
                "precision": float(right[k] / max(predicted[k], 1)),
                "recall": float(right[k] / support[k]),
                "f1": float(2 * right[k] / (predicted[k] + support[k])),
                "support": int(support[k]),
            }
            for k, name in enumerate(self.class_names)
            if support[k]
        }

    def to_json(self) -> dict[str, Any]:
        """A dict that `json` can write."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": metrics.macro_f1(self.confusion),
            "calibration_error": self.calibration_error,
            "num_images": int(self.confusion.sum()),
            "classes": self.by_class(),
            "class_names": list(self.class_names),
            "confusion": self.confusion.tolist(),
            "problems": [list(problem) for problem in self.problems],
        }

    def table(self) -> str:
        """The measures in Markdown."""
        lines = [
            "| class | precision | recall | F1 | images |",
            "| --- | --: | --: | --: | --: |",
        ]
        for name, of in self.by_class().items():
            shown = spelling.one_line(name).replace("|", "\\|")
            numbers = " | ".join(f"{of[m]:.4f}" for m in _MEASURES)
            lines.append(f"| {shown} | {numbers} | {of['support']} |")
        total = int(self.confusion.sum())
        lines += [
            "",
            f"accuracy {self.accuracy:.4f}, macro-F1 "
            f"{metrics.macro_f1(self.confusion):.4f}, calibration error "
            f"{self.calibration_error:.4f}, {total:,} images",
        ]
        absent = len(self.class_names) - len(self.by_class())
        if absent:
            lines.append(
                f"{absent} of {len(self.class_names)} classes have no image "
                "here and do not count."
            )
        return "\n".join(lines)


def labeled_files(
    labeled_dir: str = "", manifest_file: str = ""
) -> tuple[list[str], list[ImageFile]]:
    """The labeled files of a folder with classes, or of a manifest.

    Args:
        labeled_dir: the folder.
        manifest_file: the manifest; rows of all splits count.

    Returns:
        `(class_names, files)`.

    Raises:
        ConfigError: if there is neither or both, or one cannot be read.
    """
    if bool(labeled_dir) == bool(manifest_file):
        raise ConfigError("Give one of --labeled_dir and --manifest.")
    try:
        if labeled_dir:
            found = image_files.in_folders(DataOptions(labeled_dir=labeled_dir))
        else:
            path = pathlib.Path(manifest_file).expanduser()
            found = manifest.in_manifest(path, "unlabeled")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    names, files, _ = found
    return names, [file for file in files if file.label >= 0]


def measure(
    classifier: Classifier,
    class_names: Sequence[str],
    files: Sequence[ImageFile],
    batch_size: int = 64,
) -> Measurement:
    """Compares the predictions of a classifier with labels.

    Args:
        classifier: a `Classifier`.
        class_names: of the labels, out of those of the classifier.
        files: `ImageFile`s with a label.
        batch_size: pictures at a time.

    Raises:
        ConfigError: if the classifier does not know a class, or no file can be
            read.
    """
    known = {name: k for k, name in enumerate(classifier.class_names)}
    if unknown := [name for name in class_names if name not in known]:
        raise ConfigError(
            f"The classifier does not know {image_files.shortened(unknown)}: "
            f"its classes are {image_files.shortened(list(known))}. Rename "
            "the classes, or leave out these images."
        )
    index = np.array([known[name] for name in class_names])
    found = list(classifier.predict([file.path for file in files], batch_size))
    read = [(p, f) for p, f in zip(found, files, strict=True) if not p.problem]
    problems = tuple((str(p.path), p.problem) for p in found if p.problem)
    if not read:
        raise ConfigError(
            f"None of {len(files)} files can be read; the first one is "
            f"{problems[0][0]}: {problems[0][1]}."
            if problems
            else "There is no labeled file."
        )
    labels = index[[file.label for _, file in read]]
    probs = np.stack([p.probs for p, _ in read])
    confusion = np.zeros((len(known), len(known)), np.int64)
    np.add.at(confusion, (labels, probs.argmax(axis=1)), 1)
    error = calibration.calibration_error(
        np.stack([p.calibrated for p, _ in read]), labels
    )
    return Measurement(classifier.class_names, confusion, error, problems)


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927).

    Args:
        right: how many.
        total: of how many; 0 gives the interval from 0 to 1.
    """
    if not total:
        return 0.0, 1.0
    z = 1.959963984540054  # The normal distribution's quantile 0.975.
    share = right / total
    center = share + z**2 / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return (center - spread) / scale, (center + spread) / scale
