"""The settings of all flagfiles, as a table.

A setting is the value of a flag and its source. A recipe combines settings of
other recipes by `|`, where the right side wins. A table lists its rows, the
recipe of each row and the numbers of the paper. `tools/make_flagfiles.py`
writes a file per cell.
"""

import dataclasses
import functools
import typing

from tf_metassl import config
from tf_metassl.algorithms import hyperparameters_class

PAPER = "From the paper"
CODE = "From code released with the paper or with a comparison of methods"
RECALLED = "From the paper's appendix, recalled, not checked against its text"
OURS = "Our choices"
DEFAULT = "The defaults, since no source gives these values"
SOURCES = (PAPER, CODE, RECALLED, OURS, DEFAULT)


class Setting(typing.NamedTuple):
    """The value of a flag and its source, one of `SOURCES`."""

    value: object
    source: str


def _from(source):
    return lambda **values: {k: Setting(v, source) for k, v in values.items()}


paper, code, recalled, ours, _default = map(_from, SOURCES)


# Tasks: datasets with a number of labels.


class Task(typing.NamedTuple):
    """A dataset with a number of labels.

    Attributes:
        name: first part of the file's name.
        text: its name in headers and tables.
        labels: number of labeled training images.
        images: number of images in the unlabeled pool.
        classes: number of classes.
        image_size: height and width in pixels.
        settings: name -> `Setting`.
        missing: which further flags the file needs, and why; may be empty.
    """

    name: str
    text: str
    labels: int
    images: int
    classes: int
    image_size: int
    settings: dict
    missing: str = ""


def _small(dataset, title, images, classes, validation, labels, **more):
    """A task on images of 32 x 32; `labels` is None for all."""
    count = labels or images - validation
    return Task(
        f"{dataset.split('_')[0]}_{labels or 'all'}",
        f"{title} with {count:,} labels",
        count,
        images - validation,
        classes,
        32,
        paper(num_labeled=labels or 0)
        | ours(dataset=dataset, num_validation=validation)
        | more.get("settings", {}),
    )


def cifar10(labels):
    return _small("cifar10", "CIFAR-10", 50_000, 10, 5000, labels)


def cifar100(labels):
    return _small("cifar100", "CIFAR-100", 50_000, 100, 5000, labels)


def svhn(labels):
    return _small("svhn_cropped", "SVHN", 73_257, 10, 5000, labels)


CIFAR10_ALL = _small("cifar10", "CIFAR-10", 50_000, 10, 500, None)
SVHN_ALL = _small("svhn_cropped", "SVHN", 73_257, 10, 500, None)
# Meta Pseudo Labels and its UDA also use the extra images.
SVHN_EXTRA = svhn(1000)._replace(
    name="svhn_extra_1000",
    images=73_257 + 531_131 - 5000,
    settings=svhn(1000).settings | paper(svhn_extra=True),
)
STL10 = Task(
    "stl10_1000",
    "STL-10 with 1,000 labels",
    1000,
    104_500,
    10,
    96,
    paper(num_labeled=1000, stl10_fold=0)
    | ours(dataset="stl10", num_validation=500),
)
IMAGENET = Task(
    "imagenet",
    "ImageNet",
    1_271_167,
    1_271_167,
    1000,
    224,
    paper(dataset="imagenet2012", num_labeled=0)
    | ours(num_validation=10_000, image_size=224),
)
IMAGENET_10 = IMAGENET._replace(
    name="imagenet_10pct",
    text="ImageNet with a tenth of the labels",
    labels=128_116,
    settings=IMAGENET.settings | paper(dataset="imagenet2012_subset/10pct"),
)


def imagenet_and_jft(images, image_size):
    """ImageNet with further unlabeled images from a folder."""
    return Task(
        "imagenet_and_jft",
        f"ImageNet and {images / 1e6:g} million further unlabeled images",
        1_281_167 - 25_000,
        images,
        1000,
        image_size,
        paper(dataset="folder", num_labeled=0)
        | ours(
            num_validation=25_000,
            image_size=image_size,
            stored_size=round(image_size * 8 / 7),
            weak_augmentation="resized_crop",
            strong_augmentation="mpl_imagenet",
        ),
        "JFT is not public. Set --labeled_dir and --test_dir to the folders of "
        "ImageNet, and --unlabeled_dir to a folder of unlabeled images.",
    )


def imagenet_and_photos(name, images, where):
    """ImageNet with further unlabeled photos, as `imagenet_and_jft`."""
    task = imagenet_and_jft(images, 224)
    missing = task.missing.replace("JFT is not public.", where)
    return task._replace(name=name, missing=missing)


YFCC = imagenet_and_photos(
    "imagenet_and_yfcc",
    90_000_000,
    "The photos of YFCC100M are collected from their list.",
)
INSTAGRAM = imagenet_and_photos(
    "imagenet_and_instagram",
    1_000_000_000,
    "The photos of the paper are not public.",
)


def epochs(count, images, batch_size):
    """Steps for `count` epochs, rounded to thousands."""
    return max(round(count * images / batch_size / 1000), 1) * 1000


def _exact_epochs(count, images, batch_size):
    """Steps for `count` epochs, not rounded to thousands."""
    return round(count * images / batch_size)


# Recipes of the comparisons in Meta-Semi's tables, from the code of each
# method. A recipe is a function (task, network) -> settings, one per method;
# `network` is part of the file's name.

_SLOW_SGD = ours(
    optimizer="sgd",
    learning_rate=0.1,
    momentum=0.9,
    lr_schedule="cosine",
    weight_decay=1e-4,
    ema_decay=0.999,
)
_RATIO_1 = ours(unlabeled_batch_ratio=1)


def _is_svhn(task):
    return task.settings["dataset"].value == "svhn_cropped"


def _crop(task):
    """Shifts by two pixels and ZCA; SVHN's digits are not mirrored."""
    if _is_svhn(task):
        # The code normalizes each image separately.
        return code(weak_augmentation="narrow_crop") | ours(
            normalization="mean_std"
        )
    return code(weak_augmentation="flip_narrow_crop", normalization="zca")


def _our_crop(task):
    """Our augmentation and scaling, where no source gives them."""
    return ours(
        weak_augmentation="crop" if _is_svhn(task) else "flip_crop",
        normalization="mean_std" if _is_svhn(task) else "zca",
    )


def _mpl_images(task):
    """Augmentation and scaling of Meta Pseudo Labels' code.

    The code has none for SVHN.
    """
    if _is_svhn(task):
        return ours(
            weak_augmentation="crop",
            strong_augmentation="mpl",
            normalization="mean_std",
        )
    if task.classes == 1000:
        return code(
            weak_augmentation="resized_crop",
            strong_augmentation="mpl_imagenet",
            normalization="mean_std",
        )
    return code(
        weak_augmentation="mpl",
        strong_augmentation="mpl",
        normalization="mean_std",
    )


def _without(settings, *names):
    return {k: v for k, v in settings.items() if k not in names}


def _mpl_supervised(task, network):
    """The baselines of Meta Pseudo Labels' own implementation."""
    images = _without(_mpl_images(task), "strong_augmentation")
    if network == "resnet_50":
        return (
            images
            | recalled(
                model="resnet_50",
                learning_rate=1.28,
                batch_size=2048,
                dropout=0.2,
                num_steps=40_000,
                warmup_steps=2000,
                weight_decay=2e-4,
            )
            | ours(ema_decay=0.999, precision="mixed_bfloat16")
        )
    common = (
        images
        | code(model="wrn_28_2_mpl")
        | _first(task)
        | recalled(num_steps=50_000, weight_decay=5e-4)
        | ours(ema_decay=0.995)
    )
    if _is_svhn(task):
        return common | recalled(
            learning_rate=0.05, batch_size=128, dropout=0.5
        )
    return common | recalled(
        learning_rate=0.4, batch_size=1024, dropout=0.4, warmup_steps=2500
    )


