"""Settings: defaults, and errors that name the flag."""

import dataclasses

import pytest

from tf_metassl import config
from tf_metassl.algorithms import (
    ALGORITHMS,
    ALIASES,
    RECIPES,
    hyperparameters_class,
)
from tf_metassl.data.datasets import DATASETS
from tf_metassl.errors import ConfigError


def test_every_field_has_its_help():
    for field in dataclasses.fields(config.Config):
        if field.name != "hyperparameters":
            assert field.metadata["help"].endswith((".", "on."))


def test_given_values_win_over_the_datasets_defaults():
    assert config.resolve({}).model == "digits_cnn"
    assert config.resolve({}).num_steps != 77
    assert config.resolve({"num_steps": 77}).num_steps == 77
    assert config.resolve({"algo": "mpl"}).algo == "meta_pseudo_labels"
    assert (
        config.resolve({"mixup_alpha": 0.5}).hyperparameters.mixup_alpha == 0.5
    )


@pytest.mark.parametrize(
    "given, message",
    [
        ({"algo": "fixmatsch"}, "--algo=fixmatsch: must be one of supervised"),
        ({"num_steps": 0}, "--num_steps=0: must be at least 1"),
        ({"momentum": 1.5}, "--momentum=1.5: must be between 0.0 and 0.999"),
        (
            {"example_weights": "none"},
            "--example_weights=none: must be one of indicator, constant",
        ),
        (
            {"algo": "supervised", "feedback": "dot"},
            "--feedback is not a setting of --algo=supervised",
        ),
        (
            {"batch_size": 12},
            "--batch_size=12: must be a multiple of 8 with MixUp",
        ),
        ({"profile_steps": "20"}, "must be first,last, such as 20,30"),
        ({"profile_steps": "30,20"}, "two steps from 1 to 600"),
        ({"profile_steps": "20,601"}, "the last one of the run"),
        (
            {"num_steps": 30, "evaluate_every": 10, "patience": 2},
            "ends a stage at step 30 at the earliest",
        ),
        (
            {"num_steps": 30, "steps_per_execution": 20},
            "--num_steps=30 must be a multiple of --steps_per_execution=20",
        ),
        ({"num_steps": 5, "warmup_steps": 5}, "leave nothing of --num_steps=5"),
        (
            {
                "algo": "meta_pseudo_labels",
                "steps_per_execution": 20,
                "finetune_steps": 30,
            },
            "--finetune_steps=30 must be a multiple of",
        ),
        (
            {"algo": "noisy_student", "warmup_steps": 9, "round_steps": 9},
            "leaves nothing of --round_steps=9",
        ),
        *(
            ({"algo": algo, **feedback}, message)
            for algo in ("meta_pseudo_labels", "reduced_meta_pseudo_labels")
            for feedback, message in (
                (
                    {"feedback": "taylor", "pseudo_label": "soft"},
                    "--feedback=taylor .* has no gradient",
                ),
                ({"pseudo_label": "soft"}, "--feedback=per_example scores"),
                (
                    {"feedback": "exact_soft", "pseudo_label": "sampled"},
                    "differentiates through soft labels",
                ),
            )
        ),
        (
            {
                "algo": "mpl",
                "feedback": "taylor",
                "precision": "mixed_bfloat16",
            },
            "--feedback=taylor is the small difference .*--precision=float32",
        ),
        (
            {
                "algo": "meta_semi",
                "meta_gradient": "finite_difference",
                "precision": "mixed_bfloat16",
            },
            "=finite_difference is the small difference .*--precision=float32",
        ),
        ({"algorithm": "mpl"}, "Unknown setting 'algorithm'"),
        (
            {"algo": "meta_semi_ict", "mix_partners": "all"},
            "--mix_partners=all: the consistency loss",
        ),
        ({"model": "wrn"}, "--model=wrn: must be one of digits_cnn, .*wrn_D_K"),
        (
            {"normalization": "pca"},
            "--normalization=pca: must be one of unit, mean_std, zca",
        ),
        ({"dataset": "imagenot"}, "--dataset=imagenot: must be one of digits"),
    ],
)
def test_wrong_values_name_the_flag_and_what_is_allowed(given, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve(given)


def test_feedback_and_labels_that_go_together():
    for algo in ("meta_pseudo_labels", "reduced_meta_pseudo_labels"):
        for feedback, labels, soft in (
            ("taylor", "auto", False),
            ("taylor", "sampled", False),
            ("exact_soft", "auto", True),
            ("exact_soft", "soft", True),
            ("off", "soft", True),
        ):
            given = {"feedback": feedback, "pseudo_label": labels}
            settings = config.resolve({"algo": algo, **given})
            assert settings.hyperparameters.soft_labels == soft


def test_rounds_that_do_not_follow_limit_nothing():
    given = {"algo": "noisy_student", "num_steps": 40, "round_steps": 9}
    for limit in ({"warmup_steps": 9}, {"steps_per_execution": 20}):
        with pytest.raises(ConfigError, match="round_steps=9"):
            config.resolve(given | limit)
        config.resolve(given | limit | {"num_rounds": 0})


def test_the_networks_own_dropout_unless_a_flag_says_otherwise():
    for model in ("auto", "wrn_28_2", "cnn13_ict", "my.module:network"):
        assert config.resolve({"model": model}).dropout == 0
    assert config.resolve({"model": "auto"}).model == "digits_cnn"
    teacher = config.resolve({"algo": "mpl", "model": "cnn13"})
    assert teacher.dropout == teacher.hyperparameters.teacher_dropout == 0.5
    given = config.resolve(
        {"algo": "mpl", "model": "efficientnet_b3", "dropout": 0.0}
    )
    assert given.dropout == 0
    assert given.hyperparameters.teacher_dropout == 0.3


def test_what_does_not_change_a_run_is_not_compared():
    old = config.resolve({"run_dir": "a"})
    new = config.resolve(
        {
            "run_dir": "b",
            "verbose": 0,
            "keep_checkpoints": 5,
            "checkpoint_minutes": 0.0,
            "recover_from_nan": 2,
            "allow_changed": "seed",
        }
    )
    assert config.compared(old) == config.compared(new)
    for name, value in (("seed", 3), ("mixup_alpha", 0.25)):
        other = config.compared(config.resolve({name: value}))
        assert other != config.compared(old)
        assert other[name] == value


def test_allowed_changes_must_be_fields():
    given = {"allow_changed": "num_replicas, keras,feedback"}
    settings = config.resolve(given)
    names = {"num_replicas", "keras", "feedback"}
    assert config.allowed_changes(settings) == names
    assert not any("allow_changed" in line for line in settings.to_flags())
    with pytest.raises(ConfigError, match="replicas is not among"):
        config.resolve({"allow_changed": "replicas"})
    with pytest.raises(ConfigError, match="verbose is not among"):
        config.resolve({"allow_changed": "verbose"})


# What a run of 100,000 steps leaves too short was fit for the digits' 600.
@pytest.mark.parametrize("dataset", ("cifar10", "folder"))
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_stages_and_ramps_are_as_long_as_the_run(algo, dataset):
    given = {"algo": algo, "dataset": dataset, "num_steps": 100_000}
    if dataset == "folder":
        given["labeled_dir"] = "/x"
    resolved = config.resolve(given)
    hp = resolved.hyperparameters
    assert all(n >= 10_000 for n in hp.later_stage_steps.values())
    found = 0
    for field in dataclasses.fields(hp):
        is_length = field.name.endswith("_steps") or field.name in (
            "cycle_start",
            "swa_start",
            "swa_every",
            "cluster_start",
            "cluster_every",
        )
        if not is_length or field.name == "lookahead_steps":
            continue
        steps = getattr(hp, field.name)
        # 0 is off, as published.
        assert steps >= 1000 or steps == field.default == 0, field.name
        found += steps > 0
    assert found == sum(
        bool(f.metadata["share"]) for f in dataclasses.fields(hp)
    )


def test_what_is_given_is_not_a_share():
    given = {"algo": "noisy_student", "num_steps": 1000}
    assert config.resolve(given).hyperparameters.round_steps == 1000
    given["round_steps"] = 600
    assert config.resolve(given).hyperparameters.round_steps == 600
    given = {"algo": "fast_swa", "num_steps": 20, "steps_per_execution": 4}
    hp = config.resolve(given).hyperparameters
    # No share is 0, which means something else.
    assert (hp.swa_every, hp.cycle_start, hp.unlabeled_ramp_steps) == (4, 16, 8)


@pytest.mark.parametrize(
    "num_steps, decay",
    ((6, 0.9), (600, 0.9), (1200, 0.95), (6000, 0.99), (100_000, 0.999)),
)
def test_an_average_is_as_long_as_the_run_allows(num_steps, decay):
    given = {"algo": "moco_v2", "num_steps": num_steps}
    assert config.resolve(given).hyperparameters.target_decay == decay
    given["target_decay"] = 0.5
    assert config.resolve(given).hyperparameters.target_decay == 0.5


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, 30),  # Evaluated every 60 steps.
        ({"num_steps": 1001}, 1),
        ({"num_steps": 400_000, "evaluate_every": 5000}, 50),
        ({"num_steps": 80, "evaluate_every": 16, "ctaugment_every": 24}, 8),
        # A second stage of 90 steps.
        ({"algo": "mpl", "num_steps": 60, "finetune_steps": 90}, 6),
    ],
)
def test_steps_per_call_divide_all_numbers_of_steps(given, expected):
    given = {"algo": "fixmatch", **given}
    if "ctaugment_every" in given:
        given["strong_augmentation"] = "ctaugment"
    resolved = config.resolve(given)
    assert resolved.steps_per_execution == 0
    assert config.steps_per_call(resolved, 50) == expected
    assert config.steps_per_call(resolved, 1) == 1
    # It is what is recorded, and what a resumed run reads.
    found = dataclasses.replace(resolved, steps_per_execution=expected)
    assert config.Config.from_json(found.to_json()) == found


