"""Few labels, no validation images, and images that have moved."""

import json
import shutil

import numpy as np
import pytest

from tests.image_folders import write_classes
from tf_metassl import config
from tf_metassl.errors import ConfigError
from tf_metassl.run import command_line, experiment
from tf_metassl.run.build import build_experiment, build_without_images


def write_few(place, per_class):
    write_classes(place / "labeled", count=per_class)
    write_classes(place / "unlabeled", count=6, start=3000)
    write_classes(place / "test", count=2, start=1000)


def settings_of(place, **changes):
    given = {
        "algo": "pseudo_label",
        "labeled_dir": str(place / "labeled"),
        "unlabeled_dir": str(place / "unlabeled"),
        "test_dir": str(place / "test"),
        "cache_dir": str(place / "cache"),
        "run_dir": str(place / "run"),
        "model": "digits_cnn",
        "normalization": "mean_std",
        "batch_size": 4,
        "num_steps": 4,
        "verbose": 0,
        **changes,
    }
    return config.resolve(given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on one labeled image a class, without validation images."""
    place = tmp_path_factory.mktemp("few")
    write_few(place, 1)
    experiment.train(settings_of(place))
    return place


@pytest.mark.slow
def test_one_labeled_image_a_class_is_enough(finished):
    run = finished / "run"
    (student, ema) = json.loads((run / "results.json").read_text())
    assert "test_accuracy" in ema and "validation_accuracy" not in student
    report = (run / "report.md").read_text()
    assert "No images were held out for validation" in report
    assert "0 validation" in report
    assert not (run / "checkpoints/train/best").exists()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["split"] for row in rows} == {"train"}


@pytest.mark.slow
def test_an_export_needs_no_images(finished, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(finished / "run", place / "run")
    settings = settings_of(tmp_path / "nowhere", run_dir=str(place / "run"))
    built = build_without_images(settings, place / "run")
    expected = build_experiment(settings_of(finished), finished / "run")
    assert built.source.info == expected.source.info
    for a, b in zip(
        built.algorithm.state_variables,
        expected.algorithm.state_variables,
        strict=True,
    ):
        assert a.shape == b.shape
    # The scaling of pixels is part of the network.
    x = expected.examples
    student = expected.algorithm.student
    built.algorithm.student.set_weights(student.get_weights())
    np.testing.assert_allclose(
        built.algorithm.student(x), student(x), rtol=1e-6
    )
    (place / "run" / "normalization.npz").unlink()
    with pytest.raises(ConfigError, match="run the training command again"):
        build_without_images(settings, place / "run")
    (place / "run" / "dataset.json").write_text("{")
    assert build_without_images(settings, place / "run") is None


def test_images_that_have_moved_are_named_with_the_flags(tmp_path):
    with pytest.raises(ConfigError) as error:
        build_experiment(settings_of(tmp_path))
    assert "--labeled_dir=NEW_FOLDER" in str(error.value)
    assert "--allow_changed=labeled_dir" in str(error.value)
    settings = command_line.parse(
        [f"--labeled_dir={tmp_path}", "--allow_changed=labeled_dir"]
    )
    assert settings.allow_changed == "labeled_dir"