def _published(model, epochs_, rate, **more):
    """A network of Meta Pseudo Labels, Table 4, trained on ImageNet alone."""
    batch_size = more.pop("batch_size", 1024)
    return ours(
        model=model,
        learning_rate=rate,
        batch_size=batch_size,
        num_steps=epochs(epochs_, IMAGENET.images, batch_size),
        warmup_steps=epochs(5, IMAGENET.images, batch_size),
        precision="mixed_bfloat16",
        weak_augmentation="resized_crop",
        normalization="mean_std",
        **more,
    )


# Part of the file's name -> network and further settings, of rows of Meta
# Pseudo Labels, Table 4, that are trained on ImageNet alone. The schedules of
# their papers differ; all have the same one here.
_TABLE_4 = {
    "densenet_264": ("densenet_264", {}),
    "inception_v3": ("keras:InceptionV3", {}),
    "xception": ("keras:Xception", {}),
    "inception_v4": ("inception_v4", {}),
    "inception_resnet_v2": ("keras:InceptionResNetV2", {}),
    "resnext_101": ("resnext_101_64x4d", {}),
    "polynet": ("polynet", {}),
    "senet_154": ("senet_154", {}),
    "nasnet_a": ("keras:NASNetLarge", {}),
    "amoebanet_a": ("amoebanet_a", {}),
    "pnasnet_5": ("pnasnet_5", {}),
    "amoebanet_b": ("amoebanet_b", {"remat": True}),
}


def _table_4(network):
    model, more = _TABLE_4[network]
    found = _published(model, 120, 0.4, weight_decay=1e-4, **more)
    # These have the scaling of pixels inside.
    return (
        _without(found, "normalization")
        if model.startswith("keras:")
        else found
    )


def supervised(task, network):
    if network in _TABLE_4:
        return _table_4(network)
    if network == "cnn13":
        return (
            _SLOW_SGD
            | _our_crop(task)
            | ours(model="cnn13", batch_size=128, num_steps=50_000)
        )
    if network == "resnet_152":
        return _published("resnet_152", 90, 0.4, weight_decay=1e-4)
    if network.startswith("efficientnet"):
        return _published(network, 350, 0.1, weight_decay=1e-5)
    return _mpl_supervised(task, network)


def supervised_mixup(task, network):
    alpha = 0.1 if _is_svhn(task) else 1.0
    return supervised(task, network) | ours(
        model="cnn13_ict", mixup_alpha=alpha, mix_weight_rule="plain"
    )


def _resnet_50_longer(task, network):
    """ResNet-50 for 270 epochs, as the papers on AutoAugment and DropBlock."""
    del task, network
    return _published("resnet_50", 270, 0.4, weight_decay=1e-4) | recalled(
        num_steps=epochs(270, IMAGENET.images, 1024), batch_size=1024
    )


def label_smoothing(task, network):
    return supervised(task, network) | recalled(label_smoothing=0.1)


def randaugment(task, network):
    large = network == "resnet_50"
    source = ours if _is_svhn(task) else code
    return (
        supervised(task, network)
        | _mpl_images(task)
        | source(strong_magnitude=17.0 if large else 16.0)
    )


# The code of the Pi-model, Temporal Ensembling and Mean Teacher averages the
# labeled loss over the whole batch, in which few images are labeled, and
# multiplies the unlabeled weight by the labeled share. Here the loss is a mean
# over labeled images, so that the share cancels. fast-SWA's code does not
# multiply, therefore its weight is divided by the share.


def pi_model(task, network):
    del network
    batch_size = 100
    return (
        _crop(task)
        | _RATIO_1
        | code(
            model="cnn13_mean_teacher",
            optimizer="adam",
            learning_rate=0.003,
            num_steps=epochs(300, task.images, batch_size),
            unlabeled_loss_weight=100.0,
            unlabeled_ramp_steps=epochs(80, task.images, batch_size),
        )
        | ours(batch_size=batch_size, weight_decay=0.0, ema_decay=0.999)
    )


def temporal_ensembling(task, network):
    weight = 100.0 if task.classes == 100 else 30.0
    if network == "wrn":
        return _mixmatch_code(task) | ours(
            unlabeled_loss_weight=weight, unlabeled_ramp_steps=_RISE_OF_40
        )
    return pi_model(task, network) | code(
        unlabeled_loss_weight=weight,
        learning_rate=0.001 if _is_svhn(task) else 0.003,
        ensemble_momentum=0.6,
    )


def mean_teacher(task, network):
    if network == "wrn":
        return _mixmatch_code(task) | code(
            unlabeled_loss_weight=150.0 if _is_svhn(task) else 50.0,
            unlabeled_ramp_steps=_RISE_OF_40,
            weight_decay=0.02 if _is_svhn(task) else 0.2,
        )
    return pi_model(task, network) | code(
        num_steps=180_000 if _is_svhn(task) else 150_000,
        unlabeled_loss_weight=100.0,
        unlabeled_ramp_steps=40_000,
        ema_decay=0.999,
    )


def fast_swa(task, network):
    del network
    batch_size, ratio = (32, 3) if task.classes == 100 else (50, 1)

    def steps(count):
        return _exact_epochs(count, task.images, batch_size * ratio)

    return (
        # The code also uses CIFAR-10's mean and deviation for CIFAR-100.
        code(weak_augmentation="flip_crop", normalization="mean_std")
        | code(
            model="cnn13_fast_swa",
            optimizer="sgd",
            learning_rate=0.2 if task.classes == 100 else 0.1,
            weight_decay=2e-4 if task.classes == 100 else 1e-4,
            batch_size=batch_size,
            unlabeled_batch_ratio=ratio,
            # 100 divided by the labeled share: 31 of 128 images, or half.
            unlabeled_loss_weight=413.0 if task.classes == 100 else 200.0,
            unlabeled_ramp_steps=steps(5),
            momentum=0.9,
            lr_schedule="cosine",
            dropout=0.5,
            ema_decay=0.97,
            cycle_start=steps(180),
            cycle_steps=steps(30),
            swa_start=steps(150),
            swa_every=steps(3),
            swa_batches=100,
        )
        | recalled(num_steps=steps(480))
    )


def vat(task, network):
    if network == "resnet_50":
        return _imagenet_semi() | ours(
            vat_epsilon=6.0, entropy_weight=1.0, unlabeled_loss_weight=0.3
        )
    if network == "wrn":
        return _mixmatch_code(task) | code(
            vat_epsilon=6.0,
            unlabeled_loss_weight=0.3,
            entropy_weight=0.2,
            unlabeled_ramp_steps=_RISE_OF_40,
        )
    return (
        _crop(task)
        | code(
            model="cnn13_vat",
            optimizer="adam",
            learning_rate=0.001,
            batch_size=32,
            unlabeled_batch_ratio=4,
            num_steps=48_000 if _is_svhn(task) else 200_000,
            # In the code 3.5 on SVHN, for pixels between 0 and 1.
            vat_epsilon=7.0 if _is_svhn(task) else 8.0,
            unlabeled_loss_weight=1.0,
        )
        | ours(weight_decay=0.0, ema_decay=0.999)
    )


def lga(task, network):
    """VAT as in MixMatch's code; of LGA no setting is known."""
    del network
    return (
        _mixmatch_code(task)
        | code(vat_epsilon=6.0)
        | ours(
            vat_weight=0.3,
            unlabeled_loss_weight=1.0,
            unlabeled_ramp_steps=_RISE_OF_40,
        )
    )


