"""Which training images are labeled, unlabeled or held out for validation."""

import dataclasses
import hashlib

import numpy as np

from tf_metassl import files
from tf_metassl.data import groups as groups_lib
from tf_metassl.data import spelling

# How many of a kind are named where there may be many.
_EXAMPLES = 3
_MAX_NAMES = 30


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
    groups=None,
):
    """Splits training rows, the same way for the same seed.

    The validation rows are class-balanced, as far as that leaves each class
    half of its images. They do not depend on `split_seed`, so that runs with
    different split seeds are compared on the same validation images.

    Args:
        labels: `[N]` true labels, -1 where unknown.
        num_labeled: how many rows are labeled; 0 = all that are left.
        num_validation: how many rows are held out, 0 for none; ignored if
            `validation_rows` are given.
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
        groups: `[N]` integers, equal for rows that must not be divided: whole
            groups are held out, in about the numbers asked for, and no other
            row of them is used. None: every row stands alone.

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
    can_label = known & _inside(labels, labeled_rows, default=True)
    classes = np.unique(labels[known])
    _check_sizes(
        num_labeled, num_validation, len(classes), np.count_nonzero(known)
    )
    labeled = None
    if label_split == "first" and num_labeled:
        labeled = np.flatnonzero(can_label)[:num_labeled]
    if validation_rows is None:
        able = np.where(known, labels, -1)
        validation = _hold_out(able, num_validation, labeled, labeled_rows)
        if groups is not None and num_validation:
            validation = _whole_groups(able, validation, labeled, groups)
    else:
        validation = np.asarray(validation_rows)
    held_out = _inside(labels, validation)
    if groups is not None:
        held_out = np.isin(groups, groups[validation])
    pool = np.flatnonzero(~held_out)

    can_label &= ~held_out
    left = np.count_nonzero(can_label)
    if num_labeled > left or not left:
        raise ValueError(
            f"--num_labeled={num_labeled}, but only {left} images can be "
            f"labeled beside --num_validation={num_validation}: lower one of "
            "them. --num_validation=0 holds none out."
        )
    if labeled is None:
        choose = _SUBSETS[label_split]
        order = np.random.default_rng([split_seed, 2394]).permutation(pool)
        labeled = choose(
            np.where(can_label, labels, -1),
            order,
            num_labeled or left,
        )
    missing = np.setdiff1d(classes, labels[labeled])
    if len(missing):
        raise ValueError(
            f"No image of class {_listed(missing, class_names)} is labeled: "
            "raise --num_labeled, lower --num_validation or set another "
            f"--label_split than {label_split}."
        )
    unlabeled = pool if labeled_inside else np.setdiff1d(pool, labeled)
    if not len(unlabeled):
        raise ValueError(
            "No unlabeled image is left: lower --num_labeled or "
            "--num_validation, or set --labeled_inside_unlabeled."
        )
    return Splits(np.sort(labeled), np.sort(unlabeled), np.sort(validation))


def default_num_validation(labels, num_labeled=0, validation_rows=None):
    """How many labeled images are held out if nobody says how many.

    A fifth of them and at most 100, but no more than leaves each class half of
    its images. None if that is fewer than 10: they would measure little, and
    be missed as labels.

    Args:
        labels: `[N]` true labels, -1 where unknown.
        num_labeled: labels that are to be left; 0 = as many as there are.
        validation_rows: rows that are the validation images; None: none are.

    Returns:
        A non-negative integer; 0 if `validation_rows` are given.
    """
    if validation_rows is not None:
        return 0
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0])
    total = int(counts.sum())
    size = min(total // 5, 100, total - num_labeled, int(np.sum(counts // 2)))
    return size if size >= 10 else 0


def class_weights(labels, num_classes):
    """Weights by which all classes count the same, for --class_balance=loss.

    Args:
        labels: `[N]` integers, those of the labeled images.
        num_classes: C.

    Returns:
        `[C]` floats, N / (C * number of the class). Their mean over the
        labeled images is 1 if every class has one.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return len(labels) / (num_classes * np.maximum(counts, 1))


