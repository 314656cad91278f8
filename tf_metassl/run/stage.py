"""Training of one stage, from its newest checkpoint to its last step."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tf_metassl import files
from tf_metassl.algorithms.algorithm import Algorithm, Stage
from tf_metassl.config import Config, profiled_steps
from tf_metassl.errors import CheckpointError, TrainingDivergedError
from tf_metassl.run import (
    checkpoints,
    distribution,
    evaluation,
    report,
    resume,
    run_directory,
    twin,
)
from tf_metassl.run.build import Experiment
from tf_metassl.run.callbacks import Profiler, Recorder, ViewImages
from tf_metassl.run.metrics_file import MetricsFile
from tf_metassl.run.progress import Progress
from tf_metassl.run.termination import Terminated, Termination
from tf_metassl.run.tracker import Tracker


@dataclasses.dataclass(frozen=True)
class StageRun:
    """One stage of one run: what is trained, and where it is written.

    Attributes:
        experiment: the `Experiment`.
        algorithm: the stage's compiled algorithm.
        stage: the `Stage`.
        run_dir: folder of the run, from which the stage is resumed.
        output: folder to write into. Only the chief of several workers writes
            into `run_dir`.
        first_step: steps of the stages before, which are added to the stage's
            own steps in all metrics.
        log_folder: folder below `output` for metrics, timing and TensorBoard;
            empty for `output` itself.
        termination: says whether the process has been asked to end.
        batch_seed_version: see `seed_offset`.
        tracker: what the metrics are told to, besides the files.
    """

    experiment: Experiment
    algorithm: Algorithm
    stage: Stage
    run_dir: pathlib.Path
    output: pathlib.Path
    first_step: int = 0
    log_folder: str = ""
    termination: Termination = dataclasses.field(default_factory=Termination)
    batch_seed_version: int = run_directory.BATCH_SEED_VERSION
    tracker: Tracker = dataclasses.field(default_factory=Tracker)

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return self.experiment.config

    @property
    def checkpoints(self) -> pathlib.Path:
        """The folder from which checkpoints are restored."""
        return resume.checkpoint_folder(self.run_dir, self.stage.name)

    @property
    def output_checkpoints(self) -> pathlib.Path:
        """The folder into which checkpoints are written."""
        return resume.checkpoint_folder(self.output, self.stage.name)

    @property
    def logs(self) -> pathlib.Path:
        """The folder of metrics, timing and TensorBoard."""
        return self.output / self.log_folder

    @property
    def metrics_file(self) -> MetricsFile:
        """The metrics, the same whenever the run is repeated."""
        return MetricsFile(self.logs / "metrics.jsonl")

    @property
    def timing_file(self) -> MetricsFile:
        """The seconds of training, which differ from run to run."""
        return MetricsFile(self.logs / "timing.jsonl")

    @property
    def best_metric(self) -> str:
        """The validation metric whose maximum makes the best checkpoint."""
        return f"{evaluation.deployable_role(self.algorithm)}_accuracy"

    @property
    def networks_evaluated(self) -> tuple[str, ...] | None:
        """The networks evaluated during training; None for all of them."""
        if self.config.evaluate_networks == "all":
            return None
        return (evaluation.deployable_role(self.algorithm),)

    def worker_means(self, *values: float) -> tuple[float, ...]:
        """See `distribution.worker_means`."""
        return distribution.worker_means(self.experiment.strategy, *values)

    def wait_for_all(self) -> None:
        """See `distribution.wait_for_all`."""
        distribution.wait_for_all(self.experiment.strategy)

    def training_data(
        self, first_step: int, num_recoveries: int = 0
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """The batches of the stage from `first_step` on.

        Args:
            first_step: the step of the first batch, counted from the start of
                the stage.
            num_recoveries: how often the stage has recovered; each time it
                gets different batches.
        """
        offset = seed_offset(
            self.stage.name, num_recoveries, self.batch_seed_version
        )
        return self.experiment.training_data(
            self.algorithm,
            first_step,
            offset,
            self.stage.batch_size,
            hide_trained_labels=self.batch_seed_version >= 3,
        )


def seed_offset(stage: str, num_recoveries: int, version: int) -> int:
    """What is added to `--seed` for the batches of a stage.

    Args:
        stage: name of the stage.
        num_recoveries: how often the stage has recovered.
        version: 2 for the hash that the data pipeline uses for names; 1 for
            runs that were started before it, whose batches must stay the same.
            With version 1 stages such as `round_12` and `round_21` get the
            same batches.

    Returns:
        A non-negative integer; 0 for the stage `train` and its twin without
        recoveries, so that both have the same labeled images in a step.
    """
    if stage in ("train", twin.NAME):
        offset = 0
    elif version == 1:
        offset = sum(stage.encode())
    else:
        offset = zlib.crc32(stage.encode()) & 0x7FFFFFFF
    return offset + 1_000_003 * num_recoveries


def stages(experiment: Experiment) -> list[Stage]:
    """All stages of a run, in order.

    Args:
        experiment: the `Experiment`.

    Returns:
        A list of `Stage`. Build the algorithm of a stage, with
        `build_stage`, after the stage before it has ended.
    """
    main = Stage(
        "train", experiment.config.num_steps, lambda: experiment.algorithm
    )
    return [main, *experiment.algorithm.later_stages()]


def build_stage(experiment: Experiment, stage: Stage) -> Algorithm:
    """Builds the algorithm of `stage` in the experiment's strategy scope."""
    with experiment.strategy.scope():
        return stage.build()