def _vgg_of_stl10(task):
    """A VGG-style network on 96x96 images; the schedule is ours."""
    batch_size = 64
    return ours(
        model="swwae_cnn",
        optimizer="adam",
        learning_rate=1e-3,
        lr_schedule="cosine",
        batch_size=batch_size,
        unlabeled_batch_ratio=1,
        num_steps=epochs(100, task.images, batch_size),
        weak_augmentation="flip_crop",
        normalization="unit",
        weight_decay=1e-4,
        ema_decay=0.999,
        learned_view="weak",
    )


def swwae(task, network):
    del network
    return _vgg_of_stl10(task) | paper(model="swwae_cnn")


def cc_gan(task, network):
    """The network of SWWAE: the paper's is VGG-style as well."""
    del network
    return _vgg_of_stl10(task) | ours(
        adversarial_weight=1.0,
        whole_image_weight=1.0,
        learning_rate=2e-4,
        generator_learning_rate=2e-4,
        momentum=0.5,
        dropout=0.5,
    )


def sntg(task, network):
    """On Temporal Ensembling for CIFAR, on the Pi-model for SVHN.

    The paper's SVHN was on Mean Teacher [recalled], which is not a base here.
    """
    on_svhn = _is_svhn(task)
    base = (pi_model if on_svhn else temporal_ensembling)(task, network)
    return (
        base
        | code(sntg_weight=0.4)
        | (
            ours(sntg_base="pi_model")
            if on_svhn
            else recalled(sntg_base="temporal_ensembling")
        )
    )


def ict(task, network):
    if network == "wrn":
        weight, alpha = (20.0, 0.5) if _is_svhn(task) else (1000.0, 0.75)
        return _mixmatch_code(task) | code(
            unlabeled_loss_weight=weight,
            mixup_alpha=alpha,
            mix_weight_rule="dominant",
            unlabeled_ramp_steps=_RISE_OF_40,
        )
    # 100 in the code; MixUp needs a multiple of 8.
    batch_size = 96
    return (
        _crop(task)
        | (code(normalization="unit") if _is_svhn(task) else {})
        | _RATIO_1
        | ours(batch_size=batch_size, lr_schedule="cosine")
        | code(
            model="cnn13_ict",
            optimizer="sgd",
            learning_rate=0.1,
            momentum=0.9,
            dropout=0.0,
            mix_weight_rule="plain",
            weight_decay=1e-4,
            num_steps=epochs(400, task.images, batch_size),
            unlabeled_loss_weight=100.0,
            unlabeled_ramp_steps=epochs(100, task.images, batch_size),
            ema_decay=0.999,
            mixup_alpha=0.1 if _is_svhn(task) else 1.0,
        )
    )


def meta_semi(task, network):
    """After the code of ICT and SemiMeta; the paper's is not public."""
    batch_size = 128
    return (
        _SLOW_SGD
        | _our_crop(task)
        | _RATIO_1
        | paper(example_weights="indicator", mixup_on="both")
        | ours(
            model={"cnn13": "cnn13_ict", "wrn": "wrn_28_2"}.get(
                network, network
            ),
            batch_size=batch_size,
            num_steps=epochs(400, task.images, batch_size),
            mixup_alpha=0.1 if _is_svhn(task) else 1.0,
            meta_gradient="forward_mode",
        )
        # ZCA of 96x96 images would be a matrix of 3 GiB.
        | (ours(normalization="unit") if task.image_size > 32 else {})
    )


def meta_semi_ict(task, network):
    ramp = epochs(100, task.images, 128)
    return meta_semi(task, network) | ours(
        unlabeled_loss_weight=100.0, unlabeled_ramp_steps=ramp
    )


def learning_to_reweight(task, network):
    settings = meta_semi(task, network)
    for name in ("example_weights", "mixup_on", "mixup_alpha"):
        del settings[name]
    return settings | ours(model="cnn13", learned_view="weak")


# Recipes of the code that compares MixMatch, ReMixMatch, FixMatch and others.


# The weight of the unlabeled loss rises for 40 % of 2^20 steps.
_RISE_OF_40 = 419_430


def _google(task):
    """The settings that these methods share."""
    return code(
        model="wrn_28_2_fixmatch",
        optimizer="adam",
        learning_rate=0.002,
        lr_schedule="constant",
        momentum=0.9,
        weight_decay=0.02,
        decoupled_weight_decay=True,
        batch_size=64,
        unlabeled_batch_ratio=1,
        num_steps=2**20,
        ema_decay=0.999,
        label_split="proportional",
        normalization="unit",
        dropout=0.0,
        weak_augmentation="crop" if _is_svhn(task) else "flip_crop",
    )


def _mixmatch_code(task):
    """Methods whose unlabeled pool does not contain the labeled images."""
    return _google(task) | code(labeled_inside_unlabeled=False)


def mixmatch(task, network):
    dataset = task.settings["dataset"].value
    weight = {"cifar100": 150.0, "svhn_cropped": 250.0, "stl10": 50.0}
    settings = _mixmatch_code(task) | code(
        mixup_alpha=0.75,
        mix_weight_rule="dominant",
        temperature=0.5,
        unlabeled_loss_weight=weight.get(dataset, 75.0),
        unlabeled_ramp_steps=16_384,
    )
    if network == "wrn37":
        settings |= code(model="wrn_37_2_fixmatch")
    return settings


def remixmatch(task, network):
    del network
    return _google(task) | code(
        mixup_alpha=0.75,
        mix_weight_rule="dominant",
        temperature=0.5,
        unlabeled_loss_weight=1.5,
        strong_loss_weight=0.5,
        rotation_loss_weight=0.5,
        num_strong_views=8,
        unlabeled_ramp_steps=16_384,
    )


def enaet(task, network):
    return mixmatch(task, network) | code(
        batch_size=128,
        transformation_weight=1.0,
        transformation_ramp_steps=2**20 // 10,
        agreement_weight=1.0,
        max_rotation=180.0,
    )


def fixmatch(task, network):
    if network == "resnet_50":
        batch_size, ratio = 1024, 5
        return _imagenet_semi() | code(
            learning_rate=0.1 * batch_size / 256,
            batch_size=batch_size,
            unlabeled_batch_ratio=ratio,
            num_steps=epochs(300, task.images, batch_size * ratio),
            warmup_steps=epochs(5, task.images, batch_size * ratio),
            weight_decay=3e-4,
            confidence_threshold=0.7,
            unlabeled_loss_weight=10.0,
        )
    return _google(task) | code(
        optimizer="sgd",
        learning_rate=0.03,
        lr_schedule="cosine_7_16",
        weight_decay=5e-4,
        decoupled_weight_decay=False,
        unlabeled_batch_ratio=7,
        confidence_threshold=0.95,
        unlabeled_loss_weight=1.0,
        strong_augmentation="fixmatch",
    )


# Recipes of self-supervised methods. Of finetuning on a tenth of the labels the
# comparisons with the papers differ; all methods have SimCLR's here.


def _self_supervised(task, count, batch_size, **further):
    """Epochs of all images, then 30 of the labeled ones."""
    labeled = min(batch_size, 1024)
    return (
        ours(
            model="resnet_50",
            batch_size=labeled,
            unlabeled_batch_ratio=batch_size // labeled,
            lr_schedule="cosine",
            precision="mixed_bfloat16",
            weak_augmentation="resized_crop",
            contrastive_augmentation="simclr",
            normalization="mean_std",
            ema_decay=0.999,
        )
        | code(
            num_steps=epochs(count, task.images, batch_size),
            projection_size=128,
            projection_hidden_size=2048,
        )
        | recalled(
            finetune_steps=epochs(30, task.labels, labeled),
            finetune_batch_size=labeled,
            finetune_learning_rate=0.05 * labeled / 256,
        )
        | code(**further)
    )


