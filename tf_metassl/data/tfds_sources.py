"""The public datasets, as tensorflow-datasets prepares and stores them.

Prepared data is read without a network. Other data is prepared from archives
that were downloaded by hand; if these are missing, one short attempt is made to
reach their server.
"""

import dataclasses
import functools
import hashlib
import pathlib
import threading
import urllib.error
import urllib.request

import numpy as np
import tensorflow as tf

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import options as options_lib
from tf_metassl.data import spelling, store
from tf_metassl.data.arrays import rows_to_hold_out

_CONNECT_SECONDS = 5.0
_IMAGENET_LIST = "10percent.txt"
_STL10_FOLDS = "fold_indices.txt"


def load(name, dataset, options, run_dir=None):
    """Loads a dataset of tensorflow-datasets in its published order.

    Args:
        name: of the dataset there.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
        options: a `DataOptions`.
        run_dir: not used.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the data is missing and cannot be downloaded, is
            damaged, or does not fit the options; the message says what to do.
    """
    del run_dir
    published = dataset.published
    if name == "svhn_cropped" and options.svhn_extra:
        published = dataclasses.replace(published, unlabeled="extra")
    builder = _prepared(name, published, options)
    size, shape = _image_shapes(name, published, builder, options)
    splits = [s for s in ("train", published.unlabeled, published.test) if s]
    for split in splits:
        if split not in builder.info.splits:
            raise ValueError(
                f"--dataset={name}: {builder.data_dir} has no split {split!r}; "
                "prepare it again with all splits, or set another --data_dir."
            )

    def build(folder):
        train = [s for s in splits if s != published.test]
        sizes = {s: builder.info.splits[s].num_examples for s in splits}
        for name, parts in (("train", train), ("test", [published.test])):
            store.write(
                folder,
                name,
                functools.partial(
                    _batches,
                    builder,
                    parts,
                    published,
                    _Form(shape, options.resize),
                ),
                total=sum(sizes[split] for split in parts),
                sort_by_id=True,
            )

    cache = store.cached(
        options_lib.cache_folder(options),
        name,
        settings={
            "data": str(builder.data_dir),
            "splits": splits,
            "shape": list(shape),
            **options_lib.changed(options, "resize"),
        },
        fingerprint=_fingerprint(builder.data_dir),
        build=build,
    )
    train, test = store.read(cache, ("train", "test"), options.cache_gib)
    return store.Source(
        info=DatasetInfo(
            name=name,
            class_names=tuple(builder.info.features["label"].names),
            image_shape=(*size, shape[2]),
        ),
        train=train,
        test=test,
        weak_policy=dataset.weak_policy,
        strong_policy=dataset.strong_policy,
        description=f"{builder.info.full_name} from {builder.data_dir}",
        labeled_rows=_labeled_rows(name, train, options),
    )


def load_any(name, dataset, options, run_dir=None):
    """Loads the dataset of image classification that `--tfds_name` names.

    It has been prepared in `--data_dir`; its builder need not be known. Its
    split `test` are the test images, if they have labels, and its split
    `validation` the validation images.

    Args:
        name: of the row.
        dataset: its row of `tf_metassl.data.datasets.DATASETS`.
        options: a `DataOptions`.
        run_dir: not used.

    Returns:
        A `Source`.

    Raises:
        ValueError: if it is not there, is no image classification, is damaged
            or does not fit the options; the message says what to do.
    """
    del run_dir
    builder = _on_disk(options)
    given = f"--tfds_name={options.tfds_name}"
    image, label = _features(builder, given)
    by_role = _splits_by_role(builder, given)
    published = dataclasses.replace(
        dataset.published,
        test=by_role.get("test", ""),
        unlabeled=by_role.get("unlabeled"),
    )
    size, shape = _image_shapes(name, published, builder, options, image)
    if None in (*size, *shape):
        raise ValueError(
            f"{given}: the images differ in size, or their size is not known, "
            "so --image_size must be set."
        )
    if shape[2] not in (1, 3):
        raise ValueError(
            f"{given}: the images have {shape[2]} channels; 1 or 3 are "
            "expected."
        )
    form = _Form(shape, options.resize, image, label)
    roles = ("train", "validation", "unlabeled")
    train_splits = [by_role[role] for role in roles if role in by_role]

    def build(folder):
        parts = {"train": train_splits}
        if published.test:
            parts["test"] = [published.test]
        for part, splits in parts.items():
            counts = [builder.info.splits[s].num_examples for s in splits]
            store.write(
                folder,
                part,
                functools.partial(_batches, builder, splits, published, form),
                total=sum(counts),
                sort_by_id=True,
            )

    cache = store.cached(
        options_lib.cache_folder(options),
        name,
        settings={
            "data": str(builder.data_dir),
            "splits": [*train_splits, published.test],
            "shape": list(shape),
            **options_lib.changed(options, "resize"),
        },
        fingerprint=_fingerprint(builder.data_dir),
        build=build,
    )
    parts = ("train", "test") if published.test else ("train",)
    train, *tests = store.read(cache, parts, options.cache_gib)
    names = tuple(builder.info.features[label].names)
    notes = [f"{builder.info.full_name} from {builder.data_dir}."]
    test = tests[0] if tests else None
    if test is not None and not np.all(test.labels >= 0):
        notes.append("Its test images have no labels and are not used.")
        test = None
    validation = _rows_of(train, by_role.get("validation"))
    if test is None:
        labels = train.labels.copy()
        labels[validation] = -1
        rows = rows_to_hold_out(labels, options.test_fraction)
        if not len(rows):
            raise ValueError(
                f"{given}: nothing can be held out for testing. Raise "
                "--test_fraction."
            )
        notes.append(
            f"The test images are {options.test_fraction:.0%} of each class's "
            "labeled images, held out because no others are given."
        )
        left = np.setdiff1d(np.arange(len(train)), rows)
        test, train = train.take(rows), train.take(left)
        validation = _rows_of(train, by_role.get("validation"))
    return store.Source(
        info=DatasetInfo(
            name=name, class_names=names, image_shape=(*size, shape[2])
        ),
        train=train,
        test=test,
        weak_policy="random_crop"
        if options.stored_size
        else dataset.weak_policy,
        strong_policy=dataset.strong_policy,
        description=" ".join(notes),
        validation_rows=validation if len(validation) else None,
    )


