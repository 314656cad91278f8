"""Training from Python: arrays or folders in, a classifier out."""

import functools
import json
import os
import pathlib
import sys

import numpy as np
import scipy.special

from tf_metassl import config as config_lib
from tf_metassl.data import arrays, pictures
from tf_metassl.data.datasets import DATASETS
from tf_metassl.errors import ConfigError
from tf_metassl.run import classifier, experiment, run_directory, serving
from tf_metassl.run.calibration import Calibration
from tf_metassl.run.metrics_file import MetricsFile

# Argument -> the setting of a folder that is given for it.
_FOLDERS = {
    "labeled": "labeled_dir",
    "unlabeled": "unlabeled_dir",
    "validation": "validation_dir",
    "test": "test_dir",
}


def fit(
    algo="meta_semi",
    *,
    labeled,
    unlabeled=None,
    validation=None,
    test=None,
    class_names=None,
    **settings,
):
    """Trains a classifier, as the command `tf-metassl train` does.

    Args:
        algo: the method, see `--algo`.
        labeled: `(images, labels)`: uint8 `[N, H, W, C]` or `[N, H, W]` and
            integers `[N]`, -1 for images without a label; a finite
            `tf.data.Dataset` of such pairs, image by image; or a folder with a
            sub-folder for each class.
        unlabeled: images, a dataset of images, or a folder, as `labeled`.
        validation: `(images, labels)`, a dataset or a folder; None:
            `num_validation` of the labeled images.
        test: the same; None: `test_fraction` of the labeled images.
        class_names: of the labels, for arrays; None: their numbers.
        **settings: what the flags set, by their names: `num_steps=1000`. Those
            of images in memory are `--dataset=arrays`. `model` may also be a
            function of a module, see `tf_metassl.models.custom.load`; the run
            records its name.

    Returns:
        A `FittedClassifier`.

    Raises:
        ConfigError: if the images or a setting cannot be used.
        UserError: as `experiment.train`.
    """
    given = {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "validation": validation,
        "test": test,
    }
    given = {name: value for name, value in given.items() if value is not None}
    folders = {
        name: value
        for name, value in given.items()
        if isinstance(value, str | os.PathLike)
    }
    if folders and folders.keys() != given.keys():
        others = ", ".join(sorted(given.keys() - folders.keys()))
        raise ConfigError(
            f"{others}: expected a folder, as for {', '.join(folders)}. Give "
            "only folders, or only images in memory."
        )
    settings = {"verbose": 0, "algo": algo, **settings}
    if "model" in settings and not isinstance(settings["model"], str):
        settings["model"] = _name_of(settings["model"])
    if folders:
        if class_names is not None:
            raise ConfigError(
                "class_names: the names of classes in folders are those of "
                "the sub-folders. Leave it out."
            )
        places = {_FOLDERS[n]: os.fspath(v) for n, v in folders.items()}
        config = config_lib.resolve({**settings, **places})
        return FittedClassifier(experiment.train(config))
    config = config_lib.resolve({"dataset": "arrays", **settings})
    source = arrays.source(
        DATASETS[config.dataset],
        **arrays.in_memory(given),
        class_names=class_names,
        test_fraction=config.test_fraction,
    )
    return FittedClassifier(experiment.train(config, source=source))