def _with_lars(task, rate, **further):
    """1000 epochs in batches of 4096; `rate` is that of 256 images."""
    batch_size = 4096
    return _self_supervised(
        task,
        1000,
        batch_size,
        optimizer="lars",
        learning_rate=rate * batch_size / 256,
        weight_decay=1e-6,
        **further,
    ) | recalled(warmup_steps=epochs(10, task.images, batch_size))


def simclr(task, network):
    del network
    return _with_lars(task, 0.3, contrast_temperature=0.1)


def byol(task, network):
    del network
    return _with_lars(
        task,
        0.2,
        target_decay=0.996,
        projection_size=256,
        projection_hidden_size=4096,
    )


def _moco_code(task, count, **further):
    return _self_supervised(
        task,
        count,
        256,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=1e-4,
        contrast_temperature=0.2,
        target_decay=0.999,
        **further,
    )


def moco_v2(task, network):
    del network
    return _moco_code(task, 800, queue_size=65_536)


def pcl(task, network):
    del network
    return _moco_code(
        task,
        200,
        queue_size=16_384,
        num_prototypes=25_000,
        num_clusterings=3,
        cluster_start=epochs(20, task.images, 256),
        cluster_every=epochs(1, task.images, 256),
    )


def pirl(task, network):
    del network
    return _self_supervised(
        task,
        800,
        1024,
        optimizer="sgd",
        learning_rate=0.03 * 1024 / 256,
        projection_hidden_size=0,
        contrast_temperature=0.07,
        jigsaw_share=0.5,
        patch_size=64,
        bank_momentum=0.5,
        num_negatives=32_000,
    ) | recalled(weight_decay=1e-4)


# Recipes of Meta Pseudo Labels. The released code has one for CIFAR-10 and one
# for ImageNet; the appendix, as recalled, has others.


def _imagenet_semi():
    return ours(
        model="resnet_50",
        optimizer="sgd",
        learning_rate=0.4,
        batch_size=1024,
        unlabeled_batch_ratio=5,
        num_steps=100_000,
        warmup_steps=5000,
        weight_decay=1e-4,
        ema_decay=0.999,
        precision="mixed_bfloat16",
        # FixMatch's decays in steps.
        lr_schedule="cosine",
        weak_augmentation="resized_crop",
        strong_augmentation="mpl_imagenet",
        normalization="mean_std",
    )


def uda(task, network):
    """Of Meta Pseudo Labels' own implementation."""
    # In the code, 0.6 is compared with the sharpened confidence.
    common = _mpl_images(task) | ours(
        confidence_threshold=0.6, tsa_schedule="off"
    )
    if network == "resnet_50":
        return (
            _imagenet_semi()
            | common
            | recalled(
                learning_rate=1.28,
                batch_size=2048,
                dropout=0.25,
                weight_decay=2e-4,
                unlabeled_loss_weight=20.0,
                temperature=0.7,
                num_steps=500_000,
            )
        )
    small = (
        common
        | _first(task)
        | code(model="wrn_28_2_mpl")
        | recalled(
            batch_size=128,
            num_steps=1_000_000,
            warmup_steps=2000,
            weight_decay=5e-4,
        )
        | ours(ema_decay=0.995, unlabeled_batch_ratio=7)
    )
    if _is_svhn(task):
        return small | recalled(
            learning_rate=0.4,
            dropout=0.6,
            unlabeled_loss_weight=1.0,
            temperature=0.8,
        )
    return small | recalled(
        learning_rate=0.3,
        dropout=0.5,
        unlabeled_loss_weight=2.5,
        temperature=0.7,
    )


def _first(task):
    """The released code uses the first 4,000 labels of CIFAR-10."""
    if task.name == "cifar10_4000":
        return code(label_split="first")
    some = task.name.startswith("cifar10_") and task != CIFAR10_ALL
    return ours(label_split="first") if some else {}


# The settings that both have in common.
_MPL = code(
    optimizer="sgd",
    momentum=0.9,
    lr_schedule="cosine",
    confidence_threshold=0.6,
    precision="mixed_bfloat16",
) | paper(finetune_learning_rate=1e-5, finetune_batch_size=512)

_MPL_CIFAR = (
    _MPL
    | code(
        model="wrn_28_2_mpl",
        num_steps=300_000,
        batch_size=128,
        unlabeled_batch_ratio=7,
        learning_rate=0.05,
        warmup_steps=5000,
        student_wait_steps=3000,
        weight_decay=5e-4,
        label_smoothing=0.15,
        dropout=0.2,
        teacher_dropout=0.2,
        ema_decay=0.995,
        uda_temperature=0.7,
        uda_weight=8.0,
        uda_ramp_steps=5000,
    )
    | paper(finetune_steps=1000)
)

_MPL_APPENDIX = (
    _MPL_CIFAR
    | ours(student_wait_steps=0)
    | recalled(
        num_steps=1_000_000,
        unlabeled_batch_ratio=1,
        warmup_steps=2000,
        label_smoothing=0.1,
    )
)
_MPL_CIFAR_APPENDIX = _MPL_APPENDIX | recalled(
    learning_rate=0.3,
    teacher_learning_rate=0.125,
    dropout=0.35,
    teacher_dropout=0.5,
    uda_weight=1.0,
    uda_temperature=0.8,
)
_MPL_SVHN = _MPL_APPENDIX | recalled(
    learning_rate=0.15,
    teacher_learning_rate=0.05,
    dropout=0.45,
    teacher_dropout=0.65,
    uda_weight=2.5,
    uda_temperature=1.25,
)

_MPL_IMAGENET = (
    _MPL
    | code(
        model="resnet_50",
        num_steps=700_000,
        batch_size=1024,
        unlabeled_batch_ratio=15,
        learning_rate=0.4,
        teacher_learning_rate=0.6,
        warmup_steps=5000,
        student_wait_steps=20_000,
        weight_decay=1e-4,
        label_smoothing=0.1,
        dropout=0.1,
        teacher_dropout=0.1,
        ema_decay=0.999,
        uda_temperature=0.5,
        uda_weight=20.0,
        uda_ramp_steps=50_000,
        strong_magnitude=17.0,
        gradient_clip_norm=5.0,
    )
    | paper(finetune_steps=2000)
)
_MPL_IMAGENET_APPENDIX = _MPL_IMAGENET | recalled(
    num_steps=500_000,
    batch_size=2048,
    unlabeled_batch_ratio=1,
    warmup_steps=1000,
    learning_rate=0.8,
    teacher_learning_rate=0.5,
    weight_decay=2e-4,
    uda_weight=16.0,
    uda_temperature=0.75,
)


def _mpl_jft(batch_size):
    """Learning rates in proportion to the batch size, as in the code."""
    return (
        _MPL_IMAGENET
        | paper(unlabeled_batch_ratio=8, batch_size=batch_size)
        | ours(
            learning_rate=0.1 * batch_size / 256,
            teacher_learning_rate=0.15 * batch_size / 256,
            finetune_batch_size=512,
        )
    )


_MPL_RESNET_JFT = _mpl_jft(4096) | paper(
    num_steps=500_000, finetune_steps=10_000, finetune_learning_rate=1e-4
)
_MPL_EFFICIENTNET_JFT = (
    _mpl_jft(2048)
    | paper(num_steps=1_000_000, finetune_steps=20_000)
    | ours(finetune_learning_rate=1e-4)
)


def meta_pseudo_labels(task, network):
    return _mpl_images(task) | _mpl(task, network)


def _mpl(task, network):
    if network.startswith("efficientnet"):
        return _MPL_EFFICIENTNET_JFT | paper(
            model=network, dropout=0.5, teacher_dropout=0.5
        )
    if task.name == "imagenet_and_jft":
        return _MPL_RESNET_JFT
    if network == "resnet_50":
        return _MPL_IMAGENET
    return (_MPL_SVHN if _is_svhn(task) else _MPL_CIFAR) | _first(task)


