"""What the exported network says of images, by hand-computed numbers."""

import dataclasses
import types

import numpy as np
import pytest

from tf_metassl.contract import DatasetInfo
from tf_metassl.data import arrays
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.store import Images, Source
from tf_metassl.run import panels
from tf_metassl.run.calibration import Calibration

NAMES = ["cat", "dog"]
FITTED = Calibration(2.0, 100, 0.2, 0.1)


def logits_of(*probs):
    return np.log(np.array(probs))


def images(labels, channels=1):
    """Image k has pixels k."""
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    pixels = np.tile(pixels, (1, 4, 4, channels))
    return Images(pixels, np.array(labels, np.int32))


def test_confidence_with_and_without_the_temperature():
    logits = logits_of([0.8, 0.2], [0.8, 0.2])
    labels = np.array([0, 1])
    found = panels.confidence("test", logits, labels, FITTED)
    assert found.num_images == 2
    assert found.before.error == pytest.approx(0.3)
    # Odds of 4 become odds of 2.
    assert found.after.error == pytest.approx(2 / 3 - 0.5)
    plain = panels.confidence("test", logits, labels, Calibration())
    assert plain.after is None


def test_the_most_confident_mistakes_come_first():
    logits = logits_of([0.6, 0.4], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9])
    data = images([1, 1, 0, 0])
    found = panels.mistakes(logits, data, (2, 2, 1), FITTED, NAMES)
    assert [m.pixels[0, 0, 0] for m in found] == [3, 1, 0]
    assert [(m.actual, m.predicted) for m in found] == [
        ("cat", "dog"),
        ("dog", "cat"),
        ("dog", "cat"),
    ]
    # Odds of 9 become odds of 3.
    assert found[0].confidence == pytest.approx(0.75)
    assert found[0].pixels.shape == (2, 2, 1)  # The center.
    many = images([1] * 20)
    found = panels.mistakes(
        np.tile([[1.0, 0.0]], (20, 1)), many, (4, 4, 1), FITTED, NAMES
    )
    assert [m.pixels[0, 0, 0] for m in found] == list(range(12))


def test_what_is_no_picture_is_not_shown():
    logits = logits_of([0.6, 0.4])
    data = images([1], channels=2)
    assert panels.mistakes(logits, data, (4, 4, 2), FITTED, NAMES) == []
    none = panels.mistakes(
        np.zeros((0, 2)), images([]), (4, 4, 1), FITTED, NAMES
    )
    assert none == []


def test_the_pool_by_hand():
    logits = logits_of([0.8, 0.2], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9])
    labels = np.array([0, 1, -1, -2])
    found = panels.pool(
        logits, labels, FITTED, NAMES, num_unlabeled=5, num_labeled=1
    )
    assert found.classes == [("cat", 3, 2, 1), ("dog", 1, 0, 0)]
    # 2/3 twice, 1/2 and 3/4, in bars (0.65, 0.7], (0.45, 0.5], (0.7, 0.75].
    np.testing.assert_allclose(found.confidences, [2 / 3, 2 / 3, 0.5, 0.75])
    bars = np.flatnonzero(found.histogram).tolist()
    assert bars[0] == 9 and bars[1] == 13 and found.histogram.sum() == 4
    text = " ".join(found.sentences)
    assert "run on 4 images of the unlabeled pool of 5." in text
    assert "holds 1 labeled image as well, which is left out" in text
    assert "true classes of 2 of the 4 images are known" in text
    assert "50.0 % of these predictions are right" in text
    assert "1 image is of classes that the network does not have" in text
    part = panels.pool(
        logits[2:3],
        labels[2:3],
        FITTED,
        NAMES,
        num_unlabeled=9,
        num_labeled=0,
    )
    text = " ".join(part.sentences)
    assert "of 9, drawn at random with a fixed seed." in text
    assert "not known" in text and "right" not in text


def test_the_accuracy_of_rejected_pseudo_labels():
    # 0.75 * 0.96 + 0.25 * 0.72 = 0.9.
    found = panels.rejected_accuracy(0.75, 0.9, 0.96, known=1.0)
    assert found == pytest.approx((0.72, 0.72))
    # 1 of 80 images is not known: 59 or 60 of 79 may be selected.
    low, high = panels.rejected_accuracy(0.75, 0.9, 0.96, known=79 / 80)
    expected = [
        (79 * 0.9 - selected * 0.96) / (79 - selected) for selected in (59, 60)
    ]
    assert [high, low] == pytest.approx(expected)
    # Nothing is rejected, or half of the images are not known.
    assert panels.rejected_accuracy(1.0, 0.9, 0.9, known=1.0) is None
    assert panels.rejected_accuracy(0.75, 0.9, 0.96, known=0.5) is None
    assert panels.rejected_accuracy(0.4, 0.6, 0.99, known=0.5) is None


def test_a_bound_is_that_of_any_selection():
    rng = np.random.default_rng(0)
    for _ in range(200):
        known = rng.random(1000) < 0.98
        selected, right = rng.random(1000) < 0.5, rng.random(1000) < 0.7
        low, high = panels.rejected_accuracy(
            selected.mean(),
            right[known].mean(),
            right[known & selected].mean(),
            known.mean(),
        )
        assert low - 1e-9 <= right[known & ~selected].mean() <= high + 1e-9