def _on_disk(options):
    """The builder of what has been prepared for `--tfds_name`."""
    import tensorflow_datasets as tfds

    if not options.tfds_name:
        raise ValueError(
            "--dataset=tfds needs --tfds_name, the name of a dataset that "
            "tensorflow-datasets has prepared in --data_dir."
        )
    place, _, version = options.tfds_name.partition(":")
    folder = _data_dir(options) / place
    if version:
        found = [folder / version / "dataset_info.json"]
        found = [path for path in found if path.is_file()]
    else:
        found = list(folder.glob("*/dataset_info.json"))
    if not found:
        configs = sorted(
            {p.parent.parent.name for p in folder.glob("*/*/dataset_info.json")}
        )
        hint = f" It has the configurations {', '.join(configs)}: give {place}"
        raise ValueError(
            f"--tfds_name={options.tfds_name}: nothing is prepared in {folder}."
            + (f"{hint}/{configs[0]}." if configs else "")
            + " Prepare it with tensorflow-datasets, or set --data_dir to the "
            "folder that contains it."
        )

    def number(path):
        return [
            (int(part), "") if part.isdecimal() else (-1, part)
            for part in path.parent.name.split(".")
        ]

    return tfds.builder_from_directory(max(found, key=number).parent)


def _features(builder, given):
    """The names of the features with the image and with the label."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    result = []
    for usual, kind in wanted.items():
        names = [n for n in features if isinstance(features[n], kind)]
        if len(names) > 1 and usual in names:
            names = [usual]
        if len(names) != 1:
            listed = ", ".join(
                f"{n} ({type(features[n]).__name__})" for n in features
            )
            raise ValueError(
                f"{given} is no image classification: expected one feature "
                f"{kind.__name__}, as {usual}; it has {listed}."
            )
        result += names
    return result


def _splits_by_role(builder, given):
    """`train`, `validation`, `test` and `unlabeled` -> name of the split."""
    names = list(builder.info.splits)
    by_role = {}
    for split in names:
        if role := spelling.split(split):
            by_role.setdefault(role, split)
    if "train" not in by_role:
        raise ValueError(
            f"{given}: expected a split train; it has {', '.join(names)}."
        )
    return by_role


def _rows_of(images, split):
    """Rows with a label that are from a split, by their ids."""
    if split is None:
        return np.zeros(0, np.int64)
    of_split = np.char.startswith(images.ids, f"{split}_".encode())
    return np.flatnonzero(of_split & (images.labels >= 0))


# Reading.


@dataclasses.dataclass(frozen=True)
class _Form:
    """What becomes of the features of an example.

    Attributes:
        shape: of the images that are stored.
        resize: see `--resize`.
        image: name of the feature with the image.
        label: name of the one with the label.
    """

    shape: tuple[int, int, int]
    resize: str
    image: str = "image"
    label: str = "label"


def _image_shapes(name, published, builder, options, image="image"):
    """(height, width) of the views, and the shape of the stored images."""
    height, width, channels = builder.info.features[image].shape
    size = options.image_size or published.image_size
    stored = options_lib.stored_size(options, size, published.stored_ratio)
    if stored and height and stored > min(height, width):
        flag = "stored_size" if options.stored_size else "image_size"
        raise ValueError(
            f"--{flag}={stored} is larger than the {height}x{width} images "
            f"of --dataset={name}: lower it."
        )
    return (size or height, size or width), (
        stored or height,
        stored or width,
        options.channels or channels,
    )


_BATCH = 256


def _batches(builder, splits, published, form, done):
    """Yields `(images, labels, ids, None)` of several splits.

    Sorted by id, images are in published order.

    Args:
        builder: of the dataset.
        splits: names of the splits.
        published: a `Published`.
        form: a `_Form`.
        done: batches that are left out because they have been decoded before.
    """
    for split in splits:
        count = builder.info.splits[split].num_examples
        num_batches = -(-count // _BATCH)
        if done < num_batches:
            yield from _batches_of(builder, split, published, form, done)
        done = max(done - num_batches, 0)


def _batches_of(builder, split, published, form, done):
    """The batches of one split after the first `done`."""
    import tensorflow_datasets as tfds

    def fit(example):
        found = {
            "image": _fit(example[form.image], form.shape, form.resize),
            "label": example[form.label],
        }
        if published.key in example:
            found[published.key] = example[published.key]
        return found

    # One file after the other, so that the position tells the number.
    config = tfds.ReadConfig(interleave_cycle_length=1)
    start = _BATCH * done
    images = builder.as_dataset(
        split=f"{split}[{start}:]" if start else split,
        shuffle_files=False,
        read_config=config,
    )
    images = images.map(fit, tf.data.AUTOTUNE).batch(_BATCH)
    count = builder.info.splits[split].num_examples
    has_key = published.key in builder.info.features
    if not has_key:
        numbers = _published_numbers(builder, split, count)
    try:
        for batch in images.as_numpy_iterator():
            size = len(batch["image"])
            labels = batch["label"]
            if split == published.unlabeled:
                labels = np.full(size, -1)
            if has_key:
                ids = batch[published.key]
            else:
                part = numbers[start : start + size]
                ids = [f"{split}_{number:06d}".encode() for number in part]
            yield batch["image"], labels, ids, None
            start += size
    except tf.errors.OpError as error:
        raise _damaged(builder, split, error.message) from error
    if start != count:
        raise _damaged(builder, split, f"{start} images instead of {count}")


def _fit(image, shape, resize):
    """Converts channels and resizes an image, see `--resize`."""
    height, width, channels = shape
    if image.shape[2] != channels:
        to_gray = channels == 1
        convert = (
            tf.image.rgb_to_grayscale if to_gray else tf.image.grayscale_to_rgb
        )
        image = convert(image)
    if image.shape[:2] != (height, width):
        sides = tf.cast(tf.shape(image)[:2], tf.float32)
        if resize == "squash":
            sides = tf.constant([height, width])
        else:
            letterbox = resize == "letterbox"
            side = (tf.reduce_max if letterbox else tf.reduce_min)(sides)
            factor = tf.cast(height, tf.float32) / side
            sides = tf.cast(tf.round(sides * factor), tf.int32)
            sides = tf.maximum(sides, 1)
        resized = tf.image.resize(image, sides, antialias=True)
        # One of them pads and cuts nothing, as does the other.
        resized = tf.image.resize_with_crop_or_pad(resized, height, width)
        image = tf.cast(tf.round(resized), tf.uint8)
    return tf.ensure_shape(image, shape)


def _published_numbers(builder, split, count):
    """Returns the number that each stored image had when it was prepared.

    Images are stored in the order of a hash of their number.
    """
    from tensorflow_datasets.core import hashing

    if builder.info.disable_shuffling:
        return range(count)
    hasher = hashing.Hasher(split)
    return sorted(range(count), key=hasher.hash_key)


def _fingerprint(folder):
    """Changes when a file of a prepared dataset does."""
    files = sorted(pathlib.Path(folder).iterdir())
    stats = [(path.name, path.stat()) for path in files]
    text = repr([(name, s.st_size, s.st_mtime_ns) for name, s in stats])
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(builder, split, problem):
    return ValueError(
        f"{builder.data_dir} is damaged (split {split}: {problem}). Remove it "
        "and prepare it again, or set another --data_dir."
    )


# Labeled rows that a dataset prescribes.


def _labeled_rows(name, train, options):
    if name == "imagenet2012":
        names = np.array(_imagenet_names(options), np.bytes_)
        return np.flatnonzero(np.isin(train.ids, names))
    if name == "stl10" and options.stl10_fold >= 0:
        return _stl10_fold(options)
    return None


def _imagenet_names(options):
    """File names of the 10 % of ImageNet whose labels are used."""
    import tensorflow_datasets as tfds

    path = _find(_IMAGENET_LIST, options)
    if path:
        return path.read_text().split()
    builder = tfds.builder(
        "imagenet2012_subset/10pct", data_dir=_data_dir(options)
    )
    if not builder.is_prepared():
        raise ValueError(
            "--dataset=imagenet2012 takes its labeled images from a list: put "
            f"{_IMAGENET_LIST} (github.com/google-research/simclr, folder "
            f"imagenet_subsets) into {_manual_dir(options)} or set "
            "--manual_dir to its folder."
        )
    skip = {"image": tfds.decode.SkipDecoding()}
    images = builder.as_dataset(split="train", decoders=skip)
    return [e["file_name"].decode() for e in images.as_numpy_iterator()]


def _stl10_fold(options):
    path = _find(_STL10_FOLDS, options)
    if not path:
        raise ValueError(
            f"--stl10_fold={options.stl10_fold} needs {_STL10_FOLDS}, which is "
            "in stl10_binary.tar.gz (ai.stanford.edu/~acoates/stl10): put it "
            f"into {_manual_dir(options)} or set --manual_dir to its folder."
        )
    lines = path.read_text().strip().splitlines()
    if options.stl10_fold >= len(lines):
        raise ValueError(
            f"--stl10_fold={options.stl10_fold}, but {path} has only "
            f"{len(lines)} lines."
        )
    return np.array(lines[options.stl10_fold].split(), np.int64)


# Preparing.


def _prepared(name, published, options):
    """Returns a builder of tensorflow-datasets whose data is prepared."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=_data_dir(options))
    if builder.is_prepared():
        return builder
    # Another version than this tensorflow-datasets would prepare.
    folder = pathlib.Path(builder.data_dir)
    others = sorted(folder.parent.glob("*/dataset_info.json"))
    if others:
        return tfds.builder_from_directory(others[-1].parent)
    _check_archives(name, published, builder, options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with store.lock(folder.with_name(folder.name + ".lock")):
        try:
            builder.download_and_prepare(
                download_dir=_download_dir(options),
                download_config=tfds.download.DownloadConfig(
                    manual_dir=_manual_dir(options)
                ),
            )
        except Exception as error:  # Many libraries raise many types.
            raise ValueError(
                f"--dataset={name} could not be prepared in {folder}: {error}"
            ) from error
    return builder


def _check_archives(name, published, builder, options):
    """Raises ValueError if an archive is missing and cannot be fetched."""
    missing = {}
    for url, info in builder.url_infos.items():
        file_name = info.filename or url.rsplit("/", 1)[-1]
        wanted = not published.archives or file_name in published.archives
        if wanted and not _is_there(name, url, info, file_name, options):
            missing[file_name] = url
    if not missing:
        return
    if published.archives:
        reason = "some of them are for registered users only"
    else:
        reason = _unreachable(next(iter(missing.values())))
        if not reason:
            return
    listing = "\n".join(f"  {n}  from {url}" for n, url in missing.items())
    raise ValueError(
        f"--dataset={name} is not prepared in {builder.data_dir}, and these "
        f"archives of it are missing ({reason}):\n{listing}\nPut them into "
        f"{_manual_dir(options)} (--manual_dir), or copy a folder that "
        "tensorflow-datasets has prepared elsewhere and set --data_dir to the "
        "folder that contains it."
    )


def _is_there(name, url, info, file_name, options):
    from tensorflow_datasets.core.download import resource

    cached_name = resource.get_dl_fname(url, info.checksum)
    downloads = _download_dir(options)
    places = (
        _manual_dir(options) / file_name,
        downloads / name.split("/")[0] / cached_name,
        downloads / cached_name,
    )
    return any(place.exists() for place in places)


def _unreachable(url, seconds=None):
    """Returns within seconds why `url` cannot be reached; None if it can."""
    seconds = seconds or _CONNECT_SECONDS
    answers = []

    def ask():
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            answers.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            answers.append(None)  # A server that refuses is reachable.
        except Exception as error:
            answers.append(getattr(error, "reason", None) or error)

    # Looking up a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    host = urllib.request.Request(url).host
    if not answers:
        return f"{host} does not answer within {seconds:g} seconds"
    return answers[0] and f"{host} cannot be reached: {answers[0]}"


def _data_dir(options):
    import tensorflow_datasets as tfds

    default = tfds.core.constants.DATA_DIR
    return pathlib.Path(options.data_dir or default).expanduser().absolute()


def _download_dir(options):
    return _data_dir(options) / "downloads"


def _manual_dir(options):
    if options.manual_dir:
        return pathlib.Path(options.manual_dir).expanduser()
    return _download_dir(options) / "manual"


def _find(file_name, options):
    """Finds a small file beside the archives; None if there is none."""
    places = (_manual_dir(options), _data_dir(options))
    extracted = _download_dir(options).glob(f"extracted/*/*/{file_name}")
    paths = [place / file_name for place in places] + sorted(extracted)
    return next((path for path in paths if path.is_file()), None)
