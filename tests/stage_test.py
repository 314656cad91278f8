"""The calls of `fit`, and the batches, of every stage."""

import functools
import zlib

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl import config
from tf_metassl.algorithms.algorithm import Stage
from tf_metassl.data.ctaugment import CTAugmentPolicy
from tf_metassl.errors import ConfigError
from tf_metassl.ops import augmentation_rates
from tf_metassl.run import evaluation
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import Experiment, build_experiment
from tf_metassl.run.callbacks import Recorder


@pytest.mark.parametrize(
    "step, expected",
    [
        (0, [(0, 10, 3), (30, 5, 1)]),
        (13, [(13, 7, 1), (20, 10, 1), (30, 5, 1)]),
        (20, [(20, 10, 1), (30, 5, 1)]),
        (33, [(33, 2, 1)]),
        (35, []),
    ],
)
def test_segments_end_at_evaluations(step, expected):
    assert stage_lib.segments(step, 35, 10) == expected
    alone = stage_lib.segments(step, 35, 10, renewed=[10])
    assert [begin for begin, _, _ in alone] == sorted(
        {step, *range(-(-step // 10) * 10, 35, 10)} - {35}
    )
    assert sum(length for _, length, _ in alone) == 35 - step
    assert all(count == 1 for _, _, count in alone)


def test_segments_also_end_where_data_are_renewed():
    found = stage_lib.segments(5, 22, 10, renewed=[4])
    begins = [begin for begin, _, _ in found]
    assert begins == [5, 8, 10, 12, 16, 20]
    assert [begin + length for begin, length, _ in found] == [*begins[1:], 22]


@pytest.fixture
def short_run(tmp_path):
    """A function that trains with CTAugment and returns the metrics' rows."""

    def trained(name, **settings):
        resolved = config.resolve(
            {
                "algo": "randaugment",
                "strong_augmentation": "ctaugment",
                "num_steps": 6,
                "evaluate_every": 4,
                "batch_size": 8,
                "verbose": 0,
                **settings,
            }
        )
        built = build_experiment(resolved)
        folder = tmp_path / name
        run = stage_lib.StageRun(
            built,
            built.algorithm,
            stage_lib.stages(built)[0],
            folder,
            folder,
        )
        stage_lib.run_stage(run)
        return run.metrics_file.rows()

    return trained


@pytest.mark.slow
def test_rates_are_renewed_between_evaluations_and_after_a_kill(
    short_run, monkeypatch
):
    # A view that depends on the bins and is made at once.
    monkeypatch.setattr(
        CTAugmentPolicy,
        "_apply",
        lambda self, images, draw: (
            images
            + tf.cast(8 * draw["bin"][:, 0, 0], tf.uint8)[:, None, None, None]
        ),
    )
    # So that a few steps exclude bins.
    update = functools.partial(augmentation_rates.update, decay=0.5)
    monkeypatch.setattr(augmentation_rates, "update", update)
    seldom = short_run("seldom")
    often = short_run("often", ctaugment_every=3)
    evaluated = [(row["step"], row["split"]) for row in often]
    assert evaluated == [(row["step"], row["split"]) for row in seldom]
    # The views of step 4 are drawn with what was learned until step 3.
    assert often[0] != seldom[0]
    on_batch_end = Recorder.on_train_batch_end

    def killed(self, batch, logs=None):
        on_batch_end(self, batch, logs)
        if self.model.finished_steps == 2:
            self.save(self._train_metrics())
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "on_train_batch_end", killed)
    with pytest.raises(KeyboardInterrupt):
        short_run("killed", ctaugment_every=3)
    monkeypatch.setattr(Recorder, "on_train_batch_end", on_batch_end)
    assert short_run("killed", ctaugment_every=3) == often


@pytest.mark.parametrize(
    "stage, num_recoveries, version, expected",
    [
        ("train", 0, 1, 0),
        ("train", 0, 2, 0),
        ("train", 2, 1, 2_000_006),
        ("train", 2, 2, 2_000_006),
        # r + o + u + n + d + _ + 1
        ("round_1", 0, 1, 114 + 111 + 117 + 110 + 100 + 95 + 49),
        ("round_12", 0, 1, 746),
        ("round_21", 1, 1, 746 + 1_000_003),
        ("finetune", 1, 2, zlib.crc32(b"finetune") % 2**31 + 1_000_003),
    ],
)
def test_the_seed_of_a_stage(stage, num_recoveries, version, expected):
    assert stage_lib.seed_offset(stage, num_recoveries, version) == expected


@pytest.fixture(scope="module")
def experiment():
    """30 labeled and 1200 unlabeled digits."""
    settings = {"algo": "meta_semi", "batch_size": 8, "num_validation": 50}
    return build_experiment(config.resolve(settings))


def indices(experiment, name, version, num_recoveries=0):
    """The rows of the first batch of a stage."""
    run = stage_lib.StageRun(
        experiment,
        experiment.algorithm,
        Stage(name, 6, None),
        None,
        None,
        batch_seed_version=version,
    )
    batch = next(iter(run.training_data(0, num_recoveries)))
    return np.concatenate(
        [batch[group]["index"] for group in ("labeled", "unlabeled")]
    ).tolist()


def test_every_round_has_its_own_batches(experiment):
    assert indices(experiment, "round_12", 2) != indices(
        experiment, "round_21", 2
    )


def test_runs_of_earlier_versions_keep_their_batches(experiment):
    first = indices(experiment, "round_12", 1)
    assert first == indices(experiment, "round_21", 1)
    assert first != indices(experiment, "round_12", 2)
    data = experiment.training_data(experiment.algorithm, 0, seed_offset=746)
    batch = next(iter(data))
    assert first[:8] == batch["labeled"]["index"].numpy().tolist()


def test_the_main_stage_has_the_same_batches_in_all_versions(experiment):
    first = indices(experiment, "train", 1)
    assert first == indices(experiment, "train", 2)
    assert first != indices(experiment, "train", 2, num_recoveries=1)


def test_workers_compare_the_checkpoint_that_they_start_from(
    experiment, tmp_path, monkeypatch
):
    def refuse(strategy, facts, advice):
        assert strategy is experiment.strategy
        assert facts == {"the newest checkpoint of train": 0}
        raise ConfigError(advice)

    monkeypatch.setattr(stage_lib.distribution, "check_equal", refuse)
    with pytest.raises(ConfigError, match="one folder that all workers share"):
        stage_lib._resume_or_start(
            stage_lib.StageRun(
                experiment,
                experiment.algorithm,
                Stage("train", 6, None),
                tmp_path,
                tmp_path,
            )
        )


def test_the_stages_of_a_run_are_in_order():
    settings = {"algo": "noisy_student", "num_rounds": 2, "round_steps": 7}
    experiment = build_experiment(config.resolve(settings))
    stages = stage_lib.stages(experiment)
    assert [(stage.name, stage.num_steps) for stage in stages] == [
        ("train", experiment.config.num_steps),
        ("round_1", 7),
        ("round_2", 7),
    ]
    first = stage_lib.build_stage(experiment, stages[0])
    assert first is experiment.algorithm


@pytest.mark.parametrize(
    "value, expected", [("exported", ("ema",)), ("all", None)]
)
def test_networks_that_are_evaluated_during_training(
    monkeypatch, tmp_path, value, expected
):
    settings = {"algo": "supervised", "evaluate_networks": value}
    built = build_experiment(config.resolve({**settings, "num_steps": 1}))
    seen = []
    monkeypatch.setattr(
        evaluation,
        "evaluate",
        lambda *_, networks: seen.append(networks) or {"ema_accuracy": 0.5},
    )
    made, make = [], Experiment.training_data
    monkeypatch.setattr(
        Experiment,
        "training_data",
        lambda *args, **options: made.append(1) or make(*args, **options),
    )
    stage_lib.run_stage(
        stage_lib.StageRun(
            built,
            built.algorithm,
            stage_lib.stages(built)[0],
            tmp_path,
            tmp_path,
        )
    )
    assert seen == [expected]
    # The pictures of the first batch come from the data that are trained on.
    assert len(made) == 1
    assert list((tmp_path / "tensorboard").rglob("events.*"))
