"""The registry: method name -> where its class is.

Names are text so that listing the methods imports no TensorFlow. A new method
is one file here, one line below and, if it has hyperparameters of its own, one
dataclass in `tf_metassl/hyperparameters.py`.
"""

import importlib

ALGORITHMS = {
    "supervised": "tf_metassl.algorithms.supervised:Supervised",
    "supervised_mixup": (
        "tf_metassl.algorithms.supervised_mixup:SupervisedMixup"
    ),
    "label_smoothing": "tf_metassl.algorithms.label_smoothing:LabelSmoothing",
    "randaugment": "tf_metassl.algorithms.randaugment:RandAugment",
    "pseudo_label": "tf_metassl.algorithms.pseudo_label:PseudoLabel",
    "pi_model": "tf_metassl.algorithms.pi_model:PiModel",
    "temporal_ensembling": (
        "tf_metassl.algorithms.temporal_ensembling:TemporalEnsembling"
    ),
    "mean_teacher": "tf_metassl.algorithms.mean_teacher:MeanTeacher",
    "fast_swa": "tf_metassl.algorithms.fast_swa:FastSwa",
    "vat": "tf_metassl.algorithms.vat:Vat",
    "sntg": "tf_metassl.algorithms.sntg:Sntg",
    "ict": "tf_metassl.algorithms.ict:Ict",
    "learning_to_reweight": (
        "tf_metassl.algorithms.learning_to_reweight:LearningToReweight"
    ),
    "meta_semi": "tf_metassl.algorithms.meta_semi:MetaSemi",
    "meta_semi_ict": "tf_metassl.algorithms.meta_semi_ict:MetaSemiIct",
    "meta_pseudo_labels": (
        "tf_metassl.algorithms.meta_pseudo_labels:MetaPseudoLabels"
    ),
    "fixmatch": "tf_metassl.algorithms.fixmatch:FixMatch",
    "uda": "tf_metassl.algorithms.uda:Uda",
    "flexmatch": "tf_metassl.algorithms.flexmatch:FlexMatch",
    "freematch": "tf_metassl.algorithms.freematch:FreeMatch",
    "softmatch": "tf_metassl.algorithms.softmatch:SoftMatch",
    "mixmatch": "tf_metassl.algorithms.mixmatch:MixMatch",
    "remixmatch": "tf_metassl.algorithms.remixmatch:ReMixMatch",
    "enaet": "tf_metassl.algorithms.enaet:EnAet",
    "noisy_student": "tf_metassl.algorithms.noisy_student:NoisyStudent",
    "reduced_meta_pseudo_labels": (
        "tf_metassl.algorithms.reduced_meta_pseudo_labels"
        ":ReducedMetaPseudoLabels"
    ),
}

ALIASES = {"mpl": "meta_pseudo_labels"}


def algorithm_class(name):
    """Imports and returns the class of the method called `name`."""
    module, class_name = ALGORITHMS[name].split(":")
    return getattr(importlib.import_module(module), class_name)
