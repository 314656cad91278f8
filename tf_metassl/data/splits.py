"""Which training images are labeled, unlabeled or held out for validation."""

import dataclasses
import hashlib

import numpy as np

from tf_metassl import files


@dataclasses.dataclass(frozen=True)
class Splits:
    """Rows of a source's training images.

    Attributes:
        labeled: rows whose labels the training may read.
        unlabeled: rows that are used without their labels.
        validation: rows held out to choose settings and checkpoints.
    """

    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: np.ndarray

    @property
    def fingerprint(self):
        """A short hash of the three lists of rows."""
        digest = hashlib.sha256()
        for rows in (self.labeled, self.unlabeled, self.validation):
            digest.update(np.asarray(rows, np.int64).tobytes() + b"|")
        return digest.hexdigest()[:16]


def split(
    labels,
    *,
    num_labeled,
    num_validation,
    split_seed,
    labeled_inside,
    label_split="balanced",
    labeled_rows=None,
    validation_rows=None,
    class_names=None,
):
    """Splits training rows, the same way for the same seed.

    The validation rows are class-balanced, as far as that leaves each class
    half of its images. They do not depend on `split_seed`, so that runs with
    different split seeds are compared on the same validation images.

    Args:
        labels: `[N]` true labels, -1 where unknown.
        num_labeled: how many rows are labeled; 0 = all that are left.
        num_validation: how many rows are held out; -1: see
            `default_num_validation`. Ignored if `validation_rows` are given.
        split_seed: which rows are labeled.
        labeled_inside: whether the labeled rows are in the unlabeled pool too.
        label_split: `balanced`: labeled rows are class-balanced;
            `proportional`: by class frequency, at least one of each class;
            `first`: the first ones, regardless of class and seed; validation
            rows are chosen after them.
        labeled_rows: rows that may be labeled; None: all with a label.
            Validation rows are chosen among the others if there are enough.
        validation_rows: rows that are the validation images; None: choose.
        class_names: for messages.

    Returns:
        `Splits`, each sorted.

    Raises:
        ValueError: if there are fewer labels than asked for, or than classes,
            if a class has none, or if no unlabeled image is left.
    """
    labels = np.asarray(labels)
    known = labels >= 0
    if validation_rows is not None:
        num_validation = 0
        known &= ~_inside(labels, validation_rows)
    if num_validation < 0:
        num_validation = default_num_validation(labels[known])
    can_label = known & _inside(labels, labeled_rows, default=True)
    classes = np.unique(labels[known])
    _check_sizes(
        num_labeled, num_validation, len(classes), np.count_nonzero(known)
    )
    labeled = None
    if label_split == "first" and num_labeled:
        labeled = np.flatnonzero(can_label)[:num_labeled]
    if validation_rows is None:
        validation = _hold_out(
            np.where(known, labels, -1), num_validation, labeled, labeled_rows
        )
    else:
        validation = np.asarray(validation_rows)
    pool = np.setdiff1d(np.arange(len(labels)), validation)

    can_label &= ~_inside(labels, validation)
    left = np.count_nonzero(can_label)
    if num_labeled > left or not left:
        raise ValueError(
            f"--num_labeled={num_labeled}, but only {left} images can be "
            f"labeled beside --num_validation={num_validation}: lower one of "
            "them."
        )
    if labeled is None:
        proportional = label_split == "proportional"
        choose = proportional_subset if proportional else balanced_subset
        order = np.random.default_rng([split_seed, 2394]).permutation(pool)
        labeled = choose(
            np.where(can_label, labels, -1),
            order,
            num_labeled or left,
        )
    missing = np.setdiff1d(classes, labels[labeled])
    if len(missing):
        raise ValueError(
            f"No image of {_names(missing, class_names)} is labeled: raise "
            "--num_labeled, lower --num_validation or set another "
            f"--label_split than {label_split}."
        )
    unlabeled = pool if labeled_inside else np.setdiff1d(pool, labeled)
    if not len(unlabeled):
        raise ValueError(
            "No unlabeled image is left: lower --num_labeled or "
            "--num_validation, or set --labeled_inside_unlabeled."
        )
    return Splits(np.sort(labeled), np.sort(unlabeled), np.sort(validation))