def restored_stages(
    experiment: Experiment, run_dir: files.AnyPath
) -> Iterator[tuple[Stage, Algorithm]]:
    """Yields every stage of a finished run with its restored algorithm.

    Args:
        experiment: the built `Experiment` of the run.
        run_dir: folder of the run.

    Yields:
        `(Stage, Algorithm)`; the algorithm holds what `--selection` asks for.

    Raises:
        CheckpointError: if a stage has not been finished.
    """
    for stage in stages(experiment):
        algorithm = build_stage(experiment, stage)
        folder = resume.checkpoint_folder(run_dir, stage.name)
        state = resume.restore_newest(folder, algorithm)
        ended = state.has_ended(experiment.config.patience)
        if state.step < stage.num_steps and not ended:
            raise CheckpointError(
                f"The run in {run_dir} has finished {state.step} of "
                f"{stage.num_steps} steps of {stage.name}. Run the training "
                "command again to finish it."
            )
        resume.restore_selected(folder, algorithm, experiment.config.selection)
        yield stage, algorithm


def run_stage(run: StageRun) -> resume.ResumeState:
    """Trains a stage to its end, from its newest checkpoint if there is one.

    Afterwards the algorithm holds what `--selection` asks for.

    Args:
        run: a `StageRun`.

    Returns:
        The `ResumeState` after the last step.

    Raises:
        TrainingDivergedError: if the loss has diverged more often than
            `--recover_from_nan` allows.
        Terminated: if the process has been asked to end.
    """
    run.logs.mkdir(parents=True, exist_ok=True)
    state = _resume_or_start(run)
    while True:
        try:
            state = _train_from(run, state)
            break
        except TrainingDivergedError as error:
            if len(state.recoveries) == run.config.recover_from_nan:
                raise
            state = _go_back(run, state, error)
        finally:
            run.termination.deferred = False
    if run.worker_means(run.termination.requested)[0]:
        raise Terminated(
            f"Stopped by SIGTERM at the end of the stage {run.stage.name}. Run "
            "the same command with --run_dir set to this run's folder to "
            "continue."
        )
    resume.restore_selected(
        run.checkpoints, run.algorithm, run.config.selection
    )
    return state


def _resume_or_start(run: StageRun) -> resume.ResumeState:
    """Restores the newest checkpoint, or prepares the first step.

    Returns:
        The `ResumeState` that the algorithm is in.
    """
    experiment, algorithm = run.experiment, run.algorithm
    checkpoints.clean(run.output_checkpoints)
    run.wait_for_all()
    state = resume.restore_newest(run.checkpoints, algorithm)
    # Workers whose --run_dir is not one shared folder would differ here.
    distribution.check_equal(
        experiment.strategy,
        {f"the newest checkpoint of {run.stage.name}": state.step},
        "--run_dir has to be one folder that all workers share.",
    )
    if state.step:
        print(
            f"Resuming {run.stage.name} at step {state.step} from "
            f"{run.checkpoints}"
        )
    else:
        algorithm.prepare(evaluation.Predictor(experiment))
    # All workers have read the checkpoints before the chief writes new ones.
    run.wait_for_all()
    return state


def _go_back(
    run: StageRun, state: resume.ResumeState, error: TrainingDivergedError
) -> resume.ResumeState:
    """Restores the newest checkpoint after the loss has diverged.

    Args:
        run: the `StageRun`.
        state: the state that the diverged training started from.
        error: the `TrainingDivergedError`.

    Returns:
        The `ResumeState` to continue from, which records the recovery.
    """
    run.wait_for_all()
    restored = resume.restore_newest(run.checkpoints, run.algorithm)
    recovery: resume.Recovery = {
        "stage": run.stage.name,
        "what": error.what,
        "at": error.step,
        "back_to": restored.step,
    }
    print(report.recovery(recovery), flush=True)
    return dataclasses.replace(
        restored, recoveries=(*state.recoveries, recovery)
    )


