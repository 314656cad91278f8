"""The settings of a dataset, one field per flag. Imports no TensorFlow."""

import dataclasses
import os
import pathlib

from tf_metassl.hyperparameters import setting

RESIZES = ("shorter_side", "letterbox", "squash")
LABEL_SPLITS = ("balanced", "proportional", "long_tailed", "first")


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Where the images of a dataset are and how they are read."""

    data_dir: str = setting(
        "",
        "Folder of datasets prepared by tensorflow-datasets. Empty = its own "
        "default.",
    )
    manual_dir: str = setting(
        "",
        "Folder of archives that were downloaded by hand, to prepare a dataset "
        "from. Empty = downloads/manual in --data_dir.",
    )
    labeled_dir: str = setting(
        "",
        "--dataset=folder: the labeled images, in one sub-folder per class; or "
        "a folder with the sub-folders train, validation, test and unlabeled, "
        "or some of them.",
    )
    unlabeled_dir: str = setting(
        "",
        "--dataset=folder: unlabeled images, in any sub-folders; several "
        "folders are separated by commas. Empty = the labeled images beyond "
        "--num_labeled.",
    )
    validation_dir: str = setting(
        "",
        "--dataset=folder: validation images, in sub-folders named as those of "
        "--labeled_dir. Empty = --num_validation of the labeled images.",
    )
    test_dir: str = setting(
        "",
        "--dataset=folder: test images, in sub-folders named as those of "
        "--labeled_dir. Empty = --test_fraction of the labeled images.",
    )
    manifest: str = setting(
        "",
        "--dataset=csv: a file with the columns path (relative to the file), "
        "label (empty = unlabeled) and split (train, validation, test or "
        "unlabeled; empty = train).",
    )
    array_file: str = setting(
        "",
        "--dataset=array_file: an .npz file with x_train, y_train and perhaps "
        "x_val, y_val, x_test, y_test, x_unlabeled and class_names; or a "
        "folder of idx files, as MNIST's.",
    )
    tfrecord: str = setting(
        "",
        "--dataset=tfrecord: TFRecord files of tf.train.Example, such as "
        "DIR/*.tfrecord, with image/encoded and image/class/label or "
        "image/class/text; records without a label are unlabeled. A file whose "
        "name has the word validation, test or unlabeled holds that split.",
    )
    tfds_name: str = setting(
        "",
        "--dataset=tfds: an image classification dataset that "
        "tensorflow-datasets has prepared in --data_dir, such as beans or "
        "NAME/CONFIG:VERSION.",
    )
    missing_labels: str = setting(
        "refuse",
        "folder, csv and tfrecord: what a label or a sub-folder means whose "
        "name usually says that there is no label, such as nan, none, ?, -1 or "
        "unlabeled. "
        "refuse: the run stops and counts them; unlabeled: the images have no "
        "label; class: it is the name of a class.",
        choices=("refuse", "unlabeled", "class"),
    )
    group_by: str = setting(
        "",
        "folder and csv: images that belong together, such as those of a "
        "patient, are all for training, all for validation or all for testing. "
        "parent: those of one sub-folder, by its path below the folder of the "
        "class; or the name of a column of --manifest. Empty = every image "
        "stands alone.",
    )
    test_fraction: float = setting(
        0.2,
        "folder, csv, array_file, tfrecord and tfds without test images: share "
        "of each class's labeled images that is held out for testing.",
        minimum=0.0,
        maximum=0.9,
    )
    channels: int = setting(
        0,
        "3 = color, 1 = gray, 0 = as published (folder, csv and tfrecord: "
        "color).",
        choices=(0, 1, 3),
    )
    image_size: int = setting(
        0,
        "Height and width of the images, see --resize. 0 = as published "
        "(imagenet: 224; folder and csv: the size that all images share).",
        minimum=0,
        maximum=8192,
    )
    resize: str = setting(
        "shorter_side",
        "How images become squares of --image_size. shorter_side: it is "
        "resized, and the center is cut out; letterbox: the longer side is "
        "resized, and the rest is black; squash: both sides are resized.",
        choices=RESIZES,
    )
    stored_size: int = setting(
        0,
        "Height and width at which images are stored, at least --image_size: "
        "--weak_augmentation=random_crop and resized_crop cut windows out of "
        "the stored image; other policies and evaluation use its center. 0 = "
        "--image_size (imagenet: 8/7 of it).",
        minimum=0,
        maximum=8192,
    )
    max_bad_fraction: float = setting(
        0.01,
        "folder, csv and tfrecord: the run stops if a larger share of the "
        "images cannot be used.",
        minimum=0.0,
        maximum=1.0,
    )
    max_image_bytes: int = setting(
        200_000_000,
        "folder, csv and tfrecord: larger files are not read.",
        minimum=1,
    )
    max_image_pixels: int = setting(
        100_000_000,
        "folder, csv and tfrecord: images with more pixels are not decoded; "
        "JPEGs are decoded at a fraction of their size if that is large "
        "enough.",
        minimum=1,
    )
    max_value: int = setting(
        65_535,
        "folder, csv and tfrecord: the value of images with 16 bits that "
        "becomes 255: 4095 for 12 bits, 1023 for 10. 0 = the largest one of "
        "each image.",
        minimum=0,
        maximum=65_535,
    )
    cache_dir: str = setting(
        "",
        "Where decoded images are kept. Empty = ~/.cache/tf_metassl.",
    )
    cache_gib: float = setting(
        4.0,
        "Decoded images of up to this many GiB are held in memory; larger "
        "datasets are read from --cache_dir as they are needed.",
        minimum=0.0,
    )
    svhn_extra: bool = setting(
        False,
        "svhn_cropped: use its extra split as unlabeled images.",
    )
    stl10_fold: int = setting(
        -1,
        "stl10: take the labeled images from this one of the 10 official folds "
        "of 1,000. -1 = from all 5,000.",
        minimum=-1,
        maximum=9,
    )
    label_split: str = setting(
        "balanced",
        "Which training images are the labeled ones. balanced: as many of each "
        "class; proportional: by class frequency; long_tailed: ever fewer of "
        "each next class, ten times fewer of the last one than of the first; "
        "first: the first ones in the published order.",
        choices=LABEL_SPLITS,
    )


def stored_size(options: DataOptions, image_size: int, times: float = 1) -> int:
    """Returns the height and width at which square images are stored.

    Args:
        options: a `DataOptions`.
        image_size: of the views; 0 = as published.
        times: ratio of the stored size to it, unless `--stored_size` is given.

    Raises:
        ValueError: if `--stored_size` is too small.
    """
    if options.stored_size and not image_size:
        raise ValueError(
            f"--stored_size={options.stored_size} needs --image_size, the size "
            "of the windows that are cut out of the stored images."
        )
    if options.stored_size and options.stored_size < image_size:
        raise ValueError(
            f"--stored_size={options.stored_size} is smaller than "
            f"--image_size={image_size}: raise it, or leave it out."
        )
    return options.stored_size or round(image_size * times)


def changed(options: DataOptions, *names: str) -> dict[str, object]:
    """The settings that are not the default, for the key of a cache.

    A setting that is left out there where it changes nothing keeps the caches
    of versions without it.

    Args:
        options: a `DataOptions`, or anything with its fields.
        *names: of the settings.
    """
    defaults = DataOptions()
    return {
        name: getattr(options, name)
        for name in names
        if getattr(options, name) != getattr(defaults, name)
    }


def cache_folder(options: DataOptions) -> pathlib.Path:
    """Returns the folder of decoded images, a `pathlib.Path`.

    Args:
        options: a `DataOptions`.
    """
    if options.cache_dir:
        return pathlib.Path(options.cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "tf_metassl"
