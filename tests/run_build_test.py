"""What `tf_metassl.run.build` makes of a configuration."""

import numpy as np
import pytest

from tf_metassl import config
from tf_metassl.contract import DatasetInfo
from tf_metassl.errors import ConfigError
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
    assert experiment.examples.shape == (10, 8, 8, 1)


def test_what_cannot_be_built_is_a_config_error():
    with pytest.raises(ConfigError, match="num_labeled"):
        build_experiment(
            config.resolve({"algo": "supervised", "num_labeled": 5000})
        )