def _name_of(function):
    """`module:function`, by which a run can find a function again."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    found = getattr(sys.modules.get(module), name, None)
    if not callable(function) or found is not function:
        raise ConfigError(
            f"model={function!r}: expected the name of a network or a function "
            "of a module that makes one from an image shape and a number of "
            "classes, so that the run can make it again."
        )
    return f"{module}:{name}"


class FittedClassifier:
    """A finished run.

    Attributes:
        run_dir: its folder, a `pathlib.Path`.
    """

    def __init__(self, run_dir):
        self.run_dir = pathlib.Path(run_dir)

    def __repr__(self):
        return f"FittedClassifier({str(self.run_dir)!r})"

    @functools.cached_property
    def config(self):
        """The `Config` of the run."""
        return run_directory.load_config(self.run_dir)

    @functools.cached_property
    def _classifier(self):
        return classifier.from_run(self.config, self.run_dir)

    @property
    def class_names(self):
        """One per class, a tuple."""
        return self._classifier.class_names

    def predict_proba(self, images, batch_size=64):
        """Calibrated probabilities `[N, C]` of the exported network.

        Args:
            images: uint8 `[N, H, W, C]` or `[N, H, W]`, of the size of the
                network's input; or a list of picture files.
            batch_size: images at a time.
        """
        network = next(iter(self._classifier.networks.values()))
        batches = [
            network(images) for images in self._batches(images, batch_size)
        ]
        return self._classifier.calibration.probabilities(
            np.concatenate(batches)
        )

    def predict(self, images, batch_size=64):
        """The class of each image, `[N]` integers; see `predict_proba`."""
        return self.predict_proba(images, batch_size).argmax(axis=1)

    def _batches(self, images, batch_size):
        if not isinstance(images, np.ndarray):
            images = self._pixels(images)
        images = arrays.as_images("images", images)
        shape = self._classifier.decoding.image_shape
        if images.shape[1:] != shape:
            raise ConfigError(
                f"images: expected shape [N, {', '.join(map(str, shape))}], "
                f"got {images.shape}."
            )
        for start in range(0, len(images), batch_size):
            yield images[start : start + batch_size]

    def _pixels(self, paths):
        """The pixels of picture files, decoded as in training."""
        found = [
            picture
            for chunk in pictures.read(
                [pathlib.Path(path) for path in paths],
                self._classifier.decoding,
            )
            for picture in chunk
        ]
        for picture in found:
            if picture.problem:
                raise ConfigError(f"{picture.path}: {picture.problem}.")
        return np.stack([picture.pixels for picture in found])

    def evaluate(self, images, labels):
        """Accuracy and cross-entropy on labeled images.

        Args:
            images: see `predict_proba`.
            labels: `[N]` integers.

        Returns:
            `accuracy`, `loss` (of the calibrated probabilities) -> float.
        """
        labels = np.asarray(labels)
        probs = self.predict_proba(images)
        if labels.shape != (len(probs),):
            raise ConfigError(
                f"labels: expected {len(probs)}, one per image, got shape "
                f"{labels.shape}."
            )
        own = probs[np.arange(len(labels)), labels]
        return {
            "accuracy": float(np.mean(probs.argmax(axis=1) == labels)),
            "loss": float(-scipy.special.xlogy(1.0, own).mean()),
        }

    def pseudo_label(self, images, min_confidence=0.95):
        """Labels images of which the classifier is sure.

        Args:
            images: see `predict_proba`.
            min_confidence: least calibrated confidence of a label.

        Returns:
            `(labels, confidence)`, `[N]` each; the label is -1 where the
            confidence is lower.
        """
        probs = self.predict_proba(images)
        confidence = probs.max(axis=1)
        labels = np.where(confidence >= min_confidence, probs.argmax(1), -1)
        return labels, confidence

    def export(self, folder, formats=()):
        """Writes a SavedModel, see `serving.export_saved_model`.

        Args:
            folder: where to write.
            formats: what to write instead, any of `saved_model`, `onnx`,
                `litert` and `keras`; files get the folder's name and a suffix.

        Returns:
            The folder, a `pathlib.Path`.
        """
        from tf_metassl.run import stage
        from tf_metassl.run.build import build_without_images

        built = build_without_images(self.config, self.run_dir)
        *_, (_, algorithm) = stage.restored_stages(built, self.run_dir)
        fitted = Calibration.load(self.run_dir)
        serving.export_run(built, algorithm, folder, fitted, formats)
        return pathlib.Path(folder)

    @property
    def history(self):
        """The rows of `metrics.jsonl`, a list of dicts."""
        return MetricsFile(self.run_dir / "metrics.jsonl").rows()

    @property
    def results(self):
        """The rows of the final table, a list of dicts."""
        return json.loads((self.run_dir / "results.json").read_text("utf-8"))

    @property
    def report(self):
        """The report, a text in Markdown."""
        return (self.run_dir / "report.md").read_text("utf-8")