def judges(labels, rows, share):
    """The labeled images that judge and are not learned, for --judge_share.

    Args:
        labels: `[N]` integers, those of all training images.
        rows: `[L]` integers, the labeled images.
        share: of the images of each class, which is rounded. Of a class with
            two or more, at least one judges and at least one is learned; an
            image that is alone in its class is learned.

    Returns:
        `[N]` booleans.

    Raises:
        ValueError: if no class has two labeled images.
    """
    found = np.zeros(len(labels), bool)
    for c in np.unique(labels[rows]):
        members = rows[labels[rows] == c]
        size = max(round(share * len(members)), 1)
        found[members[: min(size, len(members) - 1)]] = True
    if not found.any():
        raise ValueError(
            f"--judge_share={share:g} needs two labeled images of a class, one "
            "that judges and one that is learned, and each class has one. "
            "Raise --num_labeled, or set --judge_share=0."
        )
    return found


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


def long_tailed_subset(labels, order, size):
    """The first images of each class in `order`, fewer of every next class.

    The last class gets a tenth of what the first one gets, those between fall
    geometrically (Cui et al., arXiv 1901.05555, section 5.1). Every class gets
    at least one.

    Args:
        labels: `[N]` integers; negative ones are never taken.
        order: a permutation of the rows to choose from.
        size: how many rows to return, at least one per class.

    Returns:
        `[size]` rows.

    Raises:
        ValueError: if a class has fewer images than it should get, or there
            are fewer rows than classes.
    """
    rows, rank = _ranked(labels, order, size)
    classes, counts = np.unique(labels[rows], return_counts=True)
    number = len(classes)
    if size < number:
        raise ValueError(
            f"--num_labeled={size}: --label_split=long_tailed needs at least "
            f"one image for each of {number} classes."
        )
    share = 0.1 ** (np.arange(number) / max(number - 1, 1))
    share *= (size - number) / share.sum()
    quota = 1 + np.floor(share).astype(np.int64)
    by_remainder = np.argsort(np.floor(share) - share, kind="stable")
    quota[by_remainder[: size - quota.sum()]] += 1
    if np.any(quota > counts):
        short = np.argmax(quota > counts)
        raise ValueError(
            f"--label_split=long_tailed: class {classes[short]} has "
            f"{counts[short]} images and should get {quota[short]}: lower "
            "--num_labeled."
        )
    return rows[rank < quota[np.searchsorted(classes, labels[rows])]]