def default_num_validation(labels):
    """How many labeled images to hold out if nobody says.

    Args:
        labels: `[N]` integers, those of all labeled images.

    Returns:
        A fifth of them, at most 100, and so few that a class keeps one.
    """
    counts = np.bincount(labels)
    spare = int(np.sum(counts[counts > 0] - 1))
    return min(len(labels) // 5, 100, spare)


def check_unlabeled(splits):
    """Checks that some of the unlabeled images are not labeled as well.

    Args:
        splits: the `Splits` of a method that uses unlabeled images.

    Raises:
        ValueError: if all of them are.
    """
    if not len(np.setdiff1d(splits.unlabeled, splits.labeled)):
        raise ValueError(
            "There is no unlabeled image beside the labeled ones: lower "
            "--num_labeled, or give --unlabeled_dir or rows without a label "
            "in --manifest."
        )


def balanced_subset(labels, order, size):
    """The first images of each class in `order`, as evenly as `size` allows.

    Args:
        labels: `[N]` integers; negative ones are never taken.
        order: a permutation of the rows to choose from.
        size: how many rows to return.

    Returns:
        `[size]` rows. Classes that have enough images differ by at most one.

    Raises:
        ValueError: if there are fewer labeled rows than `size`.
    """
    rows, rank = _ranked(labels, order, size)
    return rows[np.argsort(rank, kind="stable")[:size]]


def proportional_subset(labels, order, size):
    """The first images of each class in `order`, by the classes' frequency.

    Args:
        labels: `[N]` integers; negative ones are never taken.
        order: a permutation of the rows to choose from.
        size: how many rows to return.

    Returns:
        `[size]` rows. A class has its share of them, rounded up or down, but
        at least one if `size` allows it.

    Raises:
        ValueError: if there are fewer labeled rows than `size`.
    """
    rows, rank = _ranked(labels, order, size)
    classes, counts = np.unique(labels[rows], return_counts=True)
    share = size * counts / max(len(rows), 1)
    quota = np.floor(share).astype(np.int64)
    by_remainder = np.argsort(quota - share, kind="stable")
    quota[by_remainder[: size - quota.sum()]] += 1
    if size >= len(classes):
        for empty in np.flatnonzero(quota == 0):
            quota[np.argmax(quota)] -= 1
            quota[empty] = 1
    return rows[rank < quota[np.searchsorted(classes, labels[rows])]]


def duplicates(source, splits):
    """Finds images with equal pixels in different parts of the data.

    Args:
        source: a `Source`.
        splits: the `Splits` of its training images.

    Returns:
        Dict from pairs out of `labeled`, `unlabeled`, `validation` and `test`
        to `[K, 2]` rows, for pairs with duplicates only; those of `test` are
        rows of the test images, all others of the training images. An image
        that is labeled and in the unlabeled pool is not its own duplicate.
    """
    parts = {
        "labeled": (source.train, splits.labeled),
        "unlabeled": (
            source.train,
            np.setdiff1d(splits.unlabeled, splits.labeled),
        ),
        "validation": (source.train, splits.validation),
        "test": (source.test, np.arange(len(source.test))),
    }
    hashes = {n: images.content_hashes(r) for n, (images, r) in parts.items()}
    pairs = (
        ("labeled", "unlabeled"),
        ("labeled", "validation"),
        ("labeled", "test"),
        ("validation", "test"),
        ("unlabeled", "validation"),
        ("unlabeled", "test"),
    )
    result = {}
    for first, second in pairs:
        _, at_first, at_second = np.intersect1d(
            hashes[first], hashes[second], return_indices=True
        )
        if len(at_first):
            rows = (parts[first][1][at_first], parts[second][1][at_second])
            result[first, second] = np.stack(rows, axis=1)
    return result


def describe_duplicates(source, found):
    """Describes what `duplicates` has found.

    Args:
        source: the `Source`.
        found: the result of `duplicates`.

    Returns:
        A line per pair of parts with the number of duplicates and an example;
        the empty string if there are none.
    """
    lines = []
    for (first, second), rows in found.items():
        where = source.test if second == "test" else source.train
        one = _image_name(source.train, rows[0, 0])
        other = _image_name(where, rows[0, 1])
        lines.append(
            f"{len(rows)} {second} image(s) are also {first} images, such as "
            f"{other} = {one}"
        )
    return "\n".join(lines)


def describe_contradictions(source, splits):
    """Describes images with equal pixels and different labels.

    Args:
        source: a `Source`.
        splits: the `Splits` of its training images.

    Returns:
        A line with their number and an example; empty if there are none.
    """
    rows = np.concatenate([splits.labeled, splits.validation])
    hashes, labels = (
        source.train.content_hashes(rows),
        source.train.labels[rows],
    )
    order = np.lexsort((labels, hashes))
    same = hashes[order][1:] == hashes[order][:-1]
    differ = labels[order][1:] != labels[order][:-1]
    found = np.flatnonzero(same & differ)
    if not len(found):
        return ""
    pair = rows[order[[found[0], found[0] + 1]]]
    names = source.info.class_names
    shown = [
        f"{_image_name(source.train, r)} ({names[source.train.labels[r]]})"
        for r in pair
    ]
    return (
        f"{len(found)} image(s) have the pixels of another one and a different "
        f"label, such as {shown[0]} = {shown[1]}"
    )


def save_ids(source, splits, path):
    """Writes which images are labeled: row, class and name, one per line.

    Args:
        source: the `Source`.
        splits: the `Splits` of its training images.
        path: of the file, such as `labeled_ids.txt`.
    """
    lines = [f"# {source.info.name}, splits {splits.fingerprint}"]
    for row in splits.labeled:
        name = source.info.class_names[source.train.labels[row]]
        lines.append(
            f"{row}\t{_one_cell(name)}"
            f"\t{_one_cell(_image_name(source.train, row))}"
        )
    text = "\n".join(lines) + "\n"
    files.write_text(path, text)


def _one_cell(text):
    """Text whose tabs and ends of lines are written as in Python."""
    return "".join(
        c.encode("unicode_escape").decode() if c in "\t\n\r\v\f\\" else c
        for c in text
    )


def _check_sizes(num_labeled, num_validation, num_classes, num_known):
    if 0 < num_labeled < num_classes:
        raise ValueError(
            f"--num_labeled={num_labeled} gives some of the {num_classes} "
            "classes no label: raise --num_labeled."
        )
    if num_labeled + num_validation > num_known:
        raise ValueError(
            f"--num_labeled={num_labeled} and --num_validation="
            f"{num_validation} together exceed the {num_known} labeled "
            "training images: lower one of them."
        )


def _hold_out(labels, size, labeled, labeled_rows):
    """Chooses validation rows, none of which are in `labeled`.

    Chooses among the first of these sets that is large enough: rows outside of
    `labeled_rows`, half of each class, all but one of each class.
    """
    order = np.random.default_rng(2007).permutation(len(labels))
    if labeled is None:
        rows, rank = _ranked(labels, order, 0)
        num_images = np.bincount(labels[rows])[labels[rows]]
        choices = [rows[rank < num_images // 2], rows[rank < num_images - 1]]
    else:
        choices = [np.flatnonzero((labels >= 0) & ~_inside(labels, labeled))]
    if labeled_rows is not None:
        choices.insert(0, np.setdiff1d(choices[-1], labeled_rows))
    for rows in choices:
        if len(rows) >= size:
            allowed = np.where(_inside(labels, rows), labels, -1)
            return balanced_subset(allowed, order, size)
    raise ValueError(
        f"--num_validation={size} leaves some classes no image that can be "
        "labeled: lower it."
    )


def _inside(labels, rows, default=False):
    """`[N]` bool, true in `rows`; `default` everywhere if they are None."""
    if rows is None:
        return np.full(len(labels), default)
    return np.isin(np.arange(len(labels)), rows)


def _ranked(labels, order, size):
    """Labeled rows in `order`, and the rank of each within its class."""
    rows = order[labels[order] >= 0]
    if len(rows) < size:
        raise ValueError(
            f"Asked for {size} labeled images, but only {len(rows)} are there."
        )
    rank = np.empty(len(rows), np.int64)
    for c in np.unique(labels[rows]):
        members = np.flatnonzero(labels[rows] == c)
        rank[members] = np.arange(len(members))
    return rows, rank


def _names(classes, class_names):
    shown = [class_names[c] if class_names else str(c) for c in classes[:5]]
    more = ["..."] if len(classes) > 5 else []
    return f"class {', '.join(shown + more)}"


def _image_name(images, row):
    if images.ids is None:
        return f"row {row}"
    return images.ids[row].decode("utf-8", "replace")
