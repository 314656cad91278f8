"""The settings of a dataset, one field per flag. Imports no TensorFlow."""

import dataclasses
import os
import pathlib

from tf_metassl.hyperparameters import setting

# The keys of `tf_metassl.data.sources.SOURCES`, for flags that are defined
# before TensorFlow is imported.
DATASETS = (
    "digits",
    "cifar10",
    "cifar100",
    "svhn_cropped",
    "stl10",
    "fashion_mnist",
    "mnist",
    "imagenet2012",
    "imagenet2012_subset/10pct",
    "folder",
    "csv",
    "two_moons",
)

# Mean and standard deviation of each channel of the training images, on a scale
# of 0...1, as the literature has them.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PIXEL_STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (
        (0.507075, 0.486549, 0.440918),
        (0.267334, 0.256438, 0.276151),
    ),
    "svhn_cropped": (
        (0.43768, 0.44377, 0.47280),
        (0.19803, 0.20102, 0.19704),
    ),
    "imagenet2012": _IMAGENET,
    "imagenet2012_subset/10pct": _IMAGENET,
}

LABEL_SPLITS = ("balanced", "proportional", "first")


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
        "Folder of archives that were downloaded by hand, from which a dataset "
        "is prepared. Empty = downloads/manual in --data_dir.",
    )
    labeled_dir: str = setting(
        "",
        "--dataset=folder: the labeled images, in one sub-folder per class.",
    )
    unlabeled_dir: str = setting(
        "",
        "--dataset=folder: unlabeled images, in any sub-folders. Empty = the "
        "labeled images beyond --num_labeled.",
    )
    validation_dir: str = setting(
        "",
        "--dataset=folder: validation images, in the same sub-folders as "
        "--labeled_dir. Empty = --num_validation of the labeled images.",
    )
    test_dir: str = setting(
        "",
        "--dataset=folder: test images, in the same sub-folders as "
        "--labeled_dir. Empty = --test_fraction of the labeled images.",
    )
    manifest: str = setting(
        "",
        "--dataset=csv: a file with the columns path (relative to the file), "
        "label (empty = unlabeled) and split (train, validation, test or "
        "unlabeled; empty = train).",
    )
    test_fraction: float = setting(
        0.2,
        "Share of each class's labeled images that is held out for testing "
        "where folder or csv name no test images.",
        minimum=0.0,
        maximum=0.9,
    )
    channels: int = setting(
        0,
        "3 = color, 1 = gray, 0 = as published (folder and csv: color).",
        choices=(0, 1, 3),
    )
    image_size: int = setting(
        0,
        "Height and width of the images: the shorter side is resized, the "
        "center cut out. 0 = as published (imagenet: 224; folder and csv: the "
        "size that all images share).",
        minimum=0,
    )
    stored_size: int = setting(
        0,
        "Height and width at which images are kept where that is more than "
        "--image_size: --weak_augmentation=random_crop and resized_crop take "
        "their windows out of it, all others and evaluation the middle. 0 = "
        "--image_size (imagenet: 8/7 of it).",
        minimum=0,
    )
    max_bad_fraction: float = setting(
        0.01,
        "folder and csv: a larger share of unusable image files stops the run.",
        minimum=0.0,
        maximum=1.0,
    )
    cache_dir: str = setting(
        "",
        "Where decoded images are kept. Empty = ~/.cache/tf_metassl.",
    )
    cache_gib: float = setting(
        4.0,
        "Decoded images up to this many GiB are held in memory, more are read "
        "from --cache_dir as they are needed.",
        minimum=0.0,
    )
    svhn_extra: bool = setting(
        False, "svhn_cropped: use its extra split as unlabeled images."
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
        "class; proportional: by class frequency; first: the first ones in the "
        "published order.",
        choices=LABEL_SPLITS,
    )


def stored_size(options, image_size, times=1):
    """Height and width at which square images are stored.

    Args:
        options: a `DataOptions`.
        image_size: of the views; 0 = as published.
        times: stored in relation to it where `--stored_size` does not say.

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


def cache_folder(options):
    """The folder of decoded images, a `pathlib.Path`.

    Args:
        options: a `DataOptions`.
    """
    if options.cache_dir:
        return pathlib.Path(options.cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "tf_metassl"
