"""The estimator: scikit-learn's conventions, on images."""

import os
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks

import tf_metassl
from tf_metassl import SemiSupervisedClassifier

SHORT = {"num_steps": 6, "evaluate_every": 6, "model": "digits_cnn"}
# scikit-learn's own checks that need no training. Its other checks are not
# passed: they train on rows of 1 to 10 real numbers, of every dtype, sparse or
# with weights, where this estimator trains on uint8 images. What they ask of
# labels, clones and predictions is asked of images in the tests below.
CHECKS = [
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_mixin_order",
    "check_fit1d",
]


@pytest.fixture(scope="module")
def images():
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    return pixels[:300], digits.target[:300]


@pytest.fixture(scope="module")
def fitted(images):
    pixels, target = images
    labels = target.copy()
    labels[100:] = -1
    estimator = SemiSupervisedClassifier("fixmatch", settings=SHORT)
    assert estimator.fit(pixels, labels) is estimator
    return estimator


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_checks(name):
    check = getattr(estimator_checks, name)
    check("SemiSupervisedClassifier", SemiSupervisedClassifier())


@pytest.mark.slow
def test_predictions_are_labels_and_probabilities(fitted, images):
    pixels, target = images
    probs = fitted.predict_proba(pixels)
    assert probs.shape == (300, 10)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(pixels), probs.argmax(1))
    np.testing.assert_array_equal(fitted.classes_, np.arange(10))
    share = np.mean(fitted.predict(pixels) == target)
    assert fitted.score(pixels, target) == share


@pytest.mark.slow
def test_it_is_the_network_of_fit(fitted, images):
    pixels, target = images
    labels = np.where(np.arange(300) < 100, target, -1)
    other = tf_metassl.fit(
        "fixmatch",
        labeled=(pixels, labels),
        test=(pixels[:100], target[:100]),
        num_validation=0,
        **SHORT,
    )
    np.testing.assert_array_equal(
        fitted.predict_proba(pixels), other.predict_proba(pixels)
    )


@pytest.mark.slow
def test_labels_may_be_names_and_images_rows(fitted, images):
    """The same images as rows, and names whose order is another one."""
    pixels, target = images
    names = np.array([f"digit {9 - t}" for t in target], object)
    labels = names.copy()
    labels[100:] = -1
    estimator = clone(fitted).set_params(image_shape=(8, 8))
    estimator.fit(pixels.reshape(300, 64), labels)
    assert estimator.n_features_in_ == 64
    assert estimator.classes_[0] == "digit 0"
    assert set(estimator.predict(pixels.reshape(300, 64))) <= set(names)
    with pytest.raises(ValueError, match="features"):
        estimator.predict(pixels.reshape(300, 64)[:, :63])


@pytest.mark.slow
def test_a_pickle_predicts_the_same(images, tmp_path):
    pixels, target = images
    run_dir = tmp_path / "run"
    estimator = SemiSupervisedClassifier(
        "supervised", settings=SHORT, run_dir=run_dir, random_state=3
    ).fit(pixels, target)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(
        again.predict_proba(pixels), estimator.predict_proba(pixels)
    )
    assert again.fitted_.config.seed == 3
    assert os.path.isdir(run_dir / "export" / "1")


@pytest.mark.exhaustive
def test_settings_can_be_searched_over(images):
    pixels, target = images
    search = GridSearchCV(
        SemiSupervisedClassifier("supervised"),
        {"settings": [SHORT]},
        cv=2,
        refit=False,
        error_score="raise",
    )
    search.fit(pixels, target)
    assert 0 <= search.best_score_ <= 1


def test_images_and_labels_that_cannot_be_used_are_refused(images):
    pixels, target = images
    estimator = SemiSupervisedClassifier("supervised", settings=SHORT)
    with pytest.raises(ValueError, match="at least 2 classes; got 1 class"):
        estimator.fit(pixels, np.where(target == 3, 3, -1))
    with pytest.raises(ValueError, match="uint8"):
        estimator.fit(pixels / 255, target)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator.fit(pixels, target[:-1])
    with pytest.raises(NotFittedError):
        estimator.predict(pixels)
