"""The settings that every method has, one dataclass per section of `--help`.

`tf_metassl.config.Config` inherits all of them. The hyperparameters of the
methods are in `tf_metassl/hyperparameters.py`. Imports no TensorFlow.
"""

import dataclasses

from tf_metassl import models
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.options import DataOptions
from tf_metassl.hyperparameters import setting

# Strong policies that have a magnitude.
RAND_AUGMENT_POLICIES = ("mpl", "mpl_imagenet", "fixmatch", "uda")
# Weak policies that mirror left to right; no strong one does.
MIRRORING = ("flip_crop", "flip_narrow_crop", "mpl") + (
    "random_crop",
    "resized_crop",
)
# Strong policies that are applied to the image, not to its weak view.
REPLACE_WEAK = ("affine_digits",)
# With --supervised_twin=auto, runs of fewer steps have none, nor those of which
# it would be a larger share.
TWIN_STEPS = 2000
TWIN_SHARE = 0.1
# With --steps_per_execution=0: the most steps per call, and the longest run
# that has one. A loop takes up to half a second more to trace.
MOST_PER_CALL = 50
LOOP_STEPS = 2000


def _with_statistics():
    """The datasets whose pixel statistics are published."""
    rows = DATASETS.items()
    return ", ".join(name for name, row in rows if row.pixel_statistics)


