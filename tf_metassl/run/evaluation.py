"""Evaluation of networks, and the numbers of the final table."""

import functools
import statistics

import numpy as np
import tensorflow as tf

from tf_metassl.data import pipeline
from tf_metassl.errors import CheckpointError
from tf_metassl.run import (
    calibration,
    checkpoints,
    real_labels,
    report,
    resume,
)


def evaluate(experiment, algorithm, split, watchers=(), networks=None):
    """Accuracy and macro-F1 of networks of `algorithm`.

    Args:
        experiment: the `Experiment`.
        algorithm: an `Algorithm`.
        split: `labeled`, `validation` or `test`.
        watchers: Keras callbacks.
        networks: names of `algorithm.evaluated_networks`; None for all.

    Returns:
        `<network>_accuracy`, `<network>_macro_f1` and, with 100 classes or
        more, `<network>_top_5_accuracy` -> float.
    """
    algorithm.prepare_evaluation(
        lambda: iter(experiment.training_data(algorithm, 0))
    )
    data, steps = experiment.evaluation_data(split)
    return algorithm.evaluate(
        data,
        steps=steps,
        callbacks=list(watchers),
        verbose=0,
        networks=networks,
        return_dict=True,
    )


def predict(experiment, network, images=None):
    """Logits of `network` on images.

    Args:
        experiment: the `Experiment`.
        network: a Keras network; it is run in inference mode.
        images: `Images`, as networks see them; None for all training images.

    Returns:
        `[M, C]` float array in the order of the images.
    """
    images = experiment.seen.train if images is None else images
    if not len(images):
        return np.zeros((0, experiment.source.info.num_classes), np.float32)
    apply = tf.function(
        functools.partial(network, training=False), autograph=False
    )
    batches = pipeline.evaluation_dataset(
        images,
        batch_size=experiment.config.eval_batch_size,
        size=experiment.seen.info.image_shape[:2],
    )
    logits = [apply(batch["image"]).numpy() for batch in batches]
    return np.concatenate(logits)[: len(images)]


class Predictor:
    """What networks say of every training image, see `Algorithm.prepare`.

    Args:
        experiment: the `Experiment`.
    """

    def __init__(self, experiment):
        self._experiment = experiment

    @property
    def unlabeled(self):
        """The rows of the unlabeled pool, an integer array."""
        return self._experiment.splits.unlabeled

    def __call__(self, network):
        """Logits `[M, C]` of a network, see `predict`."""
        return predict(self._experiment, network)

    def probabilities(self, network):
        """Probabilities `[M, C]`, calibrated on the validation images."""
        logits = self(network)
        rows = self._experiment.splits.validation
        labels = self._experiment.source.train.labels[rows]
        return calibration.fit(logits[rows], labels).probabilities(logits)


def deployable_role(algorithm):
    """The name under which the deployable network is evaluated."""
    return next(
        role
        for role, network in algorithm.evaluated_networks.items()
        if network is algorithm.deployable_model
    )


def deployable_metrics(experiment, algorithm, split):
    """What `evaluate` gives for the deployable network, `<split>_<measure>`."""
    role = deployable_role(algorithm)
    values = evaluate(experiment, algorithm, split, networks=(role,))
    return {
        f"{split}_{name}": values[f"{role}_{name}"]
        for name in report.MEASURES
        if f"{role}_{name}" in values
    }


def final_metrics(experiment, algorithm, stage):
    """Rows of the final table for the networks of `algorithm`.

    Args:
        experiment: the `Experiment`.
        algorithm: that of the stage.
        stage: name of the stage.

    Returns:
        A list of dicts with `stage`, `network`, `deployed` and what `evaluate`
        gives for each split that has images: `validation_accuracy`,
        `test_accuracy`, ...; with `--real_labels` also `test_real_precision`.
    """
    parts = ("validation", "test") if experiment.has_validation else ("test",)
    results = {part: evaluate(experiment, algorithm, part) for part in parts}
    if experiment.real_labels is not None:
        for role, network in algorithm.evaluated_networks.items():
            logits = predict(experiment, network, experiment.images("test"))
            results["test"][f"{role}_real_precision"] = real_labels.precision(
                experiment.real_labels, logits.argmax(axis=1)
            )
    deployed = deployable_role(algorithm)
    return [
        {
            "stage": stage,
            "network": role,
            "deployed": role == deployed,
            **{
                f"{split}_{name}": values[f"{role}_{name}"]
                for split, values in results.items()
                for name in report.MEASURES
                if f"{role}_{name}" in values
            },
        }
        for role in algorithm.evaluated_networks
    ]


def median_metrics(experiment, algorithm, stage, run_dir, count):
    """As `final_metrics`, but the median over the stage's last checkpoints.

    Args:
        experiment: the `Experiment`.
        algorithm: that of the stage; it holds the last checkpoint afterwards.
        stage: name of the stage.
        run_dir: folder of the run.
        count: how many checkpoints.

    Raises:
        CheckpointError: if there are fewer.
    """
    paths = checkpoints.last(resume.checkpoint_folder(run_dir, stage), count)
    if len(paths) < count:
        raise CheckpointError(
            f"--median_of={count}: the stage {stage} has kept {len(paths)} "
            f"checkpoints. Train with --keep_checkpoints={count} and an "
            f"--evaluate_every of at most 1/{count} of the stage."
        )
    evaluated = []
    for path in paths:
        checkpoints.restore(path, algorithm)
        evaluated.append(final_metrics(experiment, algorithm, stage))
    return [median_row(rows) for rows in zip(*evaluated, strict=True)]


def median_row(rows):
    """One row of the final table from those of several checkpoints.

    Args:
        rows: dicts with the same keys; floats are replaced by their median,
            anything else is taken from the first one.
    """
    return {
        name: statistics.median(row[name] for row in rows)
        if isinstance(value, float)
        else value
        for name, value in rows[0].items()
    }
