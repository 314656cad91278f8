"""A run from its configuration to its report; `train` reads straight down."""

import contextlib
import dataclasses
import json
import pathlib
import tempfile

import numpy as np
from absl import logging

from tf_metassl import config as config_lib
from tf_metassl import files
from tf_metassl.data import spelling, splits
from tf_metassl.errors import ConfigError, TrainingDivergedError, UserError
from tf_metassl.run import (
    calibration,
    cluster,
    distribution,
    evaluation,
    feature_cache,
    forecast,
    html_report,
    initial_weights,
    panels,
    report,
    run_directory,
    serving,
    tensorboard_log,
    twin,
)
from tf_metassl.run import stage as stage_lib
from tf_metassl.run import tracker as tracker_lib
from tf_metassl.run.build import build_experiment
from tf_metassl.run.metrics_file import MetricsFile
from tf_metassl.run.termination import Termination

# What of the exported network is shown beside the settings in TensorBoard.
_RESULTS = ("validation_accuracy", "test_accuracy", "test_macro_f1")


def train(config, termination=None, source=None):
    """Trains, evaluates, reports and exports.

    Args:
        config: a `Config`; an existing run in its `run_dir` is resumed.
        termination: a `Termination`, to end early at a checkpoint.
        source: a `Source` in memory; None to load the one that `config` names.

    Returns:
        The run directory.

    Raises:
        ConfigError: if the run directory holds a different run or is in use,
            or a setting cannot be used; nothing has been written then.
        TrainingDivergedError: if the loss is not finite or has exploded.
        CollapseError: if `--collapse=stop` ends the run.
        CheckpointError: if the run's checkpoints are damaged, or one cannot
            be written.
        WriteError: if something else cannot be written.
        UserError: if a file or a device fails.
        Terminated: if the process has been asked to end.
    """
    termination = termination or Termination()
    with _folders(config) as (run_dir, output):
        tracker_lib.check(config)
        config = run_directory.with_recorded_defaults(config, run_dir)
        config = run_directory.extended(config, run_dir)
        run_directory.check_settings(config, run_dir)
        experiment = build_experiment(
            config,
            output,
            source=source,
            initial=initial_weights.load(config),
        )
        with (
            distribution.lost_workers_named(experiment.strategy),
            _system_errors_named(run_dir),
        ):
            batch_seed_version = _record(experiment, run_dir, output)
            plan = _announce(experiment)
            tracker = tracker_lib.Tracker()
            if distribution.is_chief(experiment.strategy):
                tracker = tracker_lib.start(config, run_dir)
            extensions = run_directory.extensions(output)
            results = []
            events = [report.extension(config, *e) for e in extensions]
            for run, state in _stages(
                experiment,
                run_dir,
                output,
                termination,
                batch_seed_version,
                tracker,
            ):
                algorithm, stage = run.algorithm, run.stage
                events += report.stage_events(stage, state, config.patience)
                # Nothing before evaluates the test images; `_panels` predicts
                # them again with the exported network.
                results += evaluation.final_metrics(
                    experiment, algorithm, stage.name
                )
            compared = _compare_with_twin(run)
            last_step = run.first_step + state.step
            try:
                _finish(
                    experiment,
                    algorithm,
                    run_dir,
                    plan,
                    results,
                    events,
                    compared,
                )
            finally:
                tracker.finish(run_dir, last_step, results[-1])
    return run_dir


def validation_accuracy(config, termination):
    """Trains a run in order to choose settings, and measures it.

    As `train`, but nothing is evaluated on test images, exported or reported.

    Args:
        config: a `Config` with a `run_dir`; an existing run in it is resumed.
        termination: a `Termination`, to end early at a checkpoint.

    Returns:
        The validation accuracy of the network that would be exported, of the
        checkpoint that `--selection` asks for.

    Raises:
        ConfigError: also if there are no validation images.
        UserError: as `train`.
    """
    with _folders(config) as (run_dir, output):
        config = run_directory.with_recorded_defaults(config, run_dir)
        run_directory.check_settings(config, run_dir)
        experiment = build_experiment(
            config, output, initial=initial_weights.load(config)
        )
        if not experiment.has_validation:
            raise ConfigError(
                "Settings are compared on validation images, and none is held "
                "out: raise --num_validation or give --validation_dir."
            )
        version = _record(experiment, run_dir, output)
        for run, _ in _stages(
            experiment, run_dir, output, termination, version
        ):
            algorithm = run.algorithm
        found = evaluation.deployable_metrics(
            experiment, algorithm, "validation"
        )
        return found["validation_accuracy"]