def billion_scale(task, network):
    """The paper's K per class; the rest follows the supervised rows."""
    del task
    batch_size = 1024
    return (
        _published(network, 90, 0.4, weight_decay=1e-4)
        | recalled(images_per_class=16_000, classes_per_image=10)
        | ours(
            batch_size=batch_size,
            unlabeled_batch_ratio=1,
            # One pass over the ranked images.
            student_steps=epochs(1, 1000 * 16_000, batch_size),
            finetune_steps=epochs(10, IMAGENET.images, batch_size),
        )
    )


def noisy_student(task, network):
    num_steps = epochs(350, IMAGENET.images, 2048)
    return (
        code(
            label_smoothing=0.1,
            weight_decay=1e-5,
            ema_decay=0.9999,
            strong_magnitude=27.0,
            # The ratio of the batch sizes.
            unlabeled_loss_weight=3.0,
        )
        | recalled(confidence_threshold=0.3)
        | ours(
            model=network,
            learning_rate=0.1 * 2048 / 256,
            batch_size=2048,
            unlabeled_batch_ratio=3,
            num_steps=num_steps,
            round_steps=num_steps,
            warmup_steps=epochs(5, IMAGENET.images, 2048),
            num_rounds=3,
            precision="mixed_bfloat16",
        )
    )


# Tables: the numbers of the papers. A cell without a number has no file.


class Cell(typing.NamedTuple):
    """A number of a table and its run.

    Attributes:
        table: the paper's name of the table or figure.
        row: the paper's name of the row.
        number: the paper's number with its unit.
        method: `--algo`.
        task: a `Task`.
        network: part of the file's name.
        variant: last part of the file's name; may be empty.
        settings: name -> `Setting`.
    """

    table: str
    row: str
    number: str
    method: str
    task: Task
    network: str
    variant: str
    settings: dict

    @property
    def path(self):
        """The file, below flags/."""
        parts = (self.task.name, self.network, self.variant)
        return f"{self.method}/{'_'.join(filter(None, parts))}.flags"


def _cell(table, row, number, recipe, task, network, variant="", changes=None):
    method = recipe.__name__
    settings = task.settings | recipe(task, network) | (changes or {})
    settings = _read_by(method, settings)
    settings = _defaults(method, settings) | settings
    return Cell(table, row, number, method, task, network, variant, settings)


# Settings that decide the result of a training, beside the method's own.
_DECISIVE = (
    *("optimizer", "momentum", "lr_schedule", "warmup_steps"),
    *("weight_decay", "decoupled_weight_decay", "gradient_clip_norm"),
    *("dropout", "normalization", "weak_augmentation", "label_split"),
)


def _defaults(method, settings):
    """The settings that a recipe leaves open, so that files are complete."""
    values = {name: setting.value for name, setting in settings.items()}
    resolved = config.resolve({"algo": method, **values})
    fields = dataclasses.fields(hyperparameters_class(method))
    hp = {f.name: getattr(resolved.hyperparameters, f.name) for f in fields}
    hp |= {name: getattr(resolved, name) for name in _DECISIVE}
    return _default(**{k: v for k, v in hp.items() if k not in settings})


def _read_by(method, settings):
    """Settings without those of views and images that a method does not use."""
    given = {name: setting.value for name, setting in settings.items()}
    fields = {f.name for f in dataclasses.fields(hyperparameters_class(method))}
    hp = hyperparameters_class(method)(
        **{k: v for k, v in given.items() if k in fields}
    )
    unread = set()
    if not hp.uses_strong_policy:
        unread |= {"strong_augmentation", "strong_magnitude"}
    if not hp.uses_unlabeled:
        unread |= {"unlabeled_batch_ratio", "labeled_inside_unlabeled"}
    return {k: v for k, v in settings.items() if k not in unread}


def _grid(table, unit, tasks, network, rows):
    """Cells of a table whose rows are (recipe, name, number, ...)."""
    for recipe, row, *numbers in rows:
        for task, number in zip(tasks, numbers, strict=True):
            if number:
                yield _cell(
                    table, row, f"{unit} {number} %", recipe, task, network
                )


def _meta_semi_1():
    tasks = [cifar10(n) for n in (1000, 2000, 4000)]
    tasks += [cifar100(n) for n in (4000, 10_000)]
    name, unit = "Meta-Semi, Table 1", "test error"
    # fmt: off
    yield from _grid(name, unit, tasks, "cnn13", [
        (supervised, "Supervised",
         "39.95 ± 0.75", "27.67 ± 0.12", "20.42 ± 0.21",
         "58.31 ± 0.89", "44.56 ± 0.30"),
        (supervised_mixup, "Supervised + MixUp",
         "31.83 ± 0.65", "24.22 ± 0.15", "17.37 ± 0.35",
         "54.87 ± 0.07", "40.97 ± 0.47"),
        (pi_model, "Π-model",
         "28.74 ± 0.48", "17.57 ± 0.44", "12.36 ± 0.17",
         "55.39 ± 0.55", "38.06 ± 0.37"),
        (temporal_ensembling, "Temp-ensemble",
         "25.15 ± 1.46", "15.78 ± 0.44", "11.90 ± 0.25",
         None, "38.65 ± 0.51"),
        (mean_teacher, "Mean Teacher",
         "18.27 ± 0.53", "13.45 ± 0.30", "10.73 ± 0.14",
         "45.36 ± 0.49", "35.96 ± 0.77"),
        (vat, "VAT",
         "18.12 ± 0.82", "13.93 ± 0.33", "11.10 ± 0.24", None, None),
        (sntg, "SNTG",
         "18.41 ± 0.52", "13.64 ± 0.32", "10.93 ± 0.14",
         None, "37.97 ± 0.29"),
        (learning_to_reweight, "Learning to Reweight",
         "11.74 ± 0.12", None, "9.44 ± 0.17", "46.62 ± 0.29", "37.31 ± 0.47"),
        (fast_swa, "MT + Fast SWA",
         "15.58", "11.02", "9.05", None, "33.62 ± 0.54"),
        (ict, "ICT",
         "12.44 ± 0.57", "8.69 ± 0.15", "7.18 ± 0.24",
         "40.07 ± 0.38", "32.24 ± 0.16"),
        (meta_semi, "Meta-Semi",
         "10.27 ± 0.66", "8.42 ± 0.30", "7.05 ± 0.27",
         "37.61 ± 0.56", "30.51 ± 0.32"),
        (meta_semi_ict, "Meta-Semi + ICT",
         "9.29 ± 0.62", "7.05 ± 0.12", "6.42 ± 0.18",
         "37.12 ± 0.59", "29.68 ± 0.05"),
    ])
    yield from _grid(name, unit, tasks, "wrn", [
        (mean_teacher, "Mean Teacher †",
         "17.32 ± 4.00", "12.17 ± 0.22", "10.36 ± 0.25", None, None),
        (mixmatch, "MixMatch †",
         "7.75 ± 0.32", "7.03 ± 0.15", "6.24 ± 0.06", None, "30.84 ± 0.29"),
        (meta_semi, "Meta-Semi †",
         "7.34 ± 0.22", "6.58 ± 0.07", "6.10 ± 0.10", None, "29.69 ± 0.18"),
    ])
    # fmt: on


def _meta_semi_2():
    name = "Meta-Semi, Table 2"
    for recipe, row, number in (
        (swwae, "SWWAE", "25.70"),
        (cc_gan, "CC-GAN", "22.20"),
    ):
        yield _cell(name, row, f"test error {number} %", recipe, STL10, "cnn")
    yield _cell(
        name, "MixMatch", "test error 10.18 ± 1.46 %", mixmatch, STL10, "wrn37"
    )
    yield _cell(
        name,
        "Meta-Semi",
        "test error 8.03 ± 0.24 %",
        meta_semi,
        STL10,
        "wrn37",
        changes=ours(model="wrn_37_2"),
    )


