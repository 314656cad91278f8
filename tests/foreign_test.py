"""Unlabeled pools with images of classes that are not to be learned."""

import dataclasses

import numpy as np
import pytest

from tf_metassl import config
from tf_metassl.contract import FOREIGN
from tf_metassl.data import foreign, sources
from tf_metassl.errors import ConfigError
from tf_metassl.run.build import build_experiment


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


def test_other_classes_become_foreign(digits):
    source = foreign.with_known_classes(digits, 6)
    assert source.info.class_names == tuple("012345")
    kept = digits.train.labels < 6
    expected = np.where(kept, digits.train.labels, FOREIGN)
    np.testing.assert_array_equal(source.train.labels, expected)
    assert set(source.test.labels) == set(range(6))
    assert len(source.test) == np.sum(digits.test.labels < 6)
    np.testing.assert_array_equal(
        source.test.images, digits.test.images[digits.test.labels < 6]
    )
    assert source.labeled_rows is source.validation_rows is None


def test_rows_for_validation_and_labels_are_known(digits):
    some = np.arange(100)
    source = foreign.with_known_classes(
        dataclasses.replace(digits, validation_rows=some, labeled_rows=some), 3
    )
    for rows in (source.validation_rows, source.labeled_rows):
        np.testing.assert_array_equal(
            rows, np.flatnonzero(digits.train.labels[:100] < 3)
        )


@pytest.mark.parametrize("num_classes", (1, 10, 11))
def test_some_classes_have_to_be_left(digits, num_classes):
    with pytest.raises(ValueError, match=f"--known_classes={num_classes}: dig"):
        foreign.with_known_classes(digits, num_classes)


LABELS = np.repeat([0, 1, FOREIGN], [20, 20, 30])


@pytest.mark.parametrize("share", (0.0, 0.25, 0.5, 1.0))
def test_pools_have_one_size_and_the_share(share):
    labeled = np.array([0, 1, 20, 21])
    rows = foreign.mixed_pool(
        LABELS, np.arange(70), labeled, foreign_share=share, seed=3
    )
    assert len(rows) == len(set(rows)) == 30
    assert np.sum(LABELS[rows] == FOREIGN) == round(share * 30)
    assert not set(rows) & set(labeled)
    again, other = (
        foreign.mixed_pool(
            LABELS, np.arange(70), labeled, foreign_share=share, seed=seed
        )
        for seed in (3, 4)
    )
    np.testing.assert_array_equal(rows, again)
    assert share == 1 or not np.array_equal(rows, other)


@pytest.mark.parametrize(
    "rows, kind", ((np.arange(40), "other"), (np.arange(40, 70), "known"))
)
def test_a_pool_needs_images_of_both_kinds(rows, kind):
    with pytest.raises(ValueError, match=f"no unlabeled image of the {kind}"):
        foreign.mixed_pool(LABELS, rows, [], foreign_share=0.5, seed=0)


def test_an_experiment_with_a_foreign_pool():
    given = {
        "algo": "fixmatch",
        "known_classes": 6,
        "foreign_share": 0.5,
        "num_validation": 60,
    }
    experiment = build_experiment(config.resolve(given))
    labels, rows = experiment.source.train.labels, experiment.splits
    assert experiment.source.info.num_classes == 6
    assert set(labels[rows.labeled]) == set(labels[rows.validation])
    assert set(labels[rows.labeled]) == set(range(6))
    assert np.mean(labels[rows.unlabeled] == FOREIGN) == pytest.approx(
        0.5, abs=1 / len(rows.unlabeled)
    )
    batch = next(iter(experiment.training_data(experiment.algorithm, 0)))
    seen = batch["unlabeled"]["oracle_label"].numpy()
    np.testing.assert_array_equal(seen, labels[batch["unlabeled"]["index"]])
    assert FOREIGN in seen


def test_a_share_without_classes_is_refused():
    with pytest.raises(ConfigError, match="no effect without --known_classes"):
        config.resolve({"algo": "fixmatch", "foreign_share": 0.5})
    with pytest.raises(ConfigError, match="does not use unlabeled images"):
        config.resolve(
            {"algo": "supervised", "known_classes": 6, "foreign_share": 0.5}
        )
