"""One temperature that makes confidences mean what they say.

Source: Guo et al., "On Calibration of Modern Neural Networks",
arXiv 1706.04599.
"""

import dataclasses
import json
import pathlib
from typing import Self

import numpy as np
import scipy.optimize
import scipy.special

from tf_metassl import files

_FILE = "calibration.json"
# No network is sharper or flatter than these by its loss alone.
_LOWEST, _HIGHEST = 0.05, 20.0
_NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The temperature of a network, and what it changes.

    Attributes:
        temperature: divides the logits; 1 changes nothing.
        num_images: validation images that it was fitted on; 0 if there were
            none.
        error_before: expected calibration error of softmax(logits) on these
            images, see `calibration_error`.
        error_after: the same with the temperature; it was fitted on the same
            images.
    """

    temperature: float = 1.0
    num_images: int = 0
    error_before: float = 0.0
    error_after: float = 0.0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[N, C]` of logits `[N, C]`."""
        return scipy.special.softmax(logits / self.temperature, axis=-1)

    def save(self, run_dir: files.AnyPath) -> None:
        """Writes `calibration.json` into `run_dir`."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        files.write_text(pathlib.Path(run_dir) / _FILE, text)

    @classmethod
    def load(cls, run_dir: files.AnyPath) -> Self:
        """The calibration of a run; one that changes nothing if it has none.

        A run that ended before there was this file, and a file that is
        damaged, count as none.
        """
        try:
            text = (pathlib.Path(run_dir) / _FILE).read_text("utf-8")
            return cls(**json.loads(text))
        except (OSError, ValueError, TypeError):
            return cls()


def fit(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fits the temperature by the mean cross-entropy.

    Args:
        logits: `[N, C]` floats, of images that were not trained on.
        labels: `[N]` integers.

    Returns:
        A `Calibration`; one that changes nothing if N is 0.
    """
    logits = np.asarray(logits, np.float64)
    labels = np.asarray(labels)
    if not len(labels):
        return Calibration()

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        log_probs = scipy.special.log_softmax(scaled, axis=-1)
        return -float(log_probs[np.arange(len(labels)), labels].mean())

    found = scipy.optimize.minimize_scalar(
        loss,
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
    )
    fitted = Calibration(float(np.exp(found.x)), len(labels))
    errors = [
        calibration_error(calibration.probabilities(logits), labels)
        for calibration in (Calibration(), fitted)
    ]
    return dataclasses.replace(
        fitted, error_before=errors[0], error_after=errors[1]
    )


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How right a network is at each confidence, over 15 equal bins.

    Attributes:
        count: `[15]` integers, the images in (0, 1/15], (1/15, 2/15], ...
        confidence: `[15]`, their mean confidence; 0 without images.
        accuracy: `[15]`, the share of them that is right; 0 without images.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, equation 3 of the paper.

        The mean distance of confidence and accuracy over the bins, weighted by
        the images in them; 0 without images.
        """
        gaps = np.abs(self.accuracy - self.confidence) * self.count
        return float(gaps.sum() / max(self.count.sum(), 1))


def reliability(probs: np.ndarray, labels: np.ndarray) -> Reliability:
    """Compares confidences with what is right.

    Args:
        probs: `[N, C]`.
        labels: `[N]` integers.
    """
    confidence = probs.max(axis=-1)
    correct = probs.argmax(axis=-1) == labels
    bins = np.ceil(confidence * _NUM_BINS).astype(int) - 1
    count, of_confidence, of_correct = (
        np.bincount(bins, weights, minlength=_NUM_BINS)
        for weights in (None, confidence, correct)
    )
    images = np.maximum(count, 1)
    return Reliability(count, of_confidence / images, of_correct / images)


def calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error, see `Reliability.error`.

    Args:
        probs: `[N, C]`.
        labels: `[N]` integers.
    """
    return reliability(probs, labels).error