def _meta_semi_3():
    tasks = [svhn(500), svhn(1000)]
    rows = [
        (vat, "VAT", None, "5.42"),
        (pi_model, "Π-model", "6.65 ± 0.53", "4.82 ± 0.17"),
        (temporal_ensembling, "Temp-ensemble", "5.12 ± 0.13", "4.42 ± 0.16"),
        (mean_teacher, "Mean Teacher", "4.18 ± 0.27", "3.95 ± 0.19"),
        (ict, "ICT", "4.23 ± 0.15", "3.89 ± 0.04"),
        (sntg, "SNTG", "3.99 ± 0.24", "3.86 ± 0.27"),
        (meta_semi, "Meta-Semi", "4.12 ± 0.21", "3.92 ± 0.11"),
        (meta_semi_ict, "Meta-Semi + ICT", "3.98 ± 0.09", "3.77 ± 0.05"),
    ]
    yield from _grid("Meta-Semi, Table 3", "test error", tasks, "cnn13", rows)


_DRAWN = "a point of a curve without numbers on its axes"


def _meta_semi_figure_3():
    name, task = "Meta-Semi, Figure 3", cifar100(10_000)
    for beta in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0):
        yield _cell(
            name,
            f"Meta-Semi, β = {beta:g}",
            _DRAWN,
            meta_semi,
            task,
            "cnn13",
            "" if beta == 1.0 else f"beta_{beta:g}",
            ours(mixup_alpha=beta),
        )
    for weight in (1.0, 10.0, 20.0, 50.0, 100.0):
        yield _cell(
            name,
            f"ICT, w = {weight:g}",
            _DRAWN,
            ict,
            task,
            "cnn13",
            "" if weight == 100.0 else f"weight_{weight:g}",
            {} if weight == 100.0 else ours(unlabeled_loss_weight=weight),
        )


def _meta_semi_4():
    """Runs with a time budget, and more steps than fit into it."""
    name, task = "Meta-Semi, Table 4", cifar100(10_000)
    endless = ours(num_steps=20_000_000, evaluate_every=20_000)
    rows = [
        (ict, "cnn13", (5.0, "33.43"), (7.5, "32.84"), (10.0, "32.61"),
         (12.6, "32.24")),
        (meta_semi, "cnn13", (5.0, "32.73"), (7.5, "31.81"), (10.0, "31.06"),
         (12.6, "30.84")),
        (mixmatch, "wrn", (13.7, "32.94"), (18.3, "31.91"), (22.8, "31.26"),
         (29.2, "30.84")),
        (meta_semi, "wrn", (13.7, "31.74"), (18.3, "30.85"), (22.8, "30.50"),
         (29.2, "30.13")),
    ]  # fmt: skip
    titles = {ict: "ICT", meta_semi: "Meta-Semi", mixmatch: "MixMatch"}
    for recipe, network, *budgets in rows:
        for hours, number in budgets:
            yield _cell(
                name,
                f"{titles[recipe]}, {hours} h",
                f"test error {number} %",
                recipe,
                task,
                network,
                f"{hours}h",
                paper(time_budget_minutes=60 * hours) | endless,
            )


def _meta_semi_5():
    tasks = [cifar100(4000), cifar100(10_000)]
    name = "Meta-Semi, Table 5"
    rows = [
        ("Without parameter EMA", "without_ema", dict(ema_decay=0.0),
         "47.68 ± 0.27", "37.15 ± 1.02"),
        ("One-hot pseudo labels", "one_hot", dict(pseudo_label="one_hot"),
         "41.52 ± 0.51", "32.78 ± 0.41"),
        ("MixUp on unlabeled data only", "mixup_on_unlabeled",
         dict(mixup_on="unlabeled"), "37.69 ± 0.50", "30.56 ± 0.39"),
        ("MixUp on labeled data only", "mixup_on_labeled",
         dict(mixup_on="labeled"), "45.90 ± 0.15", "36.11 ± 0.21"),
        ("Without MixUp", "without_mixup", dict(mixup_on="none"),
         "46.71 ± 0.05", "35.98 ± 0.69"),
        ("Reweighting with the constant 1", "constant_weights",
         dict(example_weights="constant"), "40.26 ± 0.64", "32.17 ± 0.14"),
        ("Reweighting with -1 and 1", "plus_minus_one",
         dict(example_weights="plus_minus_one"),
         "45.41 ± 0.38", "36.39 ± 0.44"),
        ("Meta-Semi", "", {}, "37.61 ± 0.56", "30.51 ± 0.32"),
    ]  # fmt: skip
    for row, variant, changes, *numbers in rows:
        for task, number in zip(tasks, numbers, strict=True):
            yield _cell(
                name,
                row,
                f"test error {number} %",
                meta_semi,
                task,
                "cnn13",
                variant,
                paper(**changes),
            )
    rows = [(meta_semi_ict, "Meta-Semi + ICT", "37.12 ± 0.59", "29.68 ± 0.05")]
    yield from _grid(name, "test error", tasks, "cnn13", rows)


def _mpl_2():
    name = "Meta Pseudo Labels, Table 2"
    both = [cifar10(4000), svhn(1000)]
    rows = [
        (temporal_ensembling, "Temporal Ensemble",
         "83.63 ± 0.63", "92.81 ± 0.27"),
        (mean_teacher, "Mean Teacher", "84.13 ± 0.28", "94.35 ± 0.47"),
        (vat, "VAT + EntMin", "86.87 ± 0.39", "94.65 ± 0.19"),
        (lga, "LGA + VAT", "87.94 ± 0.19", "93.42 ± 0.36"),
        (ict, "ICT", "92.71 ± 0.02", "96.11 ± 0.04"),
        (mixmatch, "MixMatch", "93.76 ± 0.06", "96.73 ± 0.31"),
        (remixmatch, "ReMixMatch", "94.86 ± 0.04", "97.17 ± 0.30"),
        (enaet, "EnAET", "94.65", "97.08"),
        (fixmatch, "FixMatch", "95.74 ± 0.05", "97.72 ± 0.38"),
    ]  # fmt: skip
    yield from _grid(name, "accuracy", both, "wrn", rows)
    both = [cifar10(4000), SVHN_EXTRA]
    rows = [
        (uda, "UDA*", "94.53 ± 0.18", "97.11 ± 0.17"),
        (meta_pseudo_labels, "Meta Pseudo Labels",
         "96.11 ± 0.07", "98.01 ± 0.07"),
    ]  # fmt: skip
    yield from _grid(name, "accuracy", both, "wrn", rows)
    yield _cell(
        name,
        "Meta Pseudo Labels, by the appendix",
        "accuracy 96.11 ± 0.07 %",
        meta_pseudo_labels,
        cifar10(4000),
        "wrn",
        "appendix",
        _MPL_CIFAR_APPENDIX,
    )
    yield _cell(
        name,
        "Meta Pseudo Labels, by the appendix",
        "top-1 73.89 %, top-5 91.38 %",
        meta_pseudo_labels,
        IMAGENET_10,
        "resnet_50",
        "appendix",
        _MPL_IMAGENET_APPENDIX,
    )
    rows = [(supervised, "Supervised, full dataset*", "94.92 ± 0.17",
             "97.41 ± 0.16")]  # fmt: skip
    yield from _grid(name, "accuracy", [CIFAR10_ALL, SVHN_ALL], "wrn", rows)
    for recipe, row, task, number in (
        (vat, "VAT + EntMin", IMAGENET_10, "top-5 83.39 %"),
        (simclr, "SimCLR", IMAGENET_10, "top-1 71.7 %, top-5 90.4 %"),
        (moco_v2, "MOCOv2", IMAGENET_10, "top-1 71.1 %"),
        (pcl, "PCL", IMAGENET_10, "top-5 85.6 %"),
        (pirl, "PIRL", IMAGENET_10, "top-5 84.9 %"),
        (byol, "BYOL", IMAGENET_10, "top-1 68.8 %, top-5 89.0 %"),
        (fixmatch, "FixMatch", IMAGENET_10, "top-1 71.5 %, top-5 89.1 %"),
        (uda, "UDA*", IMAGENET_10, "top-1 68.07 %, top-5 88.19 %"),
        (
            meta_pseudo_labels,
            "Meta Pseudo Labels",
            IMAGENET_10,
            "top-1 73.89 %, top-5 91.38 %",
        ),
        (
            supervised,
            "Supervised, full dataset*",
            IMAGENET,
            "top-1 76.89 %, top-5 93.27 %",
        ),
    ):
        yield _cell(name, row, number, recipe, task, "resnet_50")


