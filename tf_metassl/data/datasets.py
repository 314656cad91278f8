"""The registry: dataset name -> its loader and everything that suits it.

Imports no TensorFlow, and loaders are text, so that listing the datasets is
quick. A new dataset is one row here and a function that loads it.
"""

import dataclasses
from collections.abc import Mapping

# Mean and standard deviation of each channel.
PixelStatistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Published:
    """How tensorflow-datasets publishes and stores a dataset.

    Attributes:
        test: name of the split with the test images.
        unlabeled: name of a split without labels.
        key: feature that sorts the images into their published order; without
            it, they were numbered in that order when they were prepared.
        image_size: height and width if `--image_size` is 0; 0 = as published.
        stored_ratio: size at which images are stored, relative to the size at
            which they are used.
        archives: what has to be downloaded by hand; empty: there are links to
            all archives.
    """

    test: str = "test"
    unlabeled: str | None = None
    key: str = ""
    image_size: int = 0
    stored_ratio: float = 1
    archives: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A value of `--dataset`.

    Attributes:
        loader: `module:function`. The function takes the dataset's name, this
            row, a `DataOptions` and the folder for the list of unusable image
            files, or None; it returns a `tf_metassl.data.store.Source`.
        defaults: settings that suit the images, name -> value; they apply
            unless a flag is given.
        weak_policy: name of the weak augmentation that suits the images.
        strong_policy: name of the strong one.
        pixel_statistics: mean and standard deviation of each channel of the
            training images, on a scale of 0...1, as published; None: they are
            computed from the images.
        published: for the loader of tensorflow-datasets.
        reads: names of the `DataOptions` that the loader reads; all others
            have no effect, and none may be given.
    """

    loader: str
    defaults: Mapping[str, object]
    weak_policy: str = "flip_crop"
    strong_policy: str = "fixmatch"
    pixel_statistics: PixelStatistics | None = None
    published: Published = Published()
    reads: tuple[str, ...] = ()


# The loader of what tensorflow-datasets prepares.
TFDS = "tf_metassl.data.tfds_sources:load"

_SIZES = (
    *("channels", "image_size", "resize", "stored_size"),
    *("cache_dir", "cache_gib"),
)
_PREPARED = ("data_dir", "manual_dir", "label_split", *_SIZES)
_FILES = (
    *("test_fraction", "max_bad_fraction", "label_split", *_SIZES),
    *("missing_labels", "max_image_bytes", "max_image_pixels", "max_value"),
)
_FOLDERS = (
    *("labeled_dir", "unlabeled_dir", "validation_dir", "test_dir"),
    "group_by",
)

# Starting points. Only the defaults of digits were chosen by validation
# accuracy, see results/.
_SMALL_PHOTOS = {
    "model": "wrn_28_2",
    "num_labeled": 4000,
    "num_validation": 5000,
    "num_steps": 100_000,
    "learning_rate": 0.03,
    "weight_decay": 5e-4,
    "ema_decay": 0.999,
}
_OWN_IMAGES = {
    **_SMALL_PHOTOS,
    "model": "auto",
    "num_labeled": 0,
    "num_validation": -1,
    "num_steps": 5000,
    "ema_decay": 0.99,
}
_IMAGENET_TARS = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
_IMAGENET = Dataset(
    loader=TFDS,
    reads=_PREPARED,
    defaults={
        **_SMALL_PHOTOS,
        "num_labeled": 0,
        "num_validation": 10_000,
        "num_steps": 500_000,
    },
    weak_policy="resized_crop",
    strong_policy="mpl_imagenet",
    pixel_statistics=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    published=Published(
        test="validation",
        key="file_name",
        image_size=224,
        stored_ratio=8 / 7,
        archives=_IMAGENET_TARS,
    ),
)

DATASETS = {
    "digits": Dataset(
        loader="tf_metassl.data.sklearn_sources:digits",
        reads=("label_split",),
        defaults={"model": "digits_cnn", "num_steps": 600},
        weak_policy="affine",
        strong_policy="affine_digits",
    ),
    "cifar10": Dataset(
        loader=TFDS,
        reads=_PREPARED,
        defaults=_SMALL_PHOTOS,
        pixel_statistics=(
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
        ),
        published=Published(key="id"),
    ),
    "cifar100": Dataset(
        loader=TFDS,
        reads=_PREPARED,
        defaults={**_SMALL_PHOTOS, "num_labeled": 10_000},
        pixel_statistics=(
            (0.507075, 0.486549, 0.440918),
            (0.267334, 0.256438, 0.276151),
        ),
        published=Published(key="id"),
    ),
    "svhn_cropped": Dataset(
        loader=TFDS,
        reads=(*_PREPARED, "svhn_extra"),
        defaults={**_SMALL_PHOTOS, "num_labeled": 1000},
        weak_policy="crop",
        pixel_statistics=(
            (0.43768, 0.44377, 0.47280),
            (0.19803, 0.20102, 0.19704),
        ),
        published=Published(key="id"),
    ),
    "stl10": Dataset(
        loader=TFDS,
        reads=(*_PREPARED, "stl10_fold"),
        defaults={
            **_SMALL_PHOTOS,
            "num_labeled": 1000,
            "num_validation": 500,
        },
        published=Published(unlabeled="unlabelled"),
    ),
    "fashion_mnist": Dataset(
        loader=TFDS,
        reads=_PREPARED,
        defaults={**_SMALL_PHOTOS, "num_labeled": 1000},
    ),
    "mnist": Dataset(
        loader=TFDS,
        reads=_PREPARED,
        defaults={**_SMALL_PHOTOS, "num_labeled": 100},
        weak_policy="affine",
        strong_policy="affine_digits",
    ),
    "imagenet2012": _IMAGENET,
    "imagenet2012_subset/10pct": dataclasses.replace(
        _IMAGENET,
        published=dataclasses.replace(
            _IMAGENET.published, archives=(*_IMAGENET_TARS, "10percent.txt")
        ),
    ),
    "folder": Dataset(
        loader="tf_metassl.data.folder:load_folder",
        defaults=_OWN_IMAGES,
        reads=(*_FOLDERS, *_FILES),
    ),
    "csv": Dataset(
        loader="tf_metassl.data.folder:load_csv",
        defaults=_OWN_IMAGES,
        reads=("manifest", "group_by", *_FILES),
    ),
    "array_file": Dataset(
        loader="tf_metassl.data.array_file:load",
        defaults=_OWN_IMAGES,
        reads=("array_file", "test_fraction", "label_split"),
    ),
    "tfrecord": Dataset(
        loader="tf_metassl.data.tfrecord:load",
        defaults=_OWN_IMAGES,
        reads=("tfrecord", *_FILES),
    ),
    "tfds": Dataset(
        loader="tf_metassl.data.tfds_sources:load_any",
        defaults=_OWN_IMAGES,
        reads=(
            "tfds_name",
            "data_dir",
            "test_fraction",
            "label_split",
            *_SIZES,
        ),
    ),
    "arrays": Dataset(
        loader="tf_metassl.data.arrays:load",
        defaults=_OWN_IMAGES,
        reads=("test_fraction", "label_split"),
    ),
    "two_moons": Dataset(
        loader="tf_metassl.data.sklearn_sources:two_moons",
        reads=("label_split",),
        defaults={
            "model": "two_moons_mlp",
            "num_labeled": 6,
            "normalization": "mean_std",
            "weight_decay": 0.0,
            "num_steps": 4000,
            "learning_rate": 0.5,
            "lr_schedule": "constant",
        },
        weak_policy="jitter",
        strong_policy="jitter_points",
    ),
}