def _stages(
    experiment,
    run_dir,
    output,
    termination,
    batch_seed_version,
    tracker=None,
):
    """Trains the main stage, then those that the method adds to it.

    Yields:
        The `StageRun` and the last `ResumeState` of each.
    """
    first_step = 0
    for stage in stage_lib.stages(experiment):
        run = stage_lib.StageRun(
            experiment,
            stage_lib.build_stage(experiment, stage),
            stage,
            run_dir,
            output,
            first_step=first_step,
            termination=termination,
            batch_seed_version=batch_seed_version,
            tracker=tracker or tracker_lib.Tracker(),
        )
        state = stage_lib.run_stage(run)
        first_step += stage.num_steps
        yield run, state


@contextlib.contextmanager
def _folders(config):
    """Yields the folder of the run and the folder that this process writes to.

    They differ for all workers but the chief: every worker runs the same
    program, because reading a variable or evaluating may need all of them, but
    only what the chief writes is kept.
    """
    try:
        workers = cluster.for_strategy(config.strategy)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if workers and not config.run_dir:
        raise ConfigError(
            "--run_dir is empty. Several workers need the name of one folder "
            "that all of them can read."
        )
    run_dir = pathlib.Path(config.run_dir or run_directory.fresh(config))
    try:
        str(run_dir).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"--run_dir={spelling.text(str(run_dir))}: the name is not UTF-8, "
            "and TensorFlow cannot write such paths. Choose another one."
        ) from error
    if workers and not workers.is_chief:
        with tempfile.TemporaryDirectory() as output:
            yield run_dir, pathlib.Path(output)
    else:
        with run_directory.locked(run_dir):
            yield run_dir, run_dir


