"""No setting is ignored in silence, and no number escapes its range."""

import dataclasses
import math
import types

import pytest

from tests.helpers import tiny_algorithm
from tf_metassl import config, options
from tf_metassl.algorithms import ALGORITHMS, hyperparameters_class
from tf_metassl.contract import view_kind
from tf_metassl.data import policies
from tf_metassl.data.rand_augment import RandAugmentPolicy
from tf_metassl.errors import ConfigError
from tf_metassl.hyperparameters import (
    MetaPseudoLabels,
    MetaSemi,
    Sntg,
    StudentFeedback,
)
from tf_metassl.run import report


def all_fields():
    """Method and field, each field once; the method is None where all have it.

    Returns:
        A list of `(algo, field)`.
    """
    found = {
        field.name: ("supervised", field) for field in config.common_fields()
    }
    for algo in ALGORITHMS:
        for field in dataclasses.fields(hyperparameters_class(algo)):
            found.setdefault(field.name, (algo, field))
    return list(found.values())


def of_type(kind):
    cases = [(a, f) for a, f in all_fields() if type(f.default) is kind]
    return pytest.mark.parametrize(
        "algo, field", cases, ids=[field.name for _, field in cases]
    )


@of_type(float)
@pytest.mark.parametrize("value", (math.nan, math.inf, -math.inf))
def test_a_float_is_finite(algo, field, value):
    with pytest.raises(ConfigError, match=f"--{field.name}=.*finite number"):
        config.resolve({"algo": algo, field.name: value})


@of_type(int)
@pytest.mark.parametrize("value", (2**31, 2**32 + 5, 2**63, -(2**40)))
def test_an_integer_does_not_wrap_round(algo, field, value):
    with pytest.raises(ConfigError, match=f"--{field.name}={value}: must be"):
        config.resolve({"algo": algo, field.name: value})


@pytest.mark.parametrize(
    "given",
    (
        {"num_steps": "100"},
        {"num_steps": 100.0},
        {"num_steps": True},
        {"learning_rate": "0.1"},
        {"jit_compile": 1},
        {"labeled_dir": 3},
    ),
)
def test_a_value_from_python_has_the_type_of_the_setting(given):
    (name,) = given
    with pytest.raises(ConfigError, match=f"--{name}=.*must be of type"):
        config.resolve(given)


@pytest.mark.parametrize(
    "given, reason",
    (
        ({"dataset": "digits", "labeled_dir": "/x"}, "dataset=folder"),
        ({"dataset": "cifar10", "unlabeled_dir": "/x"}, "dataset=folder"),
        ({"dataset": "folder", "manifest": "/x"}, "dataset=csv"),
        ({"image_size": 99}, "--dataset=digits"),
        ({"channels": 3}, "--dataset=digits"),
        ({"resize": "squash"}, "--dataset=digits"),
        ({"labeled_dir": "/x", "resize": "squash"}, "without --image_size"),
        ({"group_by": "parent"}, "--dataset=digits"),
        ({"mirror": "off"}, "affine, which mirrors no image"),
        ({"data_dir": "/x"}, "--dataset=digits"),
        ({"dataset": "folder", "data_dir": "/x"}, "--dataset=folder"),
        ({"dataset": "cifar10", "svhn_extra": True}, "dataset=svhn_cropped"),
        ({"dataset": "cifar10", "test_fraction": 0.1}, "folder, csv"),
        ({"tpu": "local"}, "strategy=tpu"),
        ({"strategy": "one_device", "num_replicas": 2}, "mirrored, auto"),
        ({"algo": "supervised", "strong_magnitude": 3.0}, "strong view"),
        ({"strong_magnitude": 3.0}, "affine_digits; it is for"),
        (
            {"algo": "randaugment", "weak_augmentation": "crop"},
            "affine_digits, which takes its place",
        ),
        ({"label_split": "first", "split_seed": 1}, "draws nothing"),
        (
            {"labeled_dir": "/x", "test_dir": "/y", "test_fraction": 0.1},
            "with --test_dir",
        ),
        (
            {"labeled_dir": "/x", "validation_dir": "/y", "num_validation": 9},
            "with --validation_dir",
        ),
        (
            {"dataset": "two_moons", "batch_norm": "local"},
            "two_moons_mlp, which has none",
        ),
        ({"algo": "mixmatch", "strong_augmentation": "uda"}, "strong view"),
        ({"ctaugment_every": 5}, "it is for --strong_augmentation=ctaugment"),
        ({"model": "wrn_28_2", "dropblock": 0.1}, "resnet_50, resnet_152"),
        (
            {"algo": "supervised", "unlabeled_batch_ratio": 3},
            "unlabeled images",
        ),
    ),
)
def test_a_setting_that_nothing_reads_is_refused(given, reason):
    with pytest.raises(ConfigError, match="has no effect") as error:
        config.resolve({"algo": "fixmatch", **given})
    assert reason in str(error.value)


