"""What a simple classifier says of images that it has not seen.

The images with a label are divided into folds. A standardization, a principal
component analysis and a logistic regression are fitted to all folds but one
and applied to that one and to a share of the other images, so that the former
say what is usual for images of the classes. Imports no TensorFlow.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy import stats

_FOLDS = 5
_COMPONENTS = 64
# Inverse strength of the regularization of the logistic regression.
_C = 0.1
# The share of images of the classes that count as far from them.
EXPECTED = 0.05


class OutOfFold(NamedTuple):
    """What is found for `N` images with a label and `M` others.

    Attributes:
        own: `[N]` probability of the image's own label; NaN if its class has
            no other image.
        predicted: `[N]` most probable label; -1 as above.
        best: `[N]` its probability; NaN as above.
        strange: `[N]` how little the image is like those of the classes, 0 ...
            1; NaN as above.
        others: `[M]` the same for the other images; NaN if there is nothing to
            compare them with.
    """

    own: np.ndarray
    predicted: np.ndarray
    best: np.ndarray
    strange: np.ndarray
    others: np.ndarray


def predict(
    features: np.ndarray, labels: np.ndarray, others: np.ndarray
) -> OutOfFold:
    """Predicts each image by the folds that it is not in.

    An image is strange if the classifier is unsure of it or the components
    describe it badly: the larger one of its two ranks among the images with a
    label.

    Args:
        features: `[N, F]` of the images with a label.
        labels: `[N]` integers.
        others: `[M, F]` of the other images.

    Returns:
        An `OutOfFold`. Nothing is found unless two classes have several images
        each.
    """
    own, best = np.full((2, len(labels)), np.nan)
    predicted = np.full(len(labels), -1)
    unsure, residual = np.full((2, len(labels)), np.nan)
    other_unsure, other_residual = np.full((2, len(others)), np.nan)
    folds = _folds(labels)
    for number, (fitted, left_out) in enumerate(folds):
        mine = np.arange(len(others)) % len(folds) == number
        applied = np.concatenate([features[left_out], others[mine]])
        classes, probs, rest = _fit(features[fitted], labels[fitted], applied)
        known = len(left_out)
        place = np.searchsorted(classes, labels[left_out])
        own[left_out] = probs[np.arange(known), place]
        predicted[left_out] = classes[probs[:known].argmax(axis=1)]
        best[left_out] = probs[:known].max(axis=1)
        unsure[left_out] = 1 - best[left_out]
        residual[left_out] = rest[:known]
        other_unsure[mine] = 1 - probs[known:].max(axis=1)
        other_residual[mine] = rest[known:]
    strange = np.fmax(_rank(unsure, unsure), _rank(residual, residual))
    ranks = _rank(unsure, other_unsure), _rank(residual, other_residual)
    return OutOfFold(own, predicted, best, strange, np.fmax(*ranks))


def _folds(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of the rows to fit to and those to apply to.

    Images that are alone in their class are fitted to in every fold.
    """
    from sklearn.model_selection import StratifiedKFold

    classes, counts = np.unique(labels, return_counts=True)
    several = np.isin(labels, classes[counts > 1])
    if np.count_nonzero(counts > 1) < 2:
        return []
    rows = np.flatnonzero(several)
    folds = StratifiedKFold(
        min(_FOLDS, counts.max()), shuffle=True, random_state=0
    )
    with warnings.catch_warnings():
        # A class may have fewer images than there are folds.
        warnings.simplefilter("ignore", UserWarning)
        left_out = [
            rows[chosen] for _, chosen in folds.split(rows, labels[rows])
        ]
    everything = np.arange(len(labels))
    return [(np.setdiff1d(everything, chosen), chosen) for chosen in left_out]


def _fit(
    features: np.ndarray, labels: np.ndarray, applied: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes, `[n, C]` probabilities and `[n]` residuals of `applied`."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    number = min(_COMPONENTS, max(len(features) // 2, 1), features.shape[1])
    components = PCA(number, random_state=0).fit(scaled)
    classifier = LogisticRegression(C=_C, max_iter=1000)
    with warnings.catch_warnings():
        # Nearly every image may have a class of its own.
        warnings.simplefilter("ignore", UserWarning)
        classifier.fit(components.transform(scaled), labels)
    scaled = scaler.transform(applied)
    found = components.transform(scaled)
    rest = scaled - components.inverse_transform(found)
    probs = classifier.predict_proba(found)
    return classifier.classes_, probs, np.square(rest).sum(axis=1)


def _rank(usual: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The shares of the usual values that are below each value."""
    usual = np.sort(usual[np.isfinite(usual)])
    if not len(usual):
        return np.full(len(values), np.nan)
    rank = np.searchsorted(usual, values) / len(usual)
    return np.where(np.isfinite(values), rank, np.nan)


class Far(NamedTuple):
    """How many of the other images are far from all classes.

    Attributes:
        far: `[M]` whether each is.
        expected: share that would be if they were of the classes.
        chance: share that chance alone exceeds in one of 40 cases.
        compared: how many images with a label were compared with.
    """

    far: np.ndarray
    expected: float
    chance: float
    compared: int

    @property
    def share(self) -> float:
        """The share of the images that is far."""
        return float(self.far.mean()) if len(self.far) else 0.0


def far(found: OutOfFold) -> Far | None:
    """Which other images are stranger than nearly all of the classes.

    The limit is the strangeness of one of the images with a label, such that
    about 5 % of further images of the classes would exceed it. How many do is
    distributed as beta-binomial.

    Args:
        found: an `OutOfFold`.

    Returns:
        A `Far`; None if there are no other images, or nothing to compare them
        with.
    """
    usual = np.sort(found.strange[np.isfinite(found.strange)])[::-1]
    if not len(usual) or not len(found.others):
        return None
    rank = max(int(EXPECTED * (len(usual) + 1)), 1)
    number = stats.betabinom(len(found.others), rank, len(usual) + 1 - rank)
    return Far(
        found.others > usual[rank - 1],
        rank / (len(usual) + 1),
        float(number.ppf(0.975)) / len(found.others),
        len(usual),
    )