ROW = {
    "step": 20,
    "split": "train",
    "selected_share": 0.75,
    "pseudo_label_accuracy": 0.9,
    "selected_pseudo_label_accuracy": 0.96,
}


def test_what_training_selected():
    later = {"step": 30, "split": "validation", "ema_accuracy": 0.5}
    first = {**ROW, "step": 10, "selected_share": 0.1}
    text = " ".join(panels.selection([first, ROW, later], 1.0))
    assert "up to step 20, 75.0 % of the pseudo-labels were selected" in text
    assert "96.0 % of the selected ones were right, and 72.0 % of" in text
    assert "bounds" not in text
    text = " ".join(panels.selection([ROW], 0.99))
    assert "between" in text and "99.0 % of the pool" in text
    assert "rejected" not in " ".join(panels.selection([ROW], 0.5))
    unknown = " ".join(panels.selection([ROW], 0.0))
    assert "selected" in unknown and "right" not in unknown
    soft = " ".join(panels.selection([ROW], 1.0, whole=False))
    assert soft.endswith("the mean weight of a pseudo-label was 0.750.")
    assert panels.selection([later], 1.0) == []


def test_limits_are_said_where_they_are():
    found = panels.limits(
        ["a", "b", "c"],
        test_counts=np.array([3, 0, 2]),
        label_counts=np.array([4, 40, 50]),
        num_validation=20,
        validation_accuracy=0.0,
        size="Size.",
        chosen="Chosen.",
    )
    assert found == [
        "Chosen.",
        "Nothing is measured of 1 class without test images: b.",
        # z^2 / (20 + z^2).
        "There are 20 validation images: the 95 % interval of the validation "
        "accuracy is 0.0 % to 16.1 %, 16.1 points wide.",
        "1 of 3 classes have fewer than 10 labeled images, the smallest one "
        "4: a.",
        "Size.",
    ]
    none = panels.limits(
        NAMES,
        test_counts=np.array([3, 3]),
        label_counts=np.array([40, 40]),
        num_validation=10_000,
        validation_accuracy=0.9,
    )
    assert none == []


def an_experiment(source, unlabeled, labeled, **changes):
    """As much of an `Experiment` as the panels read."""
    config = types.SimpleNamespace(
        hyperparameters=types.SimpleNamespace(uses_unlabeled=True),
        dataset="arrays",
        test_fraction=0.2,
    )
    given = {
        "config": config,
        "source": source,
        "seen": source,
        "splits": types.SimpleNamespace(
            labeled=np.array(labeled),
            unlabeled=np.array(unlabeled),
            validation=np.zeros(0, int),
        ),
        "has_validation": False,
        "algorithm": types.SimpleNamespace(selects_whole_images=True),
        "decoding": types.SimpleNamespace(
            image_shape=source.info.image_shape,
            stored_size=4,
            resize="squash",
        ),
    }
    return types.SimpleNamespace(**{**given, **changes})


def a_source():
    return Source(
        DatasetInfo("arrays", tuple(NAMES), (4, 4, 1)),
        images([0, 1, 0, 1, -1]),
        images([0, 1]),
        "none",
        "none",
    )


def test_networks_may_see_features_and_pictures_are_shown():
    source = a_source()
    features = np.zeros((7, 1, 1, 2), np.float32)
    features[..., 0] = 1.0
    seen = dataclasses.replace(
        source,
        train=Images(features[:5], source.train.labels),
        test=Images(features[:2], source.test.labels),
    )
    experiment = an_experiment(source, [1, 2, 3, 4], [0, 1], seen=seen)

    def predict(images):
        return images.images[:, 0, 0]

    found = panels.collect(experiment, predict, FITTED, [ROW], None)
    assert found.confidence.split == "test"
    (mistake,) = found.mistakes
    assert mistake.pixels.shape == (4, 4, 1) and mistake.actual == "dog"
    # Image 1 is a labeled one.
    assert found.pool.classes == [("cat", 3, 2, 1), ("dog", 0, 0, 0)]
    # 2 of the 4 are known, too few for the rejected ones.
    assert "rejected" not in " ".join(found.pool.selection)
    assert found.limits == [
        "The test images are those that were given with the data.",
        "All classes have fewer than 10 labeled images, the smallest one 1.",
        "The network sees 4 x 4 gray pixels: an image file of another size is "
        "resized (--resize=squash).",
    ]


def test_without_unlabeled_and_test_images():
    source = dataclasses.replace(a_source(), test=images([]))
    experiment = an_experiment(source, [], [0, 1])
    found = panels.collect(
        experiment, lambda given: np.zeros((len(given), 2)), FITTED, [], None
    )
    assert found.pool is None and found.confidence is None
    assert not found.mistakes
    experiment = an_experiment(
        source, [], [0], has_validation=True, validation_images=images([0, 1])
    )
    found = panels.collect(
        experiment, lambda given: np.zeros((len(given), 2)), FITTED, [], None
    )
    assert found.confidence.split == "validation"


def test_held_out_test_images_are_recognized():
    labels = np.array([0, 1] * 10)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
    source = arrays.source(DATASETS["arrays"], (pixels, labels))
    experiment = an_experiment(source, [], [0])
    assert "were held out" in panels._test_choice(experiment)
    experiment.config.dataset = "cifar10"
    experiment.source = a_source()
    assert "published split test" in panels._test_choice(experiment)
    experiment.config.dataset = "digits"
    assert "fixed part of digits" in panels._test_choice(experiment)