def test_the_same_value_as_without_it_is_no_mistake():
    given = {"image_size": 0, "tpu": "", "num_replicas": 0, "svhn_extra": False}
    assert config.resolve(given) == config.resolve({})


def test_images_of_ones_own_name_their_dataset():
    assert config.resolve({"labeled_dir": "/x"}).dataset == "folder"
    assert config.resolve({"manifest": "/x.csv"}).dataset == "csv"
    assert config.resolve({"labeled_dir": ""}).dataset == "digits"
    with pytest.raises(ConfigError, match="exclude each other"):
        config.resolve({"labeled_dir": "/x", "manifest": "/x.csv"})


def test_paths_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    given = {"labeled_dir": "~/photos", "run_dir": "~/runs/a"}
    resolved = config.resolve(given)
    assert resolved.labeled_dir == "/home/someone/photos"
    assert resolved.run_dir == "/home/someone/runs/a"
    paths = {
        field.name
        for _, field in all_fields()
        if field.name.endswith("_dir")
        or field.name in ("manifest", "array_file", "tfrecord", "real_labels")
    }
    assert paths == config.PATHS


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_a_method_says_to_read_is_what_it_reads(name):
    algorithm = tiny_algorithm(name)
    hp, views = algorithm.hyperparameters, algorithm.views
    kinds = {view_kind(view) for view in views.labeled + views.unlabeled}
    if name not in (
        "noisy_student",
        "billion_scale",
        "ensemble_self_training",
        "reduced_meta_pseudo_labels",
    ):
        assert hp.uses_unlabeled == bool(views.unlabeled)
    assert hp.uses_strong_policy == ("strong" in kinds)
    assert hp.uses_contrastive_policy == ("contrastive" in kinds)
    assert hp.uses_ctaugment == ("ctaugment" in kinds)
    assert hp.uses_weak_policy == (kinds != {"strong"})


def test_meta_semi_reads_the_strong_view_where_it_learns_it():
    hp = MetaSemi(learned_view="strong")
    assert hp.uses_strong_policy and not MetaSemi().uses_strong_policy
    given = {
        "learned_view": "strong",
        "strong_augmentation": "uda",
        "strong_magnitude": 3.0,
    }
    assert config.resolve(given).strong_magnitude == 3.0


def test_the_policies_with_a_magnitude_are_those_that_take_one():
    assert options.RAND_AUGMENT_POLICIES == tuple(
        name
        for name, policy in policies.STRONG_POLICIES.items()
        if type(policy) is RandAugmentPolicy
    )
    assert options.REPLACE_WEAK == tuple(
        name
        for name, policy in policies.STRONG_POLICIES.items()
        if policy.replaces_weak
    )


def test_strong_views_on_top_of_weak_ones_read_both():
    given = {
        "algo": "randaugment",
        "dataset": "cifar10",
        "weak_augmentation": "crop",
    }
    assert config.resolve(given).weak_augmentation == "crop"


def without_effect(resolved, validation_rows=None):
    """The line of the plan about settings that change nothing, or none."""
    source = types.SimpleNamespace(validation_rows=validation_rows)
    return report._without_effect(
        types.SimpleNamespace(config=resolved, source=source)
    )


