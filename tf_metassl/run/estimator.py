"""A classifier with the conventions of scikit-learn."""

import shutil
import tempfile
import weakref

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tf_metassl.run import fitting


class SemiSupervisedClassifier(ClassifierMixin, BaseEstimator):
    """Semi-supervised training as an estimator of scikit-learn.

    Images without a label have the label -1, as in
    `sklearn.semi_supervised`; labels may be integers or, in an array of
    objects, other values such as strings. It can be cloned, searched over and
    pickled; a pickle refers to the folder of the run.

    Args:
        algo: the method, see `--algo`.
        image_shape: `(height, width)` or `(height, width, channels)` of images
            that are given as rows `[N, height * width * channels]`; None: the
            images are `[N, H, W]` or `[N, H, W, C]`.
        settings: what the flags set, by their names, such as
            `{"num_steps": 1000}`, or None.
        run_dir: folder of the run; None: a temporary one, which is removed
            with the estimator.
        random_state: `--seed`, an integer.

    Attributes:
        classes_: the labels, sorted, without -1.
        n_features_in_: numbers of an image.
        fitted_: the `FittedClassifier`.

    Raises:
        ConfigError: if the images or a setting cannot be used, from `fit`.
    """

    def __init__(
        self,
        algo="meta_semi",
        *,
        image_shape=None,
        settings=None,
        run_dir=None,
        random_state=0,
    ):
        self.algo = algo
        self.image_shape = image_shape
        self.settings = settings
        self.run_dir = run_dir
        self.random_state = random_state

    def __sklearn_tags__(self):
        """See `sklearn.utils.Tags`."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = self.image_shape is None
        tags.non_deterministic = False
        return tags

    def fit(self, X, y):
        """Trains.

        Args:
            X: images, uint8; see `image_shape`.
            y: `[N]` labels; -1 for images without one.

        Returns:
            The estimator itself.
        """
        X, y = validate_data(self, X, y, **self._how())
        is_labeled = np.asarray([label != -1 for label in y.tolist()], bool)
        check_classification_targets(y[is_labeled])
        self.classes_, index = np.unique(y[is_labeled], return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "Training needs labels of at least 2 classes; got "
                f"{len(self.classes_)} class."
            )
        images = self._images(X)
        labels = np.full(len(y), -1)
        labels[is_labeled] = index
        run_dir = self.run_dir
        if run_dir is None:
            run_dir = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, run_dir, ignore_errors=True)
        settings = {"num_validation": 0, **(self.settings or {})}
        self.fitted_ = fitting.fit(
            self.algo,
            labeled=(images, labels),
            # Scoring is the caller's: no label is held out for it. What the
            # run calls its test accuracy is that of the labeled images.
            test=(images[is_labeled], labels[is_labeled]),
            class_names=[str(label) for label in self.classes_],
            run_dir=str(run_dir),
            seed=self.random_state,
            **settings,
        )
        return self

    def predict_proba(self, X):
        """Calibrated probabilities `[N, classes]`, ordered as `classes_`."""
        check_is_fitted(self, "fitted_")
        X = validate_data(self, X, reset=False, **self._how())
        return self.fitted_.predict_proba(self._images(X))

    def predict(self, X):
        """The label of each image, `[N]`."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _how(self):
        """How scikit-learn checks images."""
        return {"allow_nd": True, "dtype": None}

    def _images(self, X):
        """`[N, H, W]` or `[N, H, W, C]`."""
        if self.image_shape is None:
            return X
        return X.reshape(len(X), *self.image_shape)
