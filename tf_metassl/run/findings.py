"""What an audit finds: copies, doubtful labels, far images, distributions."""

import collections
import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tf_metassl.data import copies, features, out_of_fold, patience
from tf_metassl.data.decode import limits_of_our_own
from tf_metassl.run.inventory import SPLITS, Inventory

# Kinds of copies, the worst one first. leak: an image that is trained on
# measures, too.
LEAK, LABELS, HELD_OUT, COPY = "leak", "different labels", "held out", "copy"
KINDS = (LEAK, LABELS, HELD_OUT, COPY)
# Images that are compared with each other, and labels that are checked. Of
# more, the first ones are.
_MOST_IMAGES, _MOST_LABELS = 100_000, 20_000


class Copy(NamedTuple):
    """A pair of images, numbers in the inventory.

    Attributes:
        kind: one of `KINDS`.
        first: the one that measures, if one of them does.
        second: the other one.
        similarity: 1 for equal pixels.
        exact: whether all pixels are equal.
    """

    kind: str
    first: int
    second: int
    similarity: float
    exact: bool


class Doubt(NamedTuple):
    """An image whose label is not the most probable one.

    Attributes:
        number: of the image.
        probability: of its own label.
        predicted: the most probable label.
        best: its probability.
        confident: whether that is at least the mean probability that images
            with this label have for it (Northcutt et al., arXiv 1911.00068).
    """

    number: int
    probability: float
    predicted: int
    best: float
    confident: bool


class Stranger(NamedTuple):
    """An unlabeled image that is far from every class.

    Attributes:
        number: of the image.
        score: 0 ... 1, see `OutOfFold.strange`.
    """

    number: int
    score: float