def test_the_defaults_of_the_dataclasses_are_those_of_the_digits():
    for algo in ALGORITHMS:
        hp = config.resolve({"algo": algo}).hyperparameters
        assert hp == type(hp)(), algo


def test_a_recipe_is_a_method_with_settings():
    found = config.resolve({"algo": "meta_semi_strong"})
    given = RECIPES["meta_semi_strong"]
    assert found == config.resolve({"algo": "meta_semi", **given})
    # What is given has precedence.
    other = config.resolve({"algo": "meta_semi_strong", "mixup_on": "labeled"})
    assert other.hyperparameters.mixup_on == "labeled"
    assert other.hyperparameters.learned_view == "strong"
    for name, settings in RECIPES.items():
        fields = dataclasses.fields(hyperparameters_class(ALIASES[name]))
        assert settings.keys() <= {field.name for field in fields}


def test_the_settings_that_tell_a_run_from_others():
    found = config.distinguishing(
        config.resolve({"algo": "fixmatch", "momentum": 0.8, "run_dir": "x"})
    )
    assert found == {
        "algo": "fixmatch",
        "dataset": "digits",
        "model": "digits_cnn",
        "num_labeled": 30,
        "seed": 0,
        "num_steps": 600,
        "batch_size": 64,
        "learning_rate": 0.1,
        "momentum": 0.8,
    }
    for name in DATASETS:
        resolved = config.resolve({"dataset": name})
        assert config.distinguishing(resolved).keys() <= {*found} - {"momentum"}
