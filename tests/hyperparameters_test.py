"""The hyperparameters of the methods, and what they say of a run's parts."""

import dataclasses

import pytest

from tf_metassl.algorithms import ALGORITHMS, hyperparameters_class
from tf_metassl.hyperparameters import Hyperparameters

every_method = pytest.mark.parametrize("name", ALGORITHMS)


def made(name, **settings):
    return hyperparameters_class(name)(**settings)


@pytest.mark.slow
@every_method
def test_every_field_has_its_help(name):
    cls = hyperparameters_class(name)
    assert issubclass(cls, Hyperparameters)
    for field in dataclasses.fields(cls):
        assert field.metadata["help"].endswith(".")


@pytest.mark.slow
@every_method
def test_what_a_method_does_not_have_is_neutral(name):
    hp = made(name)
    fields = {field.name for field in dataclasses.fields(hp)}
    # Where a method has no such field, the value that changes nothing.
    defaults = {"cycle_start": 0, "cycle_steps": 0}
    defaults |= {f.name: f.default for f in dataclasses.fields(hp)}
    for role in ("student", "teacher"):
        rate = defaults.get(f"{role}_learning_rate", 0.0)
        assert hp.learning_rate_of(role) == rate
        assert hp.wait_steps_of(role) == defaults.get(f"{role}_wait_steps", 0)
        assert hp.dropout_of(role) == defaults.get(f"{role}_dropout")
    assert hp.learning_rate_cycle == (
        defaults["cycle_start"],
        defaults["cycle_steps"],
    )
    assert hp.mixes == ("mixup_alpha" in fields)
    stages = {
        *("finetune_steps", "round_steps"),
        *("member_steps", "student_steps"),
    } & fields
    assert set(hp.later_stage_steps) == stages
    assert set(hp.scheduled_stage_steps) == stages - {"finetune_steps"}
    sizes = {"finetune_batch_size"} & fields
    assert set(hp.later_batch_sizes) == sizes


def test_a_networks_own_settings():
    hp = made(
        "meta_pseudo_labels",
        teacher_learning_rate=0.3,
        teacher_dropout=0.4,
        student_wait_steps=7,
    )
    assert hp.learning_rate_of("teacher") == 0.3
    assert hp.learning_rate_of("student") == 0.0
    assert hp.dropout_of("teacher") == 0.4
    assert hp.dropout_of("student") is None
    assert hp.wait_steps_of("student") == 7
    assert hp.wait_steps_of("teacher") == 0
    cyclic = made("fast_swa", cycle_start=50, cycle_steps=20)
    assert cyclic.learning_rate_cycle == (50, 20)


def test_later_stages():
    hp = made(
        "reduced_meta_pseudo_labels",
        student_steps=30,
        finetune_steps=20,
        finetune_batch_size=8,
    )
    assert hp.later_stage_steps == {"finetune_steps": 20, "student_steps": 30}
    assert hp.scheduled_stage_steps == {"student_steps": 30}
    assert hp.later_batch_sizes == {"finetune_batch_size": 8}
    assert made("noisy_student", round_steps=9).later_stage_steps == {
        "round_steps": 9
    }
    assert made("noisy_student", num_rounds=0).later_stage_steps == {}


def test_mixup_is_off_at_alpha_0():
    assert made("meta_semi").mixes
    assert not made("meta_semi", mixup_alpha=0.0).mixes
    # Its alpha is a constant of the class, not a field.
    assert not made("learning_to_reweight").mixes