class Facts(NamedTuple):
    """What is known of the files of the images.

    Attributes:
        sizes: `width x height` -> number of files, the most frequent first.
        modes: Pillow's mode -> number of files, the most frequent first.
        grouped: classes whose labeled images are in several folders.
        shared: folders with images that are trained on and images that
            measure.
    """

    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    grouped: list[str]
    shared: list[str]


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that an audit finds.

    Attributes:
        dataset: its name.
        class_names: one per class.
        counts: `[4, C]` images of each split and class; zeros for unlabeled.
        num_images: images of each split.
        num_compared: images that were compared with each other.
        copies: the worst ones first.
        num_checked: labels that were checked.
        alone: classes with fewer than two images that are no copies.
        doubts: the least probable labels first.
        strangers: the strangest images first.
        far: a summary of these; None if nothing could be compared.
        facts: of the files; None if there are none.
        bad: paths of files that cannot be used, and why.
    """

    dataset: str
    class_names: tuple[str, ...]
    counts: np.ndarray
    num_images: dict[str, int]
    num_compared: int
    copies: list[Copy]
    num_checked: int
    alone: list[str]
    doubts: list[Doubt]
    strangers: list[Stranger]
    far: out_of_fold.Far | None
    facts: Facts | None
    bad: list[tuple[str, str]]


def find(
    items: Inventory,
    describe: features.Features,
    bad: Sequence[tuple[str, str]] = (),
) -> Findings:
    """Finds everything.

    Args:
        items: an `Inventory`.
        describe: images `[N, H, W, C]` uint8 -> `[N, F]` numbers.
        bad: paths of files that cannot be used, and why.
    """
    compared = np.arange(min(len(items), _MOST_IMAGES))
    pairs = _copies(items, compared)
    is_known = items.label[compared] >= 0
    # A copy would vouch for the label of the other one.
    known = np.setdiff1d(compared[is_known], [pair.second for pair in pairs])
    # The images that are trained on first, if they are too many.
    known = known[np.argsort(-items.split[known], kind="stable")]
    known = known[:_MOST_LABELS].astype(np.int64)
    pool = compared[~is_known]
    rows = items.described(np.concatenate([known, pool]), describe)
    labels = items.label[known]
    seen = out_of_fold.predict(rows[: len(known)], labels, rows[len(known) :])
    names = items.source.info.class_names
    counts = np.bincount(labels, minlength=len(names))
    far = out_of_fold.far(seen)
    return Findings(
        dataset=items.source.info.name,
        class_names=names,
        counts=np.stack([_counts(items, split) for split in SPLITS]),
        num_images={s: int(np.diff(items.part(s))[0]) for s in SPLITS},
        num_compared=len(compared),
        copies=pairs,
        num_checked=int(np.isfinite(seen.own).sum()),
        alone=[names[k] for k in np.flatnonzero(counts < 2)],
        doubts=_doubts(known, labels, seen),
        strangers=_strangers(pool, seen, far),
        far=far,
        facts=_facts(items),
        bad=list(bad),
    )


def _copies(items: Inventory, compared: np.ndarray) -> list[Copy]:
    found = [
        Copy(_kind(items, pair.first, pair.second), *pair)
        for pair in copies.find(
            items.hashes(),
            items.described(compared, features.thumbnails),
            [items.part(split) for split in SPLITS],
        )
    ]
    return sorted(
        found,
        key=lambda of: (KINDS.index(of.kind), -of.exact, -of.similarity, of),
    )


def _kind(items: Inventory, first: int, second: int) -> str:
    measures = [SPLITS[items.split[k]] in SPLITS[:2] for k in (first, second)]
    labels = items.label[[first, second]]
    if any(measures) and not all(measures):
        return LEAK
    if min(labels) >= 0 and labels[0] != labels[1]:
        return LABELS
    return HELD_OUT if all(measures) else COPY


def _counts(items: Inventory, split: str) -> np.ndarray:
    labels = items.label[slice(*items.part(split))]
    return np.bincount(
        labels[labels >= 0], minlength=len(items.source.info.class_names)
    )


def _doubts(
    known: np.ndarray, labels: np.ndarray, seen: out_of_fold.OutOfFold
) -> list[Doubt]:
    checked = np.isfinite(seen.own)
    usual = {
        k: seen.own[checked & (labels == k)].mean()
        for k in np.unique(labels[checked])
    }
    found = []
    for k in np.argsort(seen.own, kind="stable"):
        predicted, best = int(seen.predicted[k]), float(seen.best[k])
        if checked[k] and predicted != labels[k]:
            confident = bool(best >= usual.get(predicted, np.inf))
            own = float(seen.own[k])
            found.append(Doubt(int(known[k]), own, predicted, best, confident))
    return found


def _strangers(
    pool: np.ndarray, seen: out_of_fold.OutOfFold, far: out_of_fold.Far | None
) -> list[Stranger]:
    if far is None:
        return []
    order = np.argsort(-seen.others, kind="stable")
    return [
        Stranger(int(pool[k]), float(seen.others[k]))
        for k in order
        if far.far[k]
    ]


def _facts(items: Inventory) -> Facts | None:
    """Reads the headers of all files."""
    paths = [items.path(k) for k in range(len(items))]
    sizes: collections.Counter = collections.Counter()
    modes: collections.Counter = collections.Counter()
    progress = patience.Counter("Reading the headers of files", len(paths))
    with limits_of_our_own(), warnings.catch_warnings():
        # Pillow warns about unusual but readable files.
        warnings.simplefilter("ignore")
        for path in paths:
            progress.advance(1)
            if not os.path.isfile(path):
                continue
            try:
                with Image.open(path) as image:
                    sizes[image.size] += 1
                    modes[image.mode] += 1
            except OSError:
                continue
    if not sizes:
        return None
    of_class = collections.defaultdict(set)
    trained, measures = set(), set()
    for path, split, label in zip(paths, items.split, items.label, strict=True):
        place = os.path.dirname(path)
        (measures if SPLITS[split] in SPLITS[:2] else trained).add(place)
        if SPLITS[split] == "labeled":
            of_class[label].add(place)
    grouped = [k for k in sorted(of_class) if len(of_class[k]) > 1]
    return Facts(
        dict(sizes.most_common()),
        dict(modes.most_common()),
        [items.source.info.class_names[k] for k in grouped],
        sorted(trained & measures) if grouped else [],
    )