@contextlib.contextmanager
def _system_errors_named(run_dir):
    """Says what is intact when a file or a device fails during a run."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error}\nThe checkpoints in {run_dir} are intact. Run the same "
            f"command with --run_dir={run_dir} to continue from the last one."
        ) from error


def _record(experiment, run_dir, output):
    """Checks that a resumed run has the same data, and records the run.

    Returns:
        The rule by which the run draws batches, see `stage.seed_offset`.
    """
    config, source = experiment.config, experiment.source
    fingerprint = run_directory.data_fingerprint(source, experiment.splits)
    distribution.check_equal(experiment.strategy, fingerprint)
    run_directory.check_data(config, run_dir, fingerprint)
    version = run_directory.batch_seed_version(run_dir)
    run_directory.save(
        config, output, {**fingerprint, "batch_seed_version": version}
    )
    run_directory.save_dataset(source, output)
    if experiment.backbone is not None:
        feature_cache.save_backbone(experiment.backbone, output)
    splits.save_ids(source, experiment.splits, output / "labeled_ids.txt")
    return version


def _announce(experiment):
    """Prints the plan of the run and returns its text."""
    plan = report.plan(experiment)
    if distribution.is_chief(experiment.strategy):
        print(plan, flush=True)
        for warning in forecast.warnings(experiment):
            logging.warning("%s", warning)
    return plan


def _compare_with_twin(last):
    """Trains the supervised twin of a run, and compares both.

    Args:
        last: the `StageRun` of the run's last stage.

    Returns:
        A `twin.Result`; None if the run is not to have a twin.
    """
    experiment, path = last.experiment, last.output / "twin.json"
    path.unlink(missing_ok=True)
    if not twin.wanted(experiment):
        return None
    if not experiment.has_validation:
        return twin.Result([twin.NOT_COMPARED])
    stage = twin.stage(experiment)
    algorithm = stage_lib.build_stage(experiment, stage)
    run = dataclasses.replace(
        last,
        experiment=twin.limited(experiment),
        algorithm=algorithm,
        stage=stage,
        first_step=0,
        log_folder=twin.NAME,
    )
    try:
        state = stage_lib.run_stage(run)
    except TrainingDivergedError as error:
        # What the run has learned does not depend on it.
        return twin.Result([f"The supervised twin was not trained: {error}"])
    result = _compared(last, run)
    files.write_text(path, json.dumps(result.record, indent=2) + "\n")
    said = report.stage_events(stage, state, experiment.config.patience)
    return dataclasses.replace(result, notes=[*result.notes, *said])


def _compared(last, twin_run):
    """The `twin.Result` of a trained twin.

    Args:
        last: the `StageRun` of the run's last stage.
        twin_run: that of the twin.
    """
    experiment, images = last.experiment, last.experiment.validation_images
    source, rows = experiment.source, experiment.splits

    def predict(run, images):
        network = run.algorithm.deployable_model
        return evaluation.predict(experiment, network, images)

    pairs = twin.pairs(
        predict(last, images), predict(twin_run, images), images.labels
    )
    labels = source.train.labels[rows.labeled]
    selected = twin.selected_share(last.metrics_file.rows())
    pool = None
    if pairs.verdict != "better":
        chosen = np.random.default_rng(0).permutation(rows.unlabeled)
        chosen = np.sort(chosen[: twin.MAX_POOL])
        seen = experiment.seen.train.take(chosen)
        pool = twin.pool(predict(last, seen), labels)
    row = {
        "stage": "train",
        "network": "supervised twin",
        "deployed": False,
        **evaluation.deployable_metrics(
            experiment, twin_run.algorithm, "validation"
        ),
    }
    names = source.info.class_names
    counts = np.bincount(labels, minlength=len(names)).tolist()
    return twin.Result(
        twin.notes(pairs, counts, pool, selected, names),
        row,
        twin.record(
            pairs, row, twin.share_of_images(experiment), pool, selected
        ),
    )


def _finish(experiment, algorithm, run_dir, plan, results, events, compared):
    """Writes and prints the report; exports the deployable network.

    Raises:
        UserError: if a step fails; the others have been done.
    """
    # Reading the counts may need all workers.
    confusion = algorithm.confusion(evaluation.deployable_role(algorithm))
    failed = []
    if distribution.is_chief(experiment.strategy):
        names = experiment.source.info.class_names
        rows = MetricsFile(run_dir / "metrics.jsonl").rows()
        evaluations = run_directory.num_test_results(run_dir, results)
        try:
            written, failed = report.write(
                run_dir,
                plan=plan,
                results=results,
                events=events,
                rows=rows,
                confusion=confusion,
                class_names=names,
                evaluations=evaluations,
                compared=compared,
            )
        except OSError as error:
            written = ""
            failed.append(f"report.md: {error}")
        shown = report.with_twin(results, compared)
        said = "".join(f"{n}\n" for n in compared.notes) if compared else ""
        print(f"\n{report.table(shown)}\n\n{said}{written}", flush=True)
        try:
            fitted = _calibrate(experiment, algorithm, run_dir)
            serving.export_run(
                experiment, algorithm, run_dir / "export" / "1", fitted
            )
        except (UserError, OSError) as error:
            failed.append(f"export: {error}")
        calibrated = calibration.Calibration.load(run_dir)
        found = panels.Panels()
        try:
            found = _panels(experiment, algorithm, calibrated, rows, results)
        except Exception as error:
            # The rest of the report does not depend on it.
            failed.append(
                "report.html: what the network says of images: "
                f"{type(error).__name__}: {error}"
            )
        try:
            page = html_report.render(
                plan=plan,
                results=shown,
                notes=report.notes(
                    results,
                    events,
                    rows,
                    evaluations,
                    compared,
                    confusion,
                    names,
                ),
                rows=rows,
                confusion=confusion,
                class_names=names,
                calibration=calibrated,
                panels=found,
                provenance=run_directory.provenance(run_dir),
            )
            files.write_text(run_dir / "report.html", page)
        except OSError as error:
            failed.append(f"report.html: {error}")
        try:
            tensorboard_log.write_result(
                run_dir,
                config_lib.distinguishing(experiment.config),
                {k: v for k, v in results[-1].items() if k in _RESULTS},
                run_dir / "confusion_matrix.png",
                found,
            )
        except (UserError, OSError) as error:
            failed.append(f"tensorboard: {error}")
    distribution.wait_for_all(experiment.strategy)
    if failed:
        listed = "\n".join(f"  {text}" for text in failed)
        raise UserError(
            f"The run in {run_dir} has been trained and its checkpoints are "
            f"intact, but not everything could be written:\n{listed}\nRun the "
            "same command again to repeat this without training, or tf-metassl "
            f"export --run_dir={run_dir} for the export alone."
        )


def _panels(experiment, algorithm, fitted, rows, results):
    """The `Panels` of the exported network.

    Args:
        experiment: the `Experiment`.
        algorithm: that of the last stage.
        fitted: the network's `Calibration`.
        rows: of metrics.jsonl.
        results: rows of the final table.
    """

    def predict(images):
        network = algorithm.deployable_model
        return evaluation.predict(experiment, network, images)

    accuracy = results[-1].get("validation_accuracy")
    return panels.collect(experiment, predict, fitted, rows, accuracy)


def _calibrate(experiment, algorithm, run_dir):
    """Fits the temperature of the deployable network, and records it.

    Returns:
        The `Calibration`.
    """
    images = experiment.validation_images
    logits = evaluation.predict(experiment, algorithm.deployable_model, images)
    fitted = calibration.fit(logits, images.labels)
    fitted.save(run_dir)
    return fitted