def test_hyperparameters_without_effect_are_in_the_plan():
    resolved = config.resolve(
        {
            "algo": "mpl",
            "feedback": "off",
            "feedback_sign": -1,
            "finetune_steps": 0,
            "finetune_batch_size": 8,
        }
    )
    ((name, text),) = without_effect(resolved)
    assert name == "no effect"
    assert "--feedback_sign (--feedback=off)" in text
    assert "--finetune_batch_size (--finetune_steps=0)" in text
    # Left at its default.
    assert "finetune_learning_rate" not in text
    assert without_effect(config.resolve({"algo": "mpl"})) == []


@pytest.mark.parametrize(
    "algo, name",
    (
        ("pcl", "cluster_start"),
        ("fast_swa", "swa_start"),
        ("fast_swa", "cycle_start"),
    ),
)
def test_what_would_never_begin_is_refused(algo, name):
    config.resolve({"algo": algo, "num_steps": 1})
    given = {"algo": algo, "num_steps": 100, name: 99}
    assert getattr(config.resolve(given).hyperparameters, name) == 99
    match = f"--{name}=100 is never reached: the run has 100 steps"
    with pytest.raises(ConfigError, match=match):
        config.resolve(given | {name: 100})


def test_an_extension_may_reach_what_the_run_did_not():
    given = {"algo": "fast_swa", "num_steps": 100, "swa_start": 150}
    extension = {"extend_to": 200, "run_dir": "run"}
    assert config.resolve(given | extension).extend_to == 200
    with pytest.raises(ConfigError, match="swa_start=150 is never reached"):
        config.resolve(given)


def test_validation_images_of_ones_own_make_their_number_needless():
    given = {"manifest": "/x.csv", "num_validation": 100}
    resolved = config.resolve(given)
    ((_, text),) = without_effect(resolved, validation_rows=[3, 4])
    assert text == "--num_validation (there are validation images)"
    assert without_effect(resolved) == []


@pytest.mark.parametrize(
    "hp, expected",
    (
        (
            Sntg(),
            {"vat_epsilon", "vat_xi", "entropy_weight", "ensemble_momentum"},
        ),
        (Sntg(sntg_base="vat"), {"ensemble_momentum"}),
        (StudentFeedback(feedback="taylor"), set()),
        (
            MetaPseudoLabels(feedback="dot", mpl_unlabeled="labeled"),
            {
                "uda_weight",
                "uda_ramp_steps",
                "uda_temperature",
                "confidence_threshold",
                "pseudo_label_view",
            },
        ),
        (
            MetaSemi(labels_in_update="none", mixup_alpha=0.0),
            {
                "labeled_loss_weight",
                "labeled_loss_batch",
                "judge_share",
                "mix_weight_rule",
                "mix_weight_per",
                "mix_partners",
            },
        ),
        (MetaSemi(ema_decay=0.0), {"labeler"}),
        (MetaSemi(mixup_on="unlabeled"), {"labeled_loss_batch"}),
        (
            MetaSemi(example_weights="constant"),
            {
                "meta_gradient",
                "selection_margin",
                "meta_labeled_batch",
                "lookahead_steps",
                "weight_normalizer",
            },
        ),
        (MetaSemi(example_weights="relu_norm"), {"weight_normalizer"}),
        (MetaSemi(example_weights="plus_minus_one"), {"weight_normalizer"}),
        (
            MetaSemi(mixup_on="none"),
            {
                "labeled_loss_batch",
                "mixup_alpha",
                "mix_weight_rule",
                "mix_weight_per",
                "mix_partners",
            },
        ),
    ),
)
def test_which_hyperparameters_have_no_effect(hp, expected):
    assert set(hp.without_effect) == expected


@pytest.mark.parametrize("name", ALGORITHMS)
def test_only_fields_are_without_effect(name):
    cls = hyperparameters_class(name)
    names = {field.name for field in dataclasses.fields(cls)}
    off = {
        f.name: type(f.default)(0)
        for f in dataclasses.fields(cls)
        if type(f.default) in (int, float) and f.metadata["minimum"] == 0
    }
    assert set(cls(**off).without_effect) <= names