# `--label_split` -> how the labeled images are chosen from an order.
_SUBSETS = {
    "balanced": balanced_subset,
    "proportional": proportional_subset,
    "long_tailed": long_tailed_subset,
    # Without a number, all images are labeled.
    "first": balanced_subset,
}


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
        The pair `labeled`, `labeled` has images of different classes.
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
    twice = _two_labels(hashes["labeled"], source.train.labels[splits.labeled])
    if len(twice):
        result["labeled", "labeled"] = np.asarray(splits.labeled)[twice]
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
        A line per pair of parts with the number of duplicates and examples;
        the empty string if there are none.
    """
    lines = []
    for (first, second), rows in found.items():
        where = source.test if second == "test" else source.train
        text = ", ".join(
            f"{_image_name(where, other)} = {_image_name(source.train, one)}"
            for one, other in rows[:_EXAMPLES]
        )
        what = f"{second} image(s) are also {first} images"
        if first == second:
            what = f"{first} image(s) have the pixels of another class's image"
        elif "unlabeled" not in (first, second):
            labels = source.train.labels[rows[:, 0]], where.labels[rows[:, 1]]
            if differing := np.count_nonzero(np.not_equal(*labels)):
                what += f", {differing} with another label"
        lines.append(f"{len(rows)} {what}, such as {text}")
    return "\n".join(lines)


def describe_absent(source, splits):
    """Names the classes without an image for validation or for testing.

    Args:
        source: the `Source`.
        splits: the `Splits` of its training images.

    Returns:
        A sentence per line; the empty string if every class has one.
    """
    names = source.info.class_names
    parts = {
        "validation": source.train.labels[splits.validation],
        "test": source.test.labels,
    }
    lines = []
    for part, labels in parts.items():
        absent = np.setdiff1d(np.arange(len(names)), labels)
        if not len(labels):
            lines.append(
                "No image is held out for validation: nothing measures the "
                "network before the test, and there is no best checkpoint, "
                "only the last."
            )
        elif len(absent):
            lines.append(
                f"No {part} image of {len(absent)} of {len(names)} classes: "
                f"{_listed(absent, names, _MAX_NAMES)}. Macro-F1 is the mean "
                "over the others."
            )
    return "\n".join(lines)


def save_ids(source, splits, path):
    r"""Writes which images are labeled: row, class and name, one per line.

    They are separated by tabs. A tab or a line end in a name is written as
    `\t` or `\n`.

    Args:
        source: the `Source`.
        splits: the `Splits` of its training images.
        path: of the file, such as `labeled_ids.txt`.
    """
    lines = [f"# {source.info.name}, splits {splits.fingerprint}"]
    for row in splits.labeled:
        name = source.info.class_names[source.train.labels[row]]
        name = spelling.one_line(name)
        lines.append(f"{row}\t{name}\t{_image_name(source.train, row)}")
    text = "\n".join(lines) + "\n"
    files.write_text(path, text)


def _check_sizes(num_labeled, num_validation, num_classes, num_known):
    if 0 < num_labeled < num_classes:
        raise ValueError(
            f"--num_labeled={num_labeled} gives some of the {num_classes} "
            "classes no label: raise --num_labeled."
        )
    if num_labeled + num_validation > num_known:
        lower = "one of them" if num_labeled else "--num_validation"
        raise ValueError(
            f"--num_labeled={num_labeled} and --num_validation="
            f"{num_validation} together exceed the {num_known} labeled "
            f"training images: lower {lower}. --num_validation=0 holds none "
            "out."
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
        "labeled: lower it. --num_validation=0 holds none out."
    )


def _whole_groups(labels, rows, labeled, groups):
    """Validation rows of whole groups, about as many of each class as `rows`.

    Args:
        labels: `[N]` integers, -1 where unknown.
        rows: the validation rows, if each stood alone.
        labeled: rows whose groups are not chosen, or None.
        groups: `[N]` integers.

    Raises:
        ValueError: if there are no such groups.
    """
    able = labels >= 0
    if labeled is not None:
        able &= ~np.isin(groups, groups[labeled])
    order = np.random.default_rng(2007).permutation(np.unique(groups[able]))
    inside = groups_lib.choose(
        groups,
        labels,
        np.bincount(labels[rows], minlength=labels.max() + 1),
        order,
    )
    chosen = np.flatnonzero(inside & (labels >= 0))
    groups_lib.check_share(
        len(chosen),
        len(rows),
        "validation",
        "Change --num_validation, or give the validation images: "
        "--validation_dir, or csv: rows with the split validation.",
    )
    return chosen


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


def _two_labels(hashes, labels):
    """Pairs of images with equal pixels and different labels.

    Args:
        hashes: `[n]` of the pixels.
        labels: `[n]`.

    Returns:
        `[K, 2]` positions: the first image with these pixels, and another one.
    """
    _, first, inverse = np.unique(
        hashes, return_index=True, return_inverse=True
    )
    first = first[inverse]
    other = np.flatnonzero(labels != labels[first])
    return np.stack([first[other], other], axis=1)


def _listed(classes, class_names, limit=5):
    names = [class_names[c] if class_names else str(c) for c in classes[:limit]]
    return ", ".join(names + ["..."] * (len(classes) > limit))


def _image_name(images, row):
    if images.ids is None:
        return f"row {row}"
    name = images.ids[row].decode("utf-8", "surrogateescape")
    return spelling.one_line(name)