def _mpl_3_and_4():
    """JFT has about 300 million images; Table 3 uses 12.8, Table 4 130."""
    table_3, table_4 = (f"Meta Pseudo Labels, Table {n}" for n in (3, 4))
    near, far = imagenet_and_jft(12_800_000, 224), 130_000_000
    for table, recipe, row, task, network, number in (
        (table_3, supervised, "Supervised", IMAGENET, "resnet_50",
         "top-1 76.9 %, top-5 93.3 %"),
        (table_3, noisy_student, "NoisyStudent", near, "resnet_50",
         "top-1 78.9 %, top-5 94.3 %"),
        (table_3, uda, "UDA", near, "resnet_50",
         "top-1 79.0 %, top-5 94.5 %"),
        (table_3, meta_pseudo_labels, "Meta Pseudo Labels", near, "resnet_50",
         "top-1 83.2 %, top-5 96.5 %"),
        (table_4, supervised, "ResNet-50", IMAGENET, "resnet_50",
         "top-1 76.0 %, top-5 93.0 %, ReaL 82.94 %"),
        (table_4, supervised, "ResNet-152", IMAGENET, "resnet_152",
         "top-1 77.8 %, top-5 93.8 %, ReaL 84.79 %"),
        (table_4, supervised, "EfficientNet-B7", _sized(600),
         "efficientnet_b7", "top-1 85.0 %, top-5 97.2 %"),
        (table_4, supervised, "EfficientNet-L2", _sized(512),
         "efficientnet_l2", "top-1 85.5 %, top-5 97.5 %"),
        (table_4, noisy_student, "Noisy Student (EfficientNet-L2)",
         imagenet_and_jft(far, 512), "efficientnet_l2",
         "top-1 88.4 %, top-5 98.7 %, ReaL 90.55 %"),
        (table_4, meta_pseudo_labels,
         "Meta Pseudo Labels (EfficientNet-B6-Wide)",
         imagenet_and_jft(far, 512), "efficientnet_b6_wide",
         "top-1 90.0 %, top-5 98.7 %, ReaL 91.12 %"),
        (table_4, meta_pseudo_labels, "Meta Pseudo Labels (EfficientNet-L2)",
         imagenet_and_jft(far, 512), "efficientnet_l2",
         "top-1 90.2 %, top-5 98.8 %, ReaL 91.02 %"),
    ):  # fmt: skip
        yield _cell(table, row, number, recipe, task, network)
    for row, size, network, number in (
        ("DenseNet-264", 224, "densenet_264", "top-1 77.9 %, top-5 93.9 %"),
        ("Inception-v3", 299, "inception_v3",
         "top-1 78.8 %, top-5 94.4 %, ReaL 83.58 %"),
        ("Xception", 299, "xception", "top-1 79.0 %, top-5 94.5 %"),
        ("Inception-v4", 299, "inception_v4", "top-1 80.0 %, top-5 95.0 %"),
        ("Inception-resnet-v2", 299, "inception_resnet_v2",
         "top-1 80.1 %, top-5 95.1 %"),
        ("ResNeXt-101", 320, "resnext_101",
         "top-1 80.9 %, top-5 95.6 %, ReaL 85.18 %"),
        ("PolyNet", 331, "polynet", "top-1 81.3 %, top-5 95.8 %"),
        ("SENet", 320, "senet_154", "top-1 82.7 %, top-5 96.2 %"),
        ("NASNet-A", 331, "nasnet_a",
         "top-1 82.7 %, top-5 96.2 %, ReaL 82.56 %"),
        ("AmoebaNet-A", 331, "amoebanet_a", "top-1 82.8 %, top-5 96.1 %"),
        ("PNASNet", 331, "pnasnet_5", "top-1 82.9 %, top-5 96.2 %"),
        ("GPipe", 480, "amoebanet_b", "top-1 84.3 %, top-5 97.0 %"),
    ):  # fmt: skip
        yield _cell(table_4, row, number, supervised, _sized(size), network)
    yield from _regularized(table_3, table_4, far)
    yield from _fixres(table_3, table_4)


def _regularized(table_3, table_4, far):
    """The rows with a regularizer, and with ranked images."""
    yield _cell(
        table_3,
        "AutoAugment",
        "top-1 77.6 %, top-5 93.8 %",
        randaugment,
        IMAGENET,
        "resnet_50",
        "autoaugment",
        _resnet_50_longer(IMAGENET, "")
        | paper(strong_augmentation="autoaugment_imagenet")
        | ours(strong_magnitude=0.0),
    )
    yield _cell(
        table_3,
        "DropBlock",
        "top-1 78.4 %, top-5 94.2 %",
        label_smoothing,
        IMAGENET,
        "resnet_50",
        "dropblock",
        _resnet_50_longer(IMAGENET, "") | recalled(dropblock=0.1),
    )
    for table, row, task, network, number in (
        (table_3, "Billion-scale SSL", YFCC, "resnet_50",
         "top-1 82.5 %, top-5 96.6 %"),
        (table_4, "ResNet-50 Billion-scale SSL", INSTAGRAM, "resnet_50",
         "top-1 81.2 %, top-5 96.0 %"),
        (table_4, "ResNeXt-101 Billion-scale SSL", INSTAGRAM,
         "resnext_101_32x16d", "top-1 84.8 %"),
    ):  # fmt: skip
        yield _cell(table, row, number, billion_scale, task, network)
    yield _cell(
        table_4,
        "AmoebaNet-C + AutoAugment",
        "top-1 83.5 %, top-5 96.5 %",
        randaugment,
        _sized(331),
        "amoebanet_c",
        "autoaugment",
        _published("amoebanet_c", 120, 0.4, weight_decay=1e-4)
        | paper(strong_augmentation="autoaugment_imagenet")
        | ours(strong_magnitude=0.0),
    )
    yield _cell(
        table_4,
        "EfficientNet-L2-NoisyStudent + SAM",
        "top-1 88.6 %, top-5 98.6 %",
        noisy_student,
        imagenet_and_jft(far, 512),
        "efficientnet_l2",
        "sam",
        recalled(sam_rho=0.05),
    )


