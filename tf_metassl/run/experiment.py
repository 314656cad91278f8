"""A run from its configuration to its report. Reads straight down."""

import dataclasses
import functools
import pathlib
import statistics as statistics_lib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tf_metassl import models
from tf_metassl.algorithms import algorithm_class
from tf_metassl.algorithms.algorithm import Algorithm, Stage
from tf_metassl.config import Config
from tf_metassl.data import image_ops, pipeline, sources, splits, statistics
from tf_metassl.errors import (
    CheckpointError,
    ConfigError,
    TrainingDivergedError,
)
from tf_metassl.ops import augmentation_rates, schedules
from tf_metassl.run import (
    callbacks,
    checkpoints,
    cluster,
    distribution,
    report,
    run_directory,
    serving,
)
from tf_metassl.run.termination import Terminated, Termination


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a configuration stands for, built and ready.

    Attributes:
        config: the resolved configuration.
        strategy: the `tf.distribute` strategy of all variables.
        source: the dataset.
        splits: its labeled, unlabeled and validation rows.
        algorithm: the compiled method of the main stage.
    """

    config: Config
    strategy: tf.distribute.Strategy
    source: sources.Source
    splits: splits.Splits
    algorithm: Algorithm

    @property
    def augmentation(self):
        """The augmentation policies, with `auto` resolved."""
        return pipeline.augmentation(self.source, self.config)

    def pools(self, algorithm, batch_size=0):
        """What the batches of `algorithm` are drawn from, `Pool`s.

        Args:
            algorithm: an `Algorithm`.
            batch_size: labeled images per step; 0 for `--batch_size`.

        Raises:
            ConfigError: if the algorithm finds no unlabeled image to learn.
        """
        size = batch_size or self.config.batch_size
        pools = [
            pipeline.Pool(
                "labeled", self.splits.labeled, size, algorithm.views.labeled
            )
        ]
        if algorithm.views.unlabeled:
            try:
                rows = algorithm.select_unlabeled(self.splits.unlabeled)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            pools.append(
                pipeline.Pool(
                    "unlabeled",
                    rows,
                    size * self.config.unlabeled_batch_ratio,
                    algorithm.views.unlabeled,
                )
            )
        return pools

    def training_data(
        self, algorithm, first_step, stage="train", recovery=0, batch_size=0
    ):
        """Batches for `algorithm` from `first_step` on.

        Args:
            algorithm: the stage's algorithm.
            first_step: the step of the first batch.
            stage: name of the stage.
            recovery: how often the run has gone back; each time it gets other
                batches.
            batch_size: see `pools`.
        """
        salt = 0 if stage == "train" else sum(stage.encode())
        salt += 1_000_003 * recovery
        augmentation = self.augmentation
        if algorithm.augmentation_rates is not None:
            rates = algorithm.augmentation_rates.value
            augmentation = dataclasses.replace(
                augmentation,
                probabilities=augmentation_rates.probabilities(
                    tf.convert_to_tensor(rates)
                ).numpy(),
            )

        def make_dataset(**shards):
            return pipeline.training_dataset(
                self.source,
                self.pools(algorithm, batch_size),
                views=algorithm.views,
                augmentation=augmentation,
                seed=self.config.seed + salt,
                first_step=first_step,
                **shards,
            )

        return distribution.distribute(self.strategy, make_dataset)

    @functools.cached_property
    def validation_images(self):
        """The held-out training images."""
        return self.source.train.take(self.splits.validation)

    @property
    def examples(self):
        """A few validation images `[n, H, W, C]` to compare exports on."""
        images = self.validation_images
        images = images.read(range(min(16, len(images))))
        return image_ops.center_crop(images, *self.source.info.image_shape[:2])

    def images(self, split):
        """The images of the split `labeled`, `validation` or `test`."""
        if split == "labeled":
            return self.source.train.take(self.splits.labeled)
        return self.source.test if split == "test" else self.validation_images

    def evaluate(self, algorithm, split, watchers=()):
        """Accuracy and macro-F1 of every network of `algorithm`.

        Args:
            algorithm: an `Algorithm`.
            split: `labeled`, `validation` or `test`.
            watchers: Keras callbacks.

        Returns:
            `<network>_accuracy`, `<network>_macro_f1` and, from 100 classes
            on, `<network>_top_5_accuracy` -> float.
        """
        images = self.images(split)
        size = self.config.eval_batch_size
        algorithm.prepare_evaluation(
            lambda: iter(self.training_data(algorithm, 0))
        )

        def make_dataset(**shards):
            return pipeline.evaluation_dataset(
                images,
                batch_size=size,
                size=self.source.info.image_shape[:2],
                **shards,
            )

        results = algorithm.evaluate(
            distribution.distribute(self.strategy, make_dataset),
            steps=pipeline.evaluation_steps(len(images), size),
            callbacks=list(watchers),
            verbose=0,
            return_dict=True,
        )
        return {name: float(value) for name, value in results.items()}

    def predict(self, network):
        """Logits `[M, C]` of `network` on all training images, by row."""
        images, size = self.source.train, self.config.eval_batch_size
        apply = tf.function(functools.partial(network, training=False))
        batches = pipeline.evaluation_dataset(
            images, batch_size=size, size=self.source.info.image_shape[:2]
        )
        logits = [apply(batch["image"]).numpy() for batch in batches]
        return np.concatenate(logits)[: len(images)]


def build(config, run_dir=None, strategy=None):
    """Builds the experiment that `config` describes.

    Args:
        config: a `Config`.
        run_dir: where unusable image files are listed, if there are any.
        strategy: one that exists already; None for what `config` names.

    Returns:
        An `Experiment`.

    Raises:
        ConfigError: if the data cannot be split as asked, or the network or
            devices do not exist.
    """
    keras.config.set_dtype_policy(config.precision)
    try:
        strategy = strategy or distribution.make_strategy(
            config.strategy, config.num_replicas, config.tpu
        )
        if config.jit_compile:
            distribution.check_xla(strategy)
        keras.utils.set_random_seed(config.seed)
        source = sources.load(config.dataset, config, run_dir)
        rows = splits.split(
            source.train.labels,
            num_labeled=config.num_labeled,
            num_validation=config.num_validation,
            split_seed=config.split_seed,
            labeled_inside=config.labeled_inside_unlabeled,
            label_split=config.label_split,
            labeled_rows=source.labeled_rows,
            validation_rows=source.validation_rows,
            class_names=source.info.class_names,
        )
        scaling = statistics.scaling(
            config.normalization,
            config.dataset,
            source.train,
            run_dir and run_directory.normalization(run_dir),
        )
        with strategy.scope():
            algorithm = build_algorithm(
                config,
                source.info,
                strategy.num_replicas_in_sync,
                len(source.train),
                scaling,
            )
        pipeline.check_channels(
            algorithm.views,
            pipeline.augmentation(source, config),
            source.info.image_shape[2],
        )
        if algorithm.views.unlabeled:
            splits.check_unlabeled(rows)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Experiment(config, strategy, source, rows, algorithm)


def build_algorithm(
    config, info, num_replicas=1, num_images=0, scaling=None, cls=None
):
    """Networks, optimizers and the compiled method, in the current scope.

    Args:
        config: a `Config`.
        info: the `DatasetInfo`.
        num_replicas: decides whether batch norm is synchronized.
        num_images: training images, labeled or not.
        scaling: see `tf_metassl.data.statistics.scaling`.
        cls: class of a later stage; the method's if None.

    Returns:
        A compiled `Algorithm`.
    """
    shares = num_replicas * config.gradient_accumulation_steps
    if config.batch_size % shares:
        raise ConfigError(
            f"--batch_size={config.batch_size} must be a multiple of "
            f"{shares}: {num_replicas} replicas times "
            f"--gradient_accumulation_steps={config.gradient_accumulation_steps}."
        )
    cls = cls or algorithm_class(config.algo)
    hp = config.hyperparameters
    for name, size in hp.later_batch_sizes.items():
        if size % num_replicas:
            raise ConfigError(
                f"--{name}={size} must be a multiple of the {num_replicas} "
                "replicas."
            )
    synchronized = {
        "auto": num_replicas > 1,
        "local": False,
        "synchronized": True,
    }[config.batch_norm]

    def network(role):
        dropout = hp.dropout_of(role)
        return models.build(
            config.model,
            info.image_shape,
            info.num_classes,
            dropout=config.dropout if dropout is None else dropout,
            synchronized=synchronized,
            **(scaling or {}),
            network_name=role,
        )

    elapsed = None
    if config.time_budget_minutes:
        elapsed = tf.Variable(0.0, dtype=keras.config.floatx(), trainable=False)

    def optimizer(role):
        cycle_start, cycle_steps = hp.learning_rate_cycle
        schedule = schedules.WarmupSchedule(
            hp.learning_rate_of(role) or config.learning_rate,
            config.num_steps,
            warmup_steps=config.warmup_steps,
            wait_steps=hp.wait_steps_of(role),
            shape=config.lr_schedule,
            cycle_start=cycle_start,
            cycle_steps=cycle_steps,
        )
        if elapsed is not None:
            schedule = schedules.TimedSchedule(
                schedule, config.num_steps, elapsed
            )
        if config.optimizer == "adam":
            return keras.optimizers.Adam(
                schedule, beta_1=config.momentum, name=f"{role}_adam"
            )
        return keras.optimizers.SGD(
            schedule,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            name=f"{role}_sgd",
        )

    def rebuild(num_steps, cls=cls):
        changed = dataclasses.replace(config, num_steps=num_steps)
        return build_algorithm(
            changed, info, num_replicas, num_images, scaling, cls
        )

    algorithm = cls(
        networks=cls.build_networks(network, info.num_classes),
        hyperparameters=hp,
        num_classes=info.num_classes,
        num_images=num_images,
        seed=config.seed,
        rebuild=rebuild,
        elapsed=elapsed,
    )
    algorithm.compile(
        optimizers={role: optimizer(role) for role in cls.roles},
        weight_decay=config.weight_decay,
        decoupled_weight_decay=config.decoupled_weight_decay,
        gradient_clip_norm=config.gradient_clip_norm,
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        recompute=config.remat,
    )

    return algorithm


def train(config, termination=None):
    """Trains, evaluates, reports and exports.

    Args:
        config: a `Config`; an existing run in its `run_dir` is resumed.
        termination: a `Termination`, to end early at a checkpoint.

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
        Terminated: if the process has been asked to end.
    """
    termination = termination or Termination()
    try:
        workers = cluster.for_strategy(config.strategy)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if workers and not config.run_dir:
        raise ConfigError(
            "--run_dir is empty: several workers need the name of one folder "
            "that all of them can read."
        )
    run_dir = pathlib.Path(config.run_dir or run_directory.fresh(config))
    if workers and not workers.is_chief:
        # All workers run the same program, because reading a variable or
        # evaluating may need all of them. What all but the chief write is
        # thrown away.
        with tempfile.TemporaryDirectory() as output:
            return _train(config, run_dir, pathlib.Path(output), termination)
    with run_directory.locked(run_dir):
        return _train(config, run_dir, run_dir, termination)


def _train(config, run_dir, output, termination):
    """`train` that reads from `run_dir` and writes into `output`."""
    run_directory.check_settings(config, run_dir)
    experiment = build(config, output)
    with distribution.lost_workers_named(experiment.strategy):
        _train_built(config, experiment, run_dir, output, termination)
    return run_dir


def _train_built(config, experiment, run_dir, output, termination):
    """Trains, evaluates, reports and exports what `build` has built."""
    chief = distribution.is_chief(experiment.strategy)
    fingerprint = run_directory.data_fingerprint(
        experiment.source, experiment.splits
    )
    run_directory.check_data(config, run_dir, fingerprint)
    run_directory.save(config, output, fingerprint)
    splits.save_ids(
        experiment.source, experiment.splits, output / "labeled_ids.txt"
    )
    plan = report.plan(experiment)
    if chief:
        print(plan, flush=True)

    # Train: the main stage, then whatever the method adds to it.
    first_step, results, recoveries = 0, [], []
    for stage in stages(experiment):
        with experiment.strategy.scope():
            algorithm = stage.build()
        recoveries += run_stage(
            experiment,
            algorithm,
            stage,
            run_dir,
            first_step,
            termination,
            output,
        )
        first_step += stage.num_steps
        # The only place that looks at the test images.
        results.extend(final_metrics(experiment, algorithm, stage.name))

    # Report and export; the others have done their part then.
    confusion = algorithm.confusion(deployable_role(algorithm))
    if chief:
        write_results(
            experiment, algorithm, run_dir, plan, results, recoveries, confusion
        )
    distribution.wait_for_all(experiment.strategy)


def write_results(
    experiment, algorithm, run_dir, plan, results, recoveries, confusion
):
    """Exports the deployable network and writes and prints the report."""
    names = experiment.source.info.class_names
    serving.export_saved_model(
        algorithm.deployable_model,
        names,
        run_dir / "export" / "1",
        examples=experiment.examples,
    )
    written = report.write(
        run_dir,
        plan=plan,
        results=results,
        recoveries=recoveries,
        rows=callbacks.MetricsFile(run_dir / "metrics.jsonl").rows(),
        confusion=confusion,
        class_names=names,
    )
    print(f"\n{report.table(results)}\n\n{written}", flush=True)


def stages(experiment):
    """All stages of the run; a later one is built after the one before."""
    algorithm = experiment.algorithm
    main = Stage("train", experiment.config.num_steps, lambda: algorithm)
    return [main, *algorithm.later_stages()]


def restored_stages(experiment, run_dir):
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
        with experiment.strategy.scope():
            algorithm = stage.build()
        folder = callbacks.checkpoint_folder(run_dir, stage.name)
        state = restore_newest(folder, algorithm)
        step = state["step"]
        if step < stage.num_steps and not state.get("out_of_time"):
            raise CheckpointError(
                f"The run in {run_dir} has finished {step} of "
                f"{stage.num_steps} steps of {stage.name}: run the training "
                "command again to finish it."
            )
        restore_selected(folder, algorithm, experiment.config.selection)
        yield stage, algorithm


def restore_newest(folder, algorithm):
    """Restores `algorithm` from the newest whole checkpoint, if there is one.

    Returns:
        The state that was saved with it; `{"step": 0}` if there is none.
    """
    newest = checkpoints.newest_whole(folder)
    return checkpoints.restore(newest, algorithm) if newest else {"step": 0}


def restore_selected(folder, algorithm, selection):
    """Makes an algorithm at its last step hold what `--selection` asks for."""
    if selection == "best_validation":
        checkpoints.restore(folder / "best", algorithm)


def run_stage(
    experiment,
    algorithm,
    stage,
    run_dir,
    first_step=0,
    termination=None,
    output=None,
):
    """Runs one stage to its end, from its newest checkpoint if there is one.

    Afterwards `algorithm` holds what `--selection` asks for.

    Args:
        experiment: the `Experiment`.
        algorithm: the stage's compiled algorithm.
        stage: the `Stage`.
        run_dir: folder of the run.
        first_step: steps of the stages before.
        termination: a `Termination`.
        output: where to write; `run_dir` if None.

    Returns:
        The recoveries that it took: a list of dicts with `stage`, `what` went
        wrong, `at` which step, and `back_to` which one the run went.
    """
    config = experiment.config
    termination = termination or Termination()
    output = output or run_dir
    folder = callbacks.checkpoint_folder(run_dir, stage.name)
    checkpoints.clean(callbacks.checkpoint_folder(output, stage.name))
    distribution.wait_for_all(experiment.strategy)
    state = restore_newest(folder, algorithm)
    if state["step"]:
        print(f"Resuming {stage.name} at step {state['step']} from {folder}")
    else:
        algorithm.prepare(experiment.predict)
        if experiment.strategy.num_replicas_in_sync == 1:
            data = experiment.training_data(
                algorithm, 0, stage.name, batch_size=stage.batch_size
            )
            callbacks.write_view_images(output, next(iter(data)))
    # Whatever is written from here on, nobody reads half of it.
    distribution.wait_for_all(experiment.strategy)
    while True:
        recoveries = state.setdefault("recoveries", [])
        try:
            _train_from(
                state,
                experiment,
                algorithm,
                stage,
                output,
                first_step,
                termination,
            )
            break
        except TrainingDivergedError as error:
            if len(recoveries) == config.recover_from_nan:
                raise
            distribution.wait_for_all(experiment.strategy)
            state = restore_newest(folder, algorithm)
            state["recoveries"] = [
                *recoveries,
                {
                    "stage": stage.name,
                    "what": error.what,
                    "at": error.step,
                    "back_to": state["step"],
                },
            ]
            print(report.recovery(state["recoveries"][-1]), flush=True)
        finally:
            termination.deferred = False
    ending = distribution.worker_means(
        experiment.strategy, termination.requested
    )
    if ending[0]:
        raise Terminated("Stopped by SIGTERM at the end of a stage.")
    restore_selected(folder, algorithm, config.selection)
    return recoveries


def _train_from(
    state, experiment, algorithm, stage, output, first_step, termination
):
    """Runs a stage from `state`, which `algorithm` is in, to its end."""
    config, step = experiment.config, state["step"]
    if state.get("out_of_time"):
        return
    metrics_file = callbacks.MetricsFile(output / "metrics.jsonl")
    timing_file = callbacks.MetricsFile(output / "timing.jsonl")
    recorder = callbacks.Recorder(
        evaluate=functools.partial(experiment.evaluate, algorithm),
        run_dir=output,
        stage=stage.name,
        metrics_file=metrics_file,
        timing_file=timing_file,
        best_metric=f"{deployable_role(algorithm)}_accuracy",
        state=state,
        termination=termination,
        worker_means=functools.partial(
            distribution.worker_means, experiment.strategy
        ),
        first_step=first_step,
        checkpoint_minutes=config.checkpoint_minutes,
        keep=config.keep_checkpoints,
        collapse=config.collapse,
        on_labeled=config.evaluate_on_labeled,
        time_budget_minutes=config.time_budget_minutes,
    )
    recorder.set_model(algorithm)
    evaluated = state.get("last_evaluation", step)
    if evaluated < stage.num_steps:
        metrics_file.truncate(first_step + evaluated)
        timing_file.truncate(first_step + evaluated)
    if not step and config.recover_from_nan:
        recorder.save(None)
    ends = step % config.evaluate_every == 0 or step == stage.num_steps
    if evaluated < step and ends:
        recorder.finish_epoch()
    pools = experiment.pools(algorithm, stage.batch_size)
    shown = callbacks.Progress(
        num_steps=stage.num_steps,
        images_per_step=sum(pool.batch_size for pool in pools),
        verbose=config.verbose * distribution.is_chief(experiment.strategy),
    )
    guard = callbacks.DivergenceGuard(config.max_loss)
    for begin, length, count in segments(
        step,
        stage.num_steps,
        config.evaluate_every,
        one_by_one=algorithm.augmentation_rates is not None,
    ):
        if recorder.out_of_time:
            break
        if begin % config.evaluate_every == 0:
            algorithm.refresh_augmentation_rates()
        data = experiment.training_data(
            algorithm,
            begin,
            stage.name,
            len(state["recoveries"]),
            stage.batch_size,
        )
        try:
            algorithm.fit(
                data,
                epochs=count,
                steps_per_epoch=length,
                shuffle=False,
                callbacks=[guard, recorder, shown],
                verbose=0,
            )
        finally:
            shown.on_train_end()
    if config.time_budget_minutes and not recorder.out_of_time:
        print(report.unused_time(config, stage), flush=True)


def segments(step, num_steps, every, *, one_by_one=False):
    """Calls of `fit` that lead from `step` to `num_steps`.

    Evaluations fall on multiples of `every` and on the last step, wherever
    a run was interrupted.

    Args:
        step: the first step.
        num_steps: the step to end before.
        every: steps between evaluations.
        one_by_one: whether every epoch needs a call of its own, because the
            data of the next one depends on what has been learned.

    Returns:
        A list of `(first step, steps per epoch, epochs)`.
    """
    result = []
    if step % every and step < num_steps:
        length = min(every - step % every, num_steps - step)
        result.append((step, length, 1))
        step += length
    count = (num_steps - step) // every
    if one_by_one:
        result += [(step + i * every, every, 1) for i in range(count)]
    elif count:
        result.append((step, every, count))
    step += every * count
    if step < num_steps:
        result.append((step, num_steps - step, 1))
    return result


def final_metrics(experiment, algorithm, stage):
    """Rows of the final table for the networks of `algorithm`.

    Returns:
        A list of dicts with `stage`, `network`, `deployed` and, for each of
        the splits, what `Experiment.evaluate` gives: `<split>_accuracy`, ...
    """
    results = {
        split: experiment.evaluate(algorithm, split)
        for split in ("validation", "test")
    }
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
    """As `final_metrics`, the median over the stage's last checkpoints.

    Args:
        experiment: the `Experiment`.
        algorithm: that of the stage; it is left at the last checkpoint.
        stage: name of the stage.
        run_dir: folder of the run.
        count: how many checkpoints.

    Raises:
        CheckpointError: if there are fewer.
    """
    folder = callbacks.checkpoint_folder(run_dir, stage)
    paths = checkpoints.last(folder, count)
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
    return [
        {
            name: statistics_lib.median(row[name] for row in rows)
            if isinstance(value, float)
            else value
            for name, value in rows[0].items()
        }
        for rows in zip(*evaluated, strict=True)
    ]


def deployable_role(algorithm):
    """The name under which the deployable network is evaluated."""
    return next(
        role
        for role, network in algorithm.evaluated_networks.items()
        if network is algorithm.deployable_model
    )