def _train_from(run: StageRun, state: resume.ResumeState) -> resume.ResumeState:
    """Trains a stage from `state`, which its algorithm is in, to its end.

    Returns:
        The `ResumeState` at its end.
    """
    if state.has_ended(run.config.patience):
        return state
    config, algorithm, stage = run.config, run.algorithm, run.stage
    # By default, it was not known when the algorithm was compiled.
    algorithm.steps_per_execution = config.steps_per_execution
    evaluate = functools.partial(
        evaluation.evaluate,
        run.experiment,
        algorithm,
        networks=run.networks_evaluated,
    )
    recorder = Recorder(run, state, evaluate)
    recorder.set_model(algorithm)
    _catch_up(run, state, recorder)
    pools = run.experiment.pools(algorithm, stage.batch_size)
    is_chief = distribution.is_chief(run.experiment.strategy)
    progress = Progress(
        num_steps=stage.num_steps,
        images_per_step=sum(pool.batch_size for pool in pools),
        verbose=config.verbose * is_chief,
        is_between=lambda: recorder.is_between,
    )
    profiler = Profiler(run.logs / "tensorboard", *profiled_steps(config))
    algorithm.reads_every_step = False
    algorithm.watch_loss(config.max_loss)
    watchers = [recorder, progress]
    renewed = renewals(
        run.experiment,
        algorithm,
        config.ctaugment_every or config.evaluate_every,
    )
    if config.profile_steps and stage.name == "train" and is_chief:
        watchers.append(profiler)
    for first_step, steps, epochs in segments(
        state.step,
        stage.num_steps,
        config.evaluate_every,
        renewed=[every for every, _ in renewed],
    ):
        if recorder.has_ended:
            break
        for every, renew in renewed:
            if first_step % every == 0:
                renew()
        data = run.training_data(first_step, len(state.recoveries))
        is_new = not first_step and not state.recoveries
        pictures = []
        if is_new and run.experiment.strategy.num_replicas_in_sync == 1:
            pictures.append(ViewImages(run.logs, data))
        try:
            algorithm.fit(
                data,
                epochs=epochs,
                steps_per_epoch=steps,
                shuffle=False,
                callbacks=watchers + pictures,
                verbose=0,
            )
        finally:
            progress.on_train_end()
            profiler.stop()
    ended = recorder.has_ended or stage.name == twin.NAME
    if config.time_budget_minutes and not ended:
        print(report.unused_time(config, stage), flush=True)
    return recorder.state


def _catch_up(
    run: StageRun, state: resume.ResumeState, recorder: Recorder
) -> None:
    """Brings files and evaluations to the step that `state` is at."""
    evaluated, step = state.last_evaluation, state.step
    if evaluated < run.stage.num_steps:
        run.metrics_file.truncate(run.first_step + evaluated)
        run.timing_file.truncate(run.first_step + evaluated)
    if not step and run.config.recover_from_nan:
        # Something to go back to before the first evaluation.
        recorder.save(None)
    ends_epoch = (
        step % run.config.evaluate_every == 0 or step == run.stage.num_steps
    )
    if evaluated < step and ends_epoch:
        recorder.finish_epoch()


def renewals(
    experiment: Experiment, algorithm: Algorithm, rates_every: int
) -> list[tuple[int, Callable[[], None]]]:
    """What is renewed between two calls of `fit`.

    Args:
        experiment: the `Experiment`.
        algorithm: that of the stage.
        rates_every: steps after which CTAugment's rates are renewed.

    Returns:
        A list of `(steps, function)`: after how many steps it is called, from
        step 0 on.
    """
    found: list[tuple[int, Callable[[], None]]] = []
    if algorithm.augmentation_rates is not None:
        found.append((rates_every, algorithm.refresh_augmentation_rates))
    if algorithm.round_length:
        predict = evaluation.Predictor(experiment)
        begin = functools.partial(algorithm.begin_round, predict)
        found.append((algorithm.round_length, begin))
    return found


def segments(
    step: int, num_steps: int, every: int, *, renewed: Sequence[int] = ()
) -> list[tuple[int, int, int]]:
    """The calls of `fit` that lead from `step` to `num_steps`.

    Evaluations take place at multiples of `every` and at the last step,
    wherever a run was interrupted.

    Args:
        step: the first step.
        num_steps: the step to end before.
        every: steps between evaluations.
        renewed: numbers of steps after which something is renewed that needs
            a new call, see `renewals`.

    Returns:
        A list of `(first step, steps per epoch, epochs)`.
    """
    result = []
    if renewed:
        while step < num_steps:
            ends = [(step // n + 1) * n for n in (every, *renewed)]
            end = min(*ends, num_steps)
            result.append((step, end - step, 1))
            step = end
        return result
    if step % every and step < num_steps:
        length = min(every - step % every, num_steps - step)
        result.append((step, length, 1))
        step += length
    count = (num_steps - step) // every
    if count:
        result.append((step, every, count))
    step += every * count
    if step < num_steps:
        result.append((step, num_steps - step, 1))
    return result