def _dropout_rates():
    """The networks' own dropout rates: `0.5 for a, b; 0.2 for c`."""
    names = {}
    for name, network in models.NETWORKS.items():
        if network.dropout:
            names.setdefault(network.dropout, []).append(name)
    return "; ".join(f"{k} for {', '.join(v)}" for k, v in names.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """The dataset, the use of its images and their augmentation."""

    dataset: str = setting(
        "digits", "The images to train on.", choices=tuple(DATASETS)
    )
    num_labeled: int = setting(
        30,
        "Number of labeled training images. 0 = all labeled images that are "
        "not held out.",
        minimum=0,
    )
    num_validation: int = setting(
        200,
        "Number of labeled images held out for validation. 0 = none: the run "
        "has no best checkpoint then. -1 = a fifth of the labeled images and "
        "at most 100, but none if that is fewer than 10.",
        minimum=-1,
    )
    split_seed: int = setting(
        0, "Seed of the choice of the labeled images.", minimum=0
    )
    labeled_inside_unlabeled: bool = setting(
        True, "Use labeled images as unlabeled, too."
    )
    class_balance: str = setting(
        "none",
        "How classes with few labeled images are made up for. sampling: the "
        "labeled batches draw every class equally often; loss: the labeled "
        "loss of an image is weighted by the inverse of the frequency of its "
        "class, with a mean of 1; none: not at all.",
        choices=("none", "sampling", "loss"),
    )
    known_classes: int = setting(
        0,
        "Only the first so many classes are learned, validated and tested; "
        "images of the others can be in the unlabeled pool. 0 = all.",
        minimum=0,
    )
    foreign_share: float = setting(
        0.0,
        "--known_classes: share of the unlabeled pool that is of other "
        "classes. The pool has the same size for every share, and no labeled "
        "image.",
        minimum=0.0,
        maximum=1.0,
    )
    weak_augmentation: str = setting(
        "auto",
        "Policy of the weak view. auto: the dataset's default.",
        choices=(
            "auto",
            "none",
            "crop",
            "flip_crop",
            "narrow_crop",
            "flip_narrow_crop",
            "mpl",
            "random_crop",
            "resized_crop",
            "affine",
            "jitter",
        ),
    )
    mirror: str = setting(
        "on",
        "off: no view is mirrored, for images in which left and right differ, "
        f"such as text. on: {', '.join(MIRRORING)} mirror every other image, "
        "and so do the strong views that are made of theirs.",
        choices=("on", "off"),
    )
    strong_augmentation: str = setting(
        "auto",
        "Policy of the strong view. auto: the dataset's default; ctaugment: "
        "magnitudes are learned from the labeled images.",
        choices=(
            "auto",
            *RAND_AUGMENT_POLICIES,
            "autoaugment_cifar10",
            "autoaugment_svhn",
            "autoaugment_imagenet",
            "ctaugment",
            "affine_digits",
            "jitter_points",
        ),
    )
    strong_magnitude: float = setting(
        0.0,
        "Magnitude of a RandAugment policy. 0 = the policy's own.",
        minimum=0.0,
    )
    contrastive_augmentation: str = setting(
        "auto",
        "Policy of the contrastive views of self-supervised methods. simclr: "
        "for large images; simclr_small: for those of CIFAR-10; simclr_digits: "
        "without flips. auto: by the size of the images and whether the "
        "dataset's weak policy flips them.",
        choices=("auto", "simclr", "simclr_small", "simclr_digits"),
    )
    ctaugment_every: int = setting(
        0,
        "CTAugment: steps after which views are drawn with the magnitudes "
        "learned until then. The data pipeline begins anew each time. 0 = "
        "--evaluate_every.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The network."""

    model: str = setting(
        "auto",
        f"{', '.join(models.NETWORKS)}, {models.FURTHER}; auto: the dataset's "
        f"default, for own images {models.BY_SIZE_TEXT}.",
    )
    normalization: str = setting(
        "unit",
        "How the network scales pixels. unit: to -1...1; mean_std: by the mean "
        "and the standard deviation of each channel, from the literature for "
        f"{_with_statistics()}, else from the training images; zca: "
        "whitening over all pixels of an image.",
        choices=("unit", "mean_std", "zca"),
    )
    dropout: float = setting(
        0.0,
        "Dropout rate of the student. 0 = off. The default is that of the "
        f"network: {_dropout_rates()}; 0 for all others. Dropout comes before "
        "the last layer, in cnn13 after both poolings.",
        minimum=0.0,
        maximum=0.99,
    )
    dropblock: float = setting(
        0.0,
        "Rate of DropBlock with regions of 7x7 at the end of the run; it rises "
        "linearly from 0 (published: 0.1). 0 = off. For "
        f"{', '.join(models.with_dropblock())}.",
        minimum=0.0,
        maximum=0.99,
    )
    init_weights: str = setting(
        "",
        "Where the weights before the last layer come from. imagenet: "
        "published ones, for efficientnet_lite0 and keras:NAME; or the folder "
        "of a run, or a .keras file, of the same network. Empty = random.",
    )
    init_last_layer: bool = setting(
        False,
        "Whether the last layer starts from that of --init_weights as well, a "
        "run or file of the same classes.",
    )
    freeze: str = setting(
        "none",
        "What is not trained. backbone: everything but the last layer; lora: "
        f"the same, but a product of rank {models.LORA_RANK} is added to every "
        "kernel; fixres: everything but the last layer and the last batch "
        "norm, for another --image_size than that of --init_weights.",
        choices=("none", "backbone", "lora", "fixres"),
    )
    cache_features: int = setting(
        0,
        "--freeze=backbone: number of weak and of strong views of each image "
        "of which the frozen layers compute features, once for all runs; "
        "training draws from these, and trains the last layer on them. 0 = "
        "every step augments images and runs all layers.",
        minimum=0,
        maximum=64,
        read_by={"freeze": ("backbone",)},
    )
    backbone_learning_rate_scale: float = setting(
        1.0,
        "Factor on the learning rate of all layers but the last, for a network "
        "that starts from trained weights. For --optimizer=sgd.",
        minimum=0.0,
        maximum=1.0,
        read_by={"optimizer": ("sgd",)},
    )
    batch_norm: str = setting(
        "auto",
        "Batch that batch norm computes its statistics over. synchronized: the "
        "global batch; local: each replica's share; auto: synchronized if "
        "there are several replicas.",
        choices=("auto", "local", "synchronized"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationOptions:
    """Steps, batches and the optimizer."""

    seed: int = setting(
        0, "Seed of initial weights, batches and augmentation.", minimum=0
    )
    num_steps: int = setting(1000, "Number of training steps.", minimum=1)
    time_budget_minutes: float = setting(
        0.0,
        "Time limit of each stage in minutes. 0 = no limit. Counted from the "
        "first step and including evaluations. The stage is evaluated and ends "
        "then, or after --num_steps; the learning-rate schedule follows the "
        "time.",
        minimum=0.0,
    )
    batch_size: int = setting(
        64,
        "Labeled images per step, over all replicas.",
        minimum=1,
        maximum=65_536,
    )
    unlabeled_batch_ratio: int = setting(
        2,
        "Unlabeled images per labeled image in a step.",
        minimum=1,
        maximum=1024,
    )
    optimizer: str = setting(
        "sgd",
        "sgd, with Nesterov momentum; adam; or lars, which scales the step of "
        "each kernel to its norm, for large batches.",
        choices=("sgd", "adam", "lars"),
    )
    learning_rate: float = setting(0.1, "Peak learning rate.", minimum=0.0)
    lr_schedule: str = setting(
        "cosine",
        "Decay of the learning rate. cosine: to 0; cosine_7_16: FixMatch's "
        "cos(7/16 pi t), to 0.195 of the peak; constant: none.",
        choices=("cosine", "cosine_7_16", "constant"),
    )
    warmup_steps: int = setting(
        0, "Steps of linear warm-up before the decay. 0 = off.", minimum=0
    )
    momentum: float = setting(
        0.9,
        "Nesterov momentum of sgd, momentum of lars, beta_1 of adam. 0 = off.",
        minimum=0.0,
        maximum=0.999,
    )
    weight_decay: float = setting(
        1e-4,
        "Weight decay w of all kernels: w * kernel is added to the gradient. 0 "
        "= off.",
        minimum=0.0,
    )
    decoupled_weight_decay: bool = setting(
        False,
        "Multiply kernels by 1 - w * learning rate after the step. Nothing is "
        "added to the gradient then; MixMatch does this with adam.",
    )
    weight_decay_on: str = setting(
        "kernels",
        "What weight decay applies to. kernels: neither biases nor batch norm "
        "nor the gains of weight norm; all: everything, as in code that leaves "
        "it to an optimizer of PyTorch.",
        choices=("kernels", "all"),
    )
    gradient_clip_norm: float = setting(
        0.0, "Bound on the gradient's global norm. 0 = off.", minimum=0.0
    )
    sam_rho: float = setting(
        0.0,
        "Sharpness-aware minimization (arXiv 2010.01412): the gradient is "
        "computed after a step of this length up the loss, which doubles the "
        "time (published: 0.05). For methods that train one network on one "
        "loss. 0 = off.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """Devices, precision and compilation."""

    strategy: str = setting(
        "auto",
        "The devices to train on. one_device; mirrored: all local GPUs, or "
        "--num_replicas logical CPU devices; multi_worker: the same command on "
        "every machine that TF_CONFIG or SLURM names; tpu: see --tpu; auto: "
        "multi_worker if they name several machines, else mirrored if there "
        "are several GPUs.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    tpu: str = setting(
        "",
        "Name or address of the TPU of --strategy=tpu; local: this machine is "
        "a TPU VM. Empty = what the environment says.",
        read_by={"strategy": ("tpu",)},
    )
    num_replicas: int = setting(
        0,
        "Replicas of --strategy=mirrored, which auto means with it. 0 = all "
        "GPUs.",
        minimum=0,
        maximum=1024,
        read_by={"strategy": ("mirrored", "auto")},
    )
    precision: str = setting(
        "float32",
        "Precision of the networks' layers; logits and losses are float32. "
        "On a processor without instructions for bfloat16, layers that "
        "compute do so in float32, of which a run warns.",
        choices=("float32", "mixed_bfloat16"),
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Micro-batches per step, for batches that do not fit into memory. "
        "Batch norm sees one micro-batch at a time. Not for methods with a "
        "meta gradient. 1 = off.",
        minimum=1,
    )
    remat: bool = setting(
        False,
        "Recompute activations for the gradient. The result is the same, with "
        "less memory and more time.",
    )
    jit_compile: bool = setting(
        False,
        "Compile the training step with XLA. On a CPU such a step is slower.",
    )
    steps_per_execution: int = setting(
        0,
        "Steps per call of the compiled function. More spare the time between "
        "calls; checkpoints and signals wait for the end of a call. 0 = as "
        f"many as divide all numbers of steps of the run, at most "
        f"{MOST_PER_CALL} and about half a second of them; 1 in runs of at "
        f"most {LOOP_STEPS} steps.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonitoringOptions:
    """Evaluation, model selection and output."""

    evaluate_every: int = setting(
        0,
        "Steps between evaluations, each with a checkpoint. 0 = a tenth of the "
        "run.",
        minimum=0,
    )
    patience: int = setting(
        0,
        "End a stage after so many evaluations in succession without a higher "
        "validation accuracy of the exported network. 0 = never. What is "
        "exported is up to --selection; a learning rate that decays has not "
        "reached its end then.",
        minimum=0,
    )
    evaluate_networks: str = setting(
        "exported",
        "The networks that are evaluated during training. exported: the one "
        "that would be exported, which --patience and --selection go by; all: "
        "also the others, such as the student beside its average or the "
        "teacher, for their curves. At the end of a stage all of them are.",
        choices=("exported", "all"),
    )
    evaluate_on_labeled: bool = setting(
        False,
        "Evaluate on the labeled images, too. They are not augmented; the rows "
        "in metrics.jsonl are those of the split labeled.",
    )
    real_labels: str = setting(
        "",
        "JSON file with a list of classes for each test image, such as that of "
        "ImageNet-ReaL (arXiv 2006.07159). The share of the predictions that "
        "are among them is reported, too. Empty = none.",
    )
    eval_batch_size: int = setting(
        256, "Images per evaluation batch.", minimum=1, maximum=65_536
    )
    selection: str = setting(
        "last",
        "The checkpoint that is reported and exported: last, or "
        "best_validation. Test images are never used to choose it.",
        choices=("last", "best_validation"),
    )
    collapse: str = setting(
        "warn",
        "What to do if nearly all pseudo-labels are of one class, or none is "
        "selected. warn; stop: after two such intervals between evaluations in "
        "succession; off.",
        choices=("warn", "stop", "off"),
    )
    supervised_twin: str = setting(
        "auto",
        "Train the network on the labels alone, too, and compare both. The "
        "twin follows the run and has as many steps; reports say if the run is "
        "not better on the validation images. on; off; auto: in runs of at "
        f"least {TWIN_STEPS} steps of which it is less than a tenth, by the "
        "images in a step.",
        choices=("auto", "on", "off"),
    )
    tracker: str = setting(
        "none",
        "Where metrics, settings and reports go besides the run's folder: "
        "mlflow or wandb, which have to be installed and are configured by "
        "their environment variables. One that fails does not end the run.",
        choices=("none", "mlflow", "wandb"),
    )
    profile_steps: str = setting(
        "",
        "Profile these steps for TensorBoard: first,last, such as 20,30, "
        "counted from 1. Empty = none.",
    )
    verbose: int = setting(
        2,
        "2: progress bar; 1: one line per evaluation; 0: only the plan and the "
        "final table.",
        choices=(0, 1, 2),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The run directory, checkpoints and recovery."""

    run_dir: str = setting(
        "",
        "Folder of the run. An existing run with the same settings is resumed. "
        "Empty = a new folder below runs/.",
    )
    extend_to: int = setting(
        0,
        "Continue the finished run in --run_dir to so many steps. The other "
        "settings are those of the run, --num_steps too. From there on the "
        "learning rate is that of a run of so many steps; ramps and other "
        "lengths stay. 0 = off.",
        minimum=0,
    )
    allow_changed: str = setting(
        "",
        "Settings, separated by commas, that may differ from those of the run "
        "that is resumed, such as num_replicas. Empty = none.",
    )
    checkpoint_minutes: float = setting(
        10.0,
        "Minutes between checkpoints. 0 = only at evaluations.",
        minimum=0.0,
    )
    keep_checkpoints: int = setting(
        2,
        "Checkpoints to keep besides the best by validation.",
        minimum=1,
    )
    max_loss: float = setting(
        1e4,
        "Stop the run if the training loss, averaged since the last "
        "evaluation, is larger. 0 = only if it is not finite.",
        minimum=0.0,
    )
    recover_from_nan: int = setting(
        0,
        "How many times a run returns to its last checkpoint if the loss is "
        "not finite or too large. 0 = stop. It continues with other batches.",
        minimum=0,
    )


# Title -> the dataclasses of a section of `--help`. The method's section, of
# `--algo` and the hyperparameters, follows them.
SECTIONS = {
    "Data": (SplitOptions, DataOptions),
    "Network": (NetworkOptions,),
    "Optimization": (OptimizationOptions,),
    "Execution": (ExecutionOptions,),
    "Monitoring": (MonitoringOptions,),
    "Run directory and recovery": (RunOptions,),
}