def _fixres(table_3, table_4):
    """Rows whose network is adapted to a larger image size in a second run."""
    own = "supervised/imagenet_resnet_50.flags"
    mixed = f"{own} with --mixing=cutmix and --algo=supervised_mixup"
    b7 = "supervised/imagenet_efficientnet_b7.flags"
    student = "noisy_student/imagenet_and_jft_efficientnet_l2.flags"
    for table, row, size, first, network, variant, number in (
        (table_3, "FixRes", 384, own, "resnet_50", "fixres",
         "top-1 79.1 %, top-5 94.6 %"),
        (table_3, "FixRes + CutMix", 320, mixed, "resnet_50", "fixres_cutmix",
         "top-1 79.8 %, top-5 94.9 %"),
        (table_4, "EfficientNet-B7 + FixRes", 632, b7, "efficientnet_b7",
         "fixres", "top-1 85.3 %, top-5 97.4 %"),
        (table_4, "Noisy Student + FixRes", 600, student, "efficientnet_l2",
         "fixres", "top-1 88.5 %, top-5 98.7 %"),
    ):  # fmt: skip
        task = _sized(size)._replace(
            missing=f"--init_weights, the folder of a run of {first}."
        )
        yield _cell(
            table,
            row,
            number,
            supervised,
            task,
            network,
            variant,
            paper(freeze="fixres")
            | recalled(image_size=size)
            | ours(
                init_weights="runs/first",
                init_last_layer=True,
                weak_augmentation="none",
                learning_rate=0.01,
                warmup_steps=0,
                num_steps=epochs(5, IMAGENET.images, 1024),
                batch_size=1024,
            ),
        )


def _sized(image_size):
    return IMAGENET._replace(
        image_size=image_size,
        settings=IMAGENET.settings | ours(image_size=image_size),
    )


def _mpl_9():
    name, tasks = "Meta Pseudo Labels, Table 9", [cifar10(4000), svhn(1000)]
    rows = [
        (supervised, "Supervised", "82.14 ± 0.25", "88.17 ± 0.47"),
        (label_smoothing, "Label Smoothing", "82.21 ± 0.18", "89.39 ± 0.25"),
    ]
    yield from _grid(name, "accuracy", tasks, "wrn", rows)
    for task, number in zip(
        tasks, ("83.71 ± 0.21", "91.89 ± 0.14"), strict=True
    ):
        yield _cell(
            name,
            "Meta Pseudo Labels",
            f"accuracy {number} %",
            meta_pseudo_labels,
            task,
            "wrn",
            "regularizer",
            # It uses no unlabeled images, and no UDA.
            paper(mpl_unlabeled="labeled", uda_weight=0.0),
        )


_BAR = "a bar without a number"


def _mpl_figure_3():
    name = "Meta Pseudo Labels, Figure 3"
    for recipe, row in (
        (supervised, "Supervised"),
        (randaugment, "RandAugment"),
        (uda, "UDA"),
        (meta_pseudo_labels, "Meta Pseudo Labels"),
    ):
        yield _cell(name, row, _BAR, recipe, cifar10(4000), "wrn")
        # Methods without unlabeled images cannot use the extra ones.
        extra = recipe in (uda, meta_pseudo_labels)
        task = SVHN_EXTRA if extra else svhn(1000)
        yield _cell(name, row, _BAR, recipe, task, "wrn")
        yield _cell(name, row, _BAR, recipe, IMAGENET_10, "resnet_50")


def _mpl_figure_5():
    """The dataset is our choice; the slides do not name it."""
    name = "Meta Pseudo Labels, Figure 5"
    for labels in (1000, 2000, 4000, 8000, 16_000):
        for recipe, row in (
            (supervised, "Supervised Learning"),
            (randaugment, "RandAugment"),
            (meta_pseudo_labels, "Meta Pseudo Labels"),
        ):
            yield _cell(name, row, _DRAWN, recipe, cifar10(labels), "wrn")


def _digits():
    """Algorithm 1 of Meta-Semi as printed; not from a table."""
    task = Task(
        "digits_30", "scikit-learn's digits with 30 labels", 30, 1238, 10, 8,
        ours(dataset="digits", num_labeled=30, num_validation=200),
    )  # fmt: skip
    chosen = paper(
        labeled_loss_weight=0.0,
        meta_labeled_batch="mixed",
        pseudo_label_view="weak",
    ) | ours(
        model="digits_cnn",
        num_steps=600,
        batch_size=64,
        unlabeled_batch_ratio=2,
    )
    chosen = task.settings | chosen
    yield Cell(
        "Meta-Semi, Algorithm 1 as printed",
        "no labeled loss in the update",
        "learns little from random weights, see "
        "results/instruments/meta_semi_reconstruction.md",
        "meta_semi",
        task,
        "",
        "literal_algorithm_1",
        _defaults("meta_semi", chosen) | chosen,
    )


# Method -> a note in the headers of its files.
NOTES = {
    "meta_semi": "The code of the paper is not public. Settings that the paper "
    "leaves open are reconstructed, see docs/methods/meta_semi.md. The width "
    "of its WRN-28 is "
    "not known.",
    "meta_semi_ict": "The code of the paper is not public. Settings that the "
    "paper leaves open are reconstructed, see docs/methods/meta_semi.md.",
    "meta_pseudo_labels": "In the released code the feedback of the student "
    "has no gradient. Here it has one, see --feedback.",
    "noisy_student": "The paper trains with RMSProp, this file with SGD. The "
    "predictions of the teacher are kept in memory and in checkpoints, 4 bytes "
    "per image and class.",
    "billion_scale": "The predictions of the teacher are kept in memory and in "
    "checkpoints, 8 bytes per image and class. The number of Table 3 was "
    "reached with FixRes, a second run: see docs/networks.md.",
    "vat": "In the code, the perturbation of length 8 is added to whitened "
    "images. Here it is added before whitening, see --vat_epsilon.",
    "lga": "A reconstruction from the abstract of the paper, see "
    "docs/methods/consistency.md.",
    "swwae": "The weights of the reconstruction losses and the schedule are "
    "ours.",
    "cc_gan": "A reconstruction, see docs/methods/generative.md. Network, "
    "generator and schedule are ours.",
    "mixmatch": "The width of the WRN-28 in Meta-Semi's tables is not known.",
    "mean_teacher": "For WRN-28-2, the weight of the unlabeled loss rises "
    "linearly in the code and as a sigmoid here.",
    "ict": "For WRN-28-2, the weight of the unlabeled loss rises linearly in "
    "the code and as a sigmoid here. The code mixes probabilities, here logits "
    "are mixed. The code does not mix labeled images.",
    "uda": "The code compares the threshold with the confidence after "
    "sharpening, here it is compared before.",
    "fixmatch": "On ImageNet, the learning rate decays in steps in the code.",
    "fast_swa": "The code normalizes CIFAR-100 with the mean and standard "
    "deviation of CIFAR-10, too.",
}

# Table -> a note in the headers of its files and in flags/README.md.
TABLE_NOTES = {
    "Meta Pseudo Labels, Table 9": "Each row has the settings of its own "
    "source, so that rows differ in more than the method.",
    "Meta Pseudo Labels, Figure 5": "The slides do not name the dataset. "
    "CIFAR-10 and the numbers of labels are our choice.",
    "Meta-Semi, Table 4": "The hours are those of the paper's GPU, on which "
    "the whole training of ICT, 400 epochs, took 12.6 hours. A faster GPU "
    "trains for more epochs in this time, see --time_budget_minutes.",
    "Meta Pseudo Labels, Table 4": "--real_labels measures the precision on "
    "the ReaL labels.",
    "Meta-Semi, Table 2": "--stl10_fold selects one of the ten folds of "
    "labels.",
}

# Rows without a file: their images are not public.
NOT_OFFERED = {
    "Meta Pseudo Labels, Table 4": "WSL, FixRes ResNeXt-101 WSL, Big Transfer "
    "and Vision Transformer, whose labeled images are not public (their "
    "networks are resnext_101_32x48d, bit_152_4 and vit_h14)",
}


@functools.cache
def cells():
    """All cells of all tables, in their order."""
    return (
        *_mpl_2(), *_mpl_3_and_4(), *_mpl_9(), *_mpl_figure_3(),
        *_mpl_figure_5(), *_meta_semi_1(), *_meta_semi_2(), *_meta_semi_3(),
        *_meta_semi_figure_3(), *_meta_semi_4(), *_meta_semi_5(), *_digits(),
    )  # fmt: skip
