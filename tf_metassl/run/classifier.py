"""A trained classifier that takes pictures: of a run, or of an export."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf

from tf_metassl.config import Config
from tf_metassl.data import pictures
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.files import AnyPath
from tf_metassl.run import evaluation, serving, stage
from tf_metassl.run.build import build_experiment, build_without_images
from tf_metassl.run.calibration import Calibration

# Added before the logarithm of a probability that was rounded to 0.
_TINY = 1e-38


class Prediction(NamedTuple):
    """What a classifier says of a picture.

    Attributes:
        path: of the file.
        problem: why there is no prediction; empty if there is one.
        probs: `[C]`, the exported network's; empty with a problem.
        calibrated: `[C]`, the same with the temperature.
        agrees: whether the student, if it is another network than the exported
            one, predicts the same class; None if it is not known.
    """

    path: pathlib.Path
    problem: str
    probs: np.ndarray = np.zeros(0)
    calibrated: np.ndarray = np.zeros(0)
    agrees: bool | None = None


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network, how pictures are decoded for it, and what it says.

    Attributes:
        class_names: one per class.
        decoding: a `pictures.Decoding`.
        calibration: the `Calibration` of the exported network.
        networks: role -> function from `[N, H, W, C]` uint8 to logits
            `[N, C]`; the first one is the exported network.
    """

    class_names: tuple[str, ...]
    decoding: pictures.Decoding
    calibration: Calibration
    networks: Mapping[str, Callable[[np.ndarray], np.ndarray]]

    def predict(
        self, paths: Sequence[pathlib.Path], batch_size: int = 64
    ) -> Iterator[Prediction]:
        """Yields a `Prediction` for every file, in order.

        Args:
            paths: of picture files, see `pictures.find`.
            batch_size: pictures that a network sees at a time.
        """
        for read in pictures.read(paths, self.decoding):
            for start in range(0, len(read), batch_size):
                yield from self._predict(read[start : start + batch_size])

    def _predict(
        self, read: Sequence[pictures.Picture]
    ) -> Iterator[Prediction]:
        images = [p.pixels for p in read if not p.problem]
        rows: Iterator[tuple] = iter(())
        if images:
            batch = np.stack(images)
            exported, *others = self.networks
            logits = self.networks[exported](batch)
            agrees: Sequence[bool | None] = [None] * len(batch)
            if "student" in others:
                student = self.networks["student"](batch)
                agrees = list(student.argmax(1) == logits.argmax(1))
            rows = zip(
                scipy.special.softmax(logits, axis=-1),
                self.calibration.probabilities(logits),
                agrees,
                strict=True,
            )
        for picture in read:
            if picture.problem:
                yield Prediction(picture.path, picture.problem)
            else:
                yield Prediction(picture.path, "", *next(rows))


def from_run(config: Config, run_dir: AnyPath) -> Classifier:
    """The classifier of a finished run; its images need not exist any more.

    Args:
        config: the `Config` of the run.
        run_dir: folder of the run.

    Raises:
        CheckpointError: if the run is not finished.
        ConfigError: see `build_experiment`.
    """
    experiment = build_without_images(config, run_dir)
    experiment = experiment or build_experiment(config, run_dir)
    *_, (_, algorithm) = stage.restored_stages(experiment, run_dir)
    exported = evaluation.deployable_role(algorithm)
    found = dict(algorithm.evaluated_networks)
    ordered = {exported: found.pop(exported), **found}
    info = experiment.source.info
    return Classifier(
        class_names=info.class_names,
        decoding=experiment.decoding,
        calibration=Calibration.load(run_dir),
        networks={
            role: _logits(experiment.whole(network), info.image_shape)
            for role, network in ordered.items()
        },
    )


def _logits(
    network: Callable, shape: Sequence[int]
) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function of arrays, traced once for any number."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, *shape], tf.uint8)],
        autograph=False,
    )
    def apply(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(network(images, training=False), tf.float32)

    return lambda images: apply(tf.constant(images)).numpy()


def from_saved_model(folder: AnyPath) -> Classifier:
    """The classifier of a SavedModel that this program has exported.

    Args:
        folder: of the SavedModel.

    Raises:
        ConfigError: if it is none, or one of a version that did not write how
            pictures are decoded.
    """
    path = pathlib.Path(folder) / serving.METADATA
    try:
        values = json.loads(path.read_text("utf-8"))
        shape = tuple(values["decoding"].pop("image_shape"))
        how = pictures.Decoding(shape, **values["decoding"])
        calibration = Calibration(**values["calibration"])
        names = tuple(values["class_names"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder} is not an export of this version: {path} is missing or "
            "damaged. Export the run again, or name the run's folder."
        ) from error
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{folder} cannot be loaded: {error}") from error

    def logits(images: np.ndarray) -> np.ndarray:
        serve = loaded.signatures["serving_default"]
        probs = serve(image=tf.constant(images))["probabilities"].numpy()
        return np.log(probs + _TINY)

    return Classifier(names, how, calibration, {"export": logits})
