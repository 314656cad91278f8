"""Images that are already in memory: NumPy arrays."""

import numpy as np

from tf_metassl.contract import DatasetInfo
from tf_metassl.data.store import Images, Source
from tf_metassl.errors import ConfigError


def load(name, dataset, options, run_dir=None):
    """Refuses: the images of such a run are not on disk.

    Args:
        name: of the dataset.
        dataset: not used.
        options: not used.
        run_dir: not used.

    Raises:
        ConfigError: always.
    """
    del dataset, options, run_dir
    raise ConfigError(
        f"--dataset={name}: the images of this run were given to "
        "tf_metassl.fit as arrays, so that only Python can continue or "
        "evaluate it. predict, pseudo_label, export and evaluate with "
        "--labeled_dir or --manifest need no images of the run."
    )


def source(
    dataset, labeled, unlabeled=None, validation=None, test=None, **options
):
    """Makes a `Source` of arrays.

    Images are `[N, H, W, C]` or `[N, H, W]` uint8; labels `[N]` integers, the
    indices of the classes.

    Args:
        dataset: row of `tf_metassl.data.datasets.DATASETS`.
        labeled: images and labels; -1 is no label.
        unlabeled: images, or None.
        validation: images and labels, or None.
        test: images and labels; None: some of the labeled ones.
        **options: `class_names`, one per class, or None for their indices;
            `test_fraction`, share of each class that is held out for testing
            without `test`.

    Returns:
        A `Source`.

    Raises:
        ConfigError: if shapes, dtypes or labels cannot be used; the message
            names the argument.
    """
    class_names = options.get("class_names")
    images, labels = pair("labeled", labeled)
    if not np.any(labels >= 0):
        raise ConfigError("labeled: no image has a label of 0 or more.")
    num_classes = int(labels.max()) + 1
    names = tuple(class_names or map(str, range(num_classes)))
    if len(names) < max(num_classes, 2):
        raise ConfigError(
            f"class_names: expected at least {max(num_classes, 2)} names, for "
            f"labels up to {num_classes - 1}; got {len(names)}."
        )
    held_out = ""
    if test is None:
        fraction = options.get("test_fraction", 0.2)
        rows = rows_to_hold_out(labels, fraction)
        if not len(rows):
            raise ConfigError(
                "test: nothing can be held out of so few labeled images. Give "
                "test=(images, labels)."
            )
        test = images[rows], labels[rows]
        images, labels = np.delete(images, rows, 0), np.delete(labels, rows)
        held_out = (
            f"The test images are {fraction:.0%} of each class's labeled "
            "images, held out because no others are given."
        )
    parts = {"labeled": (images, labels)}
    if unlabeled is not None:
        extra = as_images("unlabeled", unlabeled)
        parts["unlabeled"] = extra, np.full(len(extra), -1, np.int32)
    validation_rows = None
    if validation is not None:
        parts["validation"] = pair("validation", validation, len(names))
        first = sum(len(part) for part, _ in list(parts.values())[:-1])
        count = len(parts["validation"][1])
        validation_rows = np.arange(first, first + count)
    tested = pair("test", test, len(names))
    for name, (part, _) in {**parts, "test": tested}.items():
        if part.shape[1:] != images.shape[1:]:
            raise ConfigError(
                f"{name}: expected images of shape {images.shape[1:]}, as in "
                f"labeled; got {part.shape[1:]}."
            )
    train = (
        np.concatenate(values) for values in zip(*parts.values(), strict=True)
    )
    return Source(
        info=DatasetInfo(
            name="arrays", class_names=names, image_shape=images.shape[1:]
        ),
        train=Images(*train),
        test=Images(*tested),
        weak_policy=dataset.weak_policy,
        strong_policy=dataset.strong_policy,
        description=held_out,
        validation_rows=validation_rows,
    )


def in_memory(given):
    """Arrays, also of the elements of a `tf.data.Dataset`.

    Args:
        given: argument -> images, or images and labels: arrays, or a finite
            dataset of them, batched or not.

    Returns:
        Argument -> an array or a pair of arrays.

    Raises:
        ConfigError: if a dataset has no end, no element, or elements of another
            kind; the message names the argument.
    """
    found, rank = {}, None
    for name, values in given.items():
        if hasattr(values, "element_spec"):
            values = _collected(name, values, rank)
        found[name] = values
        if isinstance(values, tuple) and rank is None:
            rank = np.ndim(values[0]) - 1
    return found


def _collected(name, dataset, rank):
    """The elements of a dataset.

    Args:
        name: of the argument.
        dataset: a `tf.data.Dataset`.
        rank: of one of the images that were given with labels; None if none
            was: with labels, their rank tells whether elements are batches.
    """
    spec = dataset.element_spec
    is_pair = isinstance(spec, tuple) and len(spec) == 2
    if not is_pair and isinstance(spec, tuple | dict):
        raise ConfigError(
            f"{name}: expected a dataset of (image, label) or of images; its "
            f"elements are {spec}."
        )
    if int(dataset.cardinality()) == -1:
        raise ConfigError(
            f"{name}: the dataset has no end. Leave repeat() away: images are "
            "read into memory once, and batches are drawn from them."
        )
    elements = list(dataset.as_numpy_iterator())
    if not elements:
        raise ConfigError(f"{name}: the dataset has no element.")
    columns = list(zip(*elements, strict=True)) if is_pair else [elements]
    if is_pair:
        batched = np.ndim(columns[1][0]) == 1
    else:
        batched = rank is not None and np.ndim(elements[0]) == rank + 1
    join = np.concatenate if batched else np.stack
    columns = [join(column) for column in columns]
    return tuple(columns) if is_pair else columns[0]


def as_images(name, images):
    """Checks images and adds the axis of channels if it is missing.

    Args:
        name: of the argument, for messages.
        images: `[N, H, W, C]` or `[N, H, W]` uint8.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ConfigError: if they are something else.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ConfigError(
            f"{name}: expected uint8 images with values in 0 ... 255, got "
            f"{images.dtype}. Scaling is part of the network."
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or not len(images):
        raise ConfigError(
            f"{name}: expected images [N, H, W, C] or [N, H, W], got shape "
            f"{images.shape}."
        )
    return images


def pair(name, values, num_classes=None):
    """Checks images and labels.

    Args:
        name: of the argument.
        values: what was given.
        num_classes: labels must be below it and known; None: any, also -1.

    Returns:
        `[N, H, W, C]` uint8 and `[N]` int32.

    Raises:
        ConfigError: if they are something else.
    """
    try:
        images, labels = values
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name}: expected a pair of images and labels."
        ) from error
    images, labels = as_images(name, images), np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"{name}: expected {len(images)} integer labels, one per image, "
            f"got {labels.dtype} {labels.shape}."
        )
    lowest = -1 if num_classes is None else 0
    highest = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
    if len(labels) and (labels.min() < lowest or labels.max() > highest):
        raise ConfigError(
            f"{name}: expected labels from {lowest} to {highest}, got "
            f"{labels.min()} to {labels.max()}."
        )
    return images, labels.astype(np.int32)


def rows_to_hold_out(labels, fraction):
    """Rows of some images of each class, at least one and not all of them.

    Args:
        labels: `[N]` integers, negative where unknown.
        fraction: share of each class.

    Returns:
        Rows, sorted.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = []
    for k in range(int(labels.max()) + 1):
        members = order[labels[order] == k]
        count = max(round(fraction * len(members)), 1)
        chosen.append(members[: min(count, len(members) - 1)])
    return np.sort(np.concatenate(chosen))
