"""The registry: method name -> its class and its hyperparameters.

Importing it imports no TensorFlow, hence classes are named by strings. A new
method is one module in this package and one row below. If it has
hyperparameters of its own, it also has a dataclass in
`tf_metassl/hyperparameters.py`, which its row names.
"""

import importlib
import typing

from tf_metassl import hyperparameters as hp

if typing.TYPE_CHECKING:
    from tf_metassl.algorithms.algorithm import Algorithm


class Method(typing.NamedTuple):
    """A row of the registry.

    Attributes:
        location: `module:class`, the module of this package and the
            `Algorithm` in it.
        hyperparameters: the dataclass of the method's hyperparameters.
    """

    location: str
    hyperparameters: type[hp.Hyperparameters] = hp.Hyperparameters


ALGORITHMS = {
    "supervised": Method("supervised:Supervised", hp.Supervised),
    "supervised_mixup": Method(
        "supervised_mixup:SupervisedMixup", hp.SupervisedMixup
    ),
    "label_smoothing": Method(
        "label_smoothing:LabelSmoothing", hp.LabelSmoothing
    ),
    "randaugment": Method("randaugment:RandAugment", hp.RandAugment),
    "pseudo_label": Method("pseudo_label:PseudoLabel", hp.PseudoLabel),
    "pi_model": Method("pi_model:PiModel", hp.PiModel),
    "temporal_ensembling": Method(
        "temporal_ensembling:TemporalEnsembling", hp.TemporalEnsembling
    ),
    "mean_teacher": Method("mean_teacher:MeanTeacher", hp.MeanTeacher),
    "fast_swa": Method("fast_swa:FastSwa", hp.FastSwa),
    "vat": Method("vat:Vat", hp.Vat),
    "lga": Method("lga:Lga", hp.Lga),
    "sntg": Method("sntg:Sntg", hp.Sntg),
    "swwae": Method("swwae:Swwae", hp.Swwae),
    "cc_gan": Method("cc_gan:CcGan", hp.CcGan),
    "ict": Method("ict:Ict", hp.Ict),
    "learning_to_reweight": Method(
        "learning_to_reweight:LearningToReweight", hp.LearningToReweight
    ),
    "meta_semi": Method("meta_semi:MetaSemi", hp.MetaSemi),
    "meta_semi_ict": Method("meta_semi_ict:MetaSemiIct", hp.MetaSemiIct),
    "meta_pseudo_labels": Method(
        "meta_pseudo_labels:MetaPseudoLabels", hp.MetaPseudoLabels
    ),
    "fixmatch": Method("fixmatch:FixMatch", hp.FixMatch),
    "uda": Method("uda:Uda", hp.Uda),
    "flexmatch": Method("flexmatch:FlexMatch", hp.FlexMatch),
    "freematch": Method("freematch:FreeMatch", hp.FreeMatch),
    "softmatch": Method("softmatch:SoftMatch", hp.SoftMatch),
    "adamatch": Method("adamatch:AdaMatch", hp.AdaMatch),
    "dash": Method("dash:Dash", hp.Dash),
    "simmatch": Method("simmatch:SimMatch", hp.SimMatch),
    "crmatch": Method("crmatch:CrMatch", hp.CrMatch),
    "mixmatch": Method("mixmatch:MixMatch", hp.MixMatch),
    "remixmatch": Method("remixmatch:ReMixMatch", hp.ReMixMatch),
    "enaet": Method("enaet:EnAet", hp.EnAet),
    "simclr": Method("simclr:SimClr", hp.SimClr),
    "byol": Method("byol:Byol", hp.Byol),
    "moco_v2": Method("moco_v2:MoCoV2", hp.MoCoV2),
    "pirl": Method("pirl:Pirl", hp.Pirl),
    "pcl": Method("pcl:Pcl", hp.Pcl),
    "noisy_student": Method("noisy_student:NoisyStudent", hp.NoisyStudent),
    "billion_scale": Method("billion_scale:BillionScale", hp.BillionScale),
    "ensemble_self_training": Method(
        "ensemble_self_training:EnsembleSelfTraining", hp.EnsembleSelfTraining
    ),
    "reduced_meta_pseudo_labels": Method(
        "reduced_meta_pseudo_labels:ReducedMetaPseudoLabels",
        hp.ReducedMetaPseudoLabels,
    ),
}

# Short names that `--algo` takes as well.
ALIASES = {"mpl": "meta_pseudo_labels", "meta_semi_strong": "meta_semi"}

# The settings that a short name stands for, besides its method. What is given
# has precedence.
RECIPES: dict[str, dict[str, object]] = {
    # Not the paper's: the meta gradient selects strong views, which the
    # student of this step labels, as FixMatch's does.
    "meta_semi_strong": {
        "learned_view": "strong",
        "labeler": "student",
        "labeler_mode": "training",
        "mixup_on": "none",
        "labeled_loss_batch": "raw",
        "meta_labeled_batch": "raw",
    },
}


def class_names() -> dict[str, str]:
    """Name of the class of a method -> the method."""
    return {
        method.location.split(":")[1]: name
        for name, method in ALGORITHMS.items()
    }


def algorithm_class(name: str) -> "type[Algorithm]":
    """Imports and returns the `Algorithm` of a method.

    Args:
        name: a key of `ALGORITHMS`.
    """
    module, class_name = ALGORITHMS[name].location.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), class_name)


def hyperparameters_class(name: str) -> type[hp.Hyperparameters]:
    """The dataclass of a method's hyperparameters.

    Args:
        name: a key of `ALGORITHMS`.
    """
    return ALGORITHMS[name].hyperparameters
