"""What `tf_metassl.run.build` makes of a configuration."""

import numpy as np
import pytest

from tests.helpers import tiny_algorithm
from tests.image_folders import write_classes
from tf_metassl import config
from tf_metassl.contract import DatasetInfo
from tf_metassl.errors import ConfigError
from tf_metassl.run import build
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import build_algorithm, build_experiment


def test_finetuning_may_have_a_batch_of_its_own():
    experiment = build_experiment(
        config.resolve(
            {"algo": "meta_pseudo_labels", "finetune_batch_size": 24}
        )
    )
    sizes = [
        [
            pool.batch_size
            for pool in experiment.pools(stage.build(), stage.batch_size)
        ]
        for stage in stage_lib.stages(experiment)
    ]
    assert sizes == [[64, 128], [24]]


@pytest.mark.parametrize(
    "settings, num_replicas, message",
    [
        ({"batch_size": 8}, 3, "--batch_size=8 must be a multiple of 3: 3"),
        (
            {"batch_size": 8, "gradient_accumulation_steps": 2},
            8,
            "--batch_size=8 must be a multiple of 16: 8 replicas times "
            "--gradient_accumulation_steps=2",
        ),
        (
            {"algo": "meta_pseudo_labels", "finetune_batch_size": 9},
            2,
            "--finetune_batch_size=9 must be a multiple of the 2 replicas",
        ),
    ],
)
def test_batches_that_cannot_be_divided(settings, num_replicas, message):
    settings = config.resolve({"algo": "supervised", **settings})
    info = DatasetInfo("digits", tuple("abc"), (8, 8, 1))
    with pytest.raises(ConfigError, match=message):
        build_algorithm(settings, info, num_replicas)


def test_the_images_of_every_split():
    experiment = build_experiment(
        config.resolve({"algo": "supervised", "num_validation": 10})
    )
    rows, train = experiment.splits, experiment.source.train
    np.testing.assert_array_equal(
        experiment.images("labeled").labels, train.labels[rows.labeled]
    )
    np.testing.assert_array_equal(
        experiment.images("validation").labels, train.labels[rows.validation]
    )
    assert experiment.images("test") is experiment.source.test
    # All ten of them; sixteen if there were more.
    assert experiment.examples.shape == (16, 8, 8, 1)


def own_images(place, size, count, test_count=1, **settings):
    write_classes(place / "labeled", count=count, height=size, width=size)
    write_classes(
        place / "test", count=test_count, start=1000, height=size, width=size
    )
    given = {"algo": "supervised", "dataset": "folder", "batch_size": 8}
    given |= {f"{n}_dir": str(place / n) for n in ("labeled", "test", "cache")}
    return config.resolve(given | settings)


@pytest.mark.parametrize("count, expected", [(1, 0), (20, 0), (25, 10)])
def test_defaults_for_own_images_with_few_labels(tmp_path, count, expected):
    built = build_experiment(own_images(tmp_path, 16, count))
    assert built.config.num_validation == len(built.splits.validation)
    assert len(built.splits.validation) == expected
    assert len(built.splits.labeled) == 2 * count - expected


@pytest.mark.parametrize(
    "size, model", [(16, "wrn_28_2"), (64, "wrn_28_2"), (65, "resnet_50")]
)
def test_the_network_of_own_images_fits_their_size(
    tmp_path, monkeypatch, size, model
):
    monkeypatch.setattr(build, "build_algorithm", tiny_algorithm_of)
    settings = own_images(tmp_path, size, 1)
    assert settings.model == "auto"
    assert build_experiment(settings).config.model == model
    settings = own_images(tmp_path, size, 1, model="cnn13")
    assert build_experiment(settings).config.model == "cnn13"


def tiny_algorithm_of(*_, **__):
    return tiny_algorithm("supervised")


def test_the_best_checkpoint_needs_validation_images(tmp_path):
    with pytest.raises(ConfigError, match="needs validation images.*now 0"):
        build_experiment(
            own_images(tmp_path, 16, 1, selection="best_validation")
        )


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"algo": "supervised", "num_labeled": 5000}, "num_labeled"),
        ({"num_labeled": 10, "judge_share": 0.3}, "--judge_share=0.3 needs"),
    ],
)
def test_what_cannot_be_built_is_a_config_error(settings, name):
    with pytest.raises(ConfigError, match=name):
        build_experiment(config.resolve(settings))
