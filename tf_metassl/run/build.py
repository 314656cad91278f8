"""Builds what a configuration describes: data, networks, optimizers, method."""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

from tf_metassl import config as config_lib
from tf_metassl import models
from tf_metassl.algorithms import algorithm_class
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.config import UNKNOWN, Config
from tf_metassl.data import (
    foreign,
    pictures,
    pipeline,
    sources,
    splits,
    statistics,
    store,
)
from tf_metassl.data import options as options_lib
from tf_metassl.data.datasets import DATASETS
from tf_metassl.errors import ConfigError
from tf_metassl.models import precision, pretrained
from tf_metassl.ops import augmentation_rates, schedules
from tf_metassl.ops.lars import Lars
from tf_metassl.ops.sgd import Sgd
from tf_metassl.run import (
    distribution,
    feature_cache,
    forecast,
    real_labels,
    run_directory,
)
from tf_metassl.run.real_labels import Labels


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a configuration describes, built and ready.

    Attributes:
        config: the resolved configuration.
        strategy: the `tf.distribute` strategy of all variables.
        source: the dataset.
        splits: its labeled, unlabeled and validation rows.
        algorithm: the compiled method of the main stage.
        features: with `--cache_features`, the features of the dataset.
        backbone: the network that has computed them.
        real_labels: the classes of each test image, see `--real_labels`.
    """

    config: Config
    strategy: tf.distribute.Strategy
    source: sources.Source
    splits: splits.Splits
    algorithm: Algorithm
    features: sources.Source | None = None
    backbone: keras.Model | None = None
    real_labels: Labels | None = None

    @property
    def augmentation(self):
        """The augmentation policies, with `auto` resolved."""
        return pipeline.augmentation(self.source, self.config)

    @property
    def seen(self):
        """What the networks of the algorithm see, a `Source`."""
        return self.features or self.source

    @functools.cached_property
    def validation_images(self):
        """The held-out training images, as networks see them."""
        return self.seen.train.take(self.splits.validation)

    def whole(self, network):
        """A network of the algorithm as one that takes images.

        Args:
            network: such as `algorithm.deployable_model`.
        """
        if self.backbone is None:
            return network
        return feature_cache.whole(self.backbone, network)

    @property
    def examples(self):
        """16 images `[16, H, W, C]` of noise to compare exports on."""
        return example_images(self.source.info.image_shape)

    @property
    def decoding(self):
        """How pictures of the user become inputs, a `pictures.Decoding`."""
        config, shape = self.config, tuple(self.source.info.image_shape)
        stored = 0
        # Pictures that are not square can only be used as they are.
        if shape[0] == shape[1]:
            published = DATASETS[config.dataset].published
            ratio = published.stored_ratio if published else 1.0
            sizes = dataclasses.replace(config, image_size=shape[0])
            stored = options_lib.stored_size(sizes, shape[0], ratio)
        return pictures.Decoding(shape, stored, config.max_value, config.resize)

    @property
    def has_validation(self):
        """Whether there are validation images."""
        return len(self.splits.validation) > 0

    def images(self, split):
        """What networks see of the split `labeled`, `validation` or `test`."""
        if split == "labeled":
            return self.seen.train.take(self.splits.labeled)
        return self.seen.test if split == "test" else self.validation_images

    def evaluation_data(self, split):
        """The evaluation batches of a split, made once.

        Args:
            split: as for `images`.

        Returns:
            `(dataset, steps)`: a dataset, distributed if there are several
            replicas, and the batches that hold every image once.
        """
        if split not in self._evaluation_data:
            images = self.images(split)
            size = self.config.eval_batch_size
            # A program of XLA is for one shape.
            is_static = self.config.jit_compile or isinstance(
                self.strategy, tf.distribute.TPUStrategy
            )

            def make_dataset(**shards):
                return pipeline.evaluation_dataset(
                    images,
                    batch_size=size,
                    size=self.seen.info.image_shape[:2],
                    fill=is_static,
                    **shards,
                )

            self._evaluation_data[split] = (
                distribution.distribute(self.strategy, make_dataset),
                pipeline.evaluation_steps(len(images), size),
            )
        return self._evaluation_data[split]

    @functools.cached_property
    def _evaluation_data(self):
        return {}

    def pools(self, algorithm, batch_size=0):
        """The `Pool`s that the batches of `algorithm` are drawn from.

        Args:
            algorithm: an `Algorithm`.
            batch_size: labeled images per step; 0 for `--batch_size`.

        Raises:
            ConfigError: if the algorithm selects no unlabeled image.
        """
        size = batch_size or self.config.batch_size
        pools = [
            pipeline.Pool(
                "labeled",
                self.splits.labeled,
                size,
                algorithm.batch_views.labeled,
                balanced=self.config.class_balance == "sampling",
            )
        ]
        if algorithm.batch_views.unlabeled:
            try:
                rows = algorithm.select_unlabeled(self.splits.unlabeled)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            pools.append(
                pipeline.Pool(
                    "unlabeled",
                    rows,
                    size * self.config.unlabeled_batch_ratio,
                    algorithm.batch_views.unlabeled,
                )
            )
        return pools

    def training_data(
        self,
        algorithm,
        first_step,
        seed_offset=0,
        batch_size=0,
        hide_trained_labels=True,
    ):
        """The training batches of `algorithm`.

        Args:
            algorithm: the stage's algorithm.
            first_step: the step of the first batch.
            seed_offset: added to `--seed`; see `stage.seed_offset`.
            batch_size: labeled images per step; 0 for `--batch_size`.
            hide_trained_labels: see `pipeline.training_dataset`.

        Returns:
            An endless dataset for `fit`, distributed if there are several
            replicas.
        """
        augmentation = self.augmentation
        if self.backbone is not None:
            augmentation = feature_cache.augmentation(
                self.config.cache_features
            )
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
                self.seen,
                self.pools(algorithm, batch_size),
                views=algorithm.batch_views,
                augmentation=augmentation,
                seed=self.config.seed + seed_offset,
                first_step=first_step,
                hide_trained_labels=hide_trained_labels,
                **shards,
            )

        return distribution.distribute(self.strategy, make_dataset)


def example_images(image_shape):
    """16 images `[16, H, W, C]` uint8 of noise, the same in every process."""
    shape = (16, *image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def build_experiment(
    config, run_dir=None, strategy=None, source=None, initial=None
):
    """Builds the experiment that `config` describes.

    Args:
        config: a `Config`.
        run_dir: where image files that cannot be used are listed, if there
            are any.
        strategy: a `tf.distribute` strategy; None to make the one that
            `config` names.
        source: a `Source` in memory; None to load the one that `config` names.
        initial: layers whose weights networks start from, see
            `tf_metassl.run.initial_weights`; None: random ones.

    Returns:
        An `Experiment`.

    Raises:
        ConfigError: if the data cannot be split as configured, or the network
            or the devices do not exist.
    """
    try:
        strategy = _prepare(config, strategy)
        config, source, rows = load_data(config, run_dir, source)
        scaling = _scaling(config, source.train, run_dir)
        features = backbone = None
        if config.cache_features:
            backbone = _backbone(config, source.info, scaling, initial)
            features = feature_cache.load(config, source, backbone)
        sets = None
        if config.real_labels:
            sets = real_labels.read(
                config.real_labels, len(source.test), source.info.num_classes
            )
        algorithm = _algorithm(
            config,
            strategy,
            features or source,
            scaling,
            initial,
            backbone,
            rows,
        )
        pipeline.check_channels(
            algorithm.batch_views,
            pipeline.augmentation(source, config),
            source.info.image_shape[2],
        )
        if algorithm.batch_views.unlabeled:
            splits.check_unlabeled(rows)
        if share := algorithm.batch_views.judge_share:
            splits.judges(source.train.labels, rows.labeled, share)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    experiment = Experiment(
        config,
        strategy,
        source,
        rows,
        algorithm,
        features,
        backbone,
        real_labels=sets,
    )
    if config.steps_per_execution == UNKNOWN["steps_per_execution"]:
        found = forecast.steps_per_call(experiment)
        config = dataclasses.replace(config, steps_per_execution=found)
        experiment = dataclasses.replace(experiment, config=config)
    return experiment


def load_data(config, run_dir=None, source=None):
    """Loads the images that `config` names and splits them.

    Args:
        config: a `Config`.
        run_dir: as for `build_experiment`.
        source: as for `build_experiment`.

    Returns:
        `(config, source, rows)`: with the defaults that depend on the images,
        a `Source`, and its `Splits`.

    Raises:
        ValueError: if the images cannot be used or split as configured.
    """
    source = source or sources.load(config.dataset, config, run_dir)
    if config.known_classes:
        source = foreign.with_known_classes(source, config.known_classes)
    config = _with_defaults(config, source)
    return config, source, split(source, config)


def build_without_images(config, run_dir):
    """Builds the experiment of a run whose images need not exist any more.

    It can be restored and exported, but neither trained nor evaluated.

    Args:
        config: a `Config`.
        run_dir: folder of the run.

    Returns:
        An `Experiment`; None if the run was started by a version that did not
        record what is needed.

    Raises:
        ConfigError: as `build_experiment`.
    """
    recorded = run_directory.recorded_dataset(run_dir)
    if recorded is None:
        return None
    info, num_images = recorded
    images = store.Images(
        np.broadcast_to(np.uint8(0), (num_images, *info.image_shape)),
        np.zeros(num_images, np.int32),
    )
    source = store.Source(info, images, images, "none", "fixmatch")
    none = np.zeros(0, np.int64)
    try:
        strategy = _prepare(config)
        scaling = _scaling(config, None, run_dir)
        features = backbone = None
        if config.cache_features:
            backbone = _backbone(config, info, scaling)
            feature_cache.load_backbone(backbone, run_dir)
            features = feature_cache.without_images(source, backbone)
        algorithm = _algorithm(
            config, strategy, features or source, scaling, None, backbone
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows = splits.Splits(none, none, none)
    return Experiment(
        config, strategy, source, rows, algorithm, features, backbone
    )


def _prepare(config, strategy=None):
    """Sets precision and devices; returns the strategy."""
    keras.config.set_dtype_policy(config.precision)
    strategy = strategy or distribution.make_strategy(
        config.strategy,
        config.num_replicas,
        config.tpu,
        facts={**config_lib.compared(config), **run_directory.versions()},
    )
    if config.jit_compile:
        distribution.check_xla(strategy)
    return strategy


def _scaling(config, images, run_dir):
    """How networks scale pixels, see `statistics.scaling`.

    Args:
        config: a `Config`.
        images: from which it is computed; None: it has to be in `run_dir`.
        run_dir: folder of the run, or None.
    """
    return statistics.scaling(
        config.normalization,
        config.dataset,
        images,
        run_dir and run_directory.normalization(run_dir),
    )


def _algorithm(config, strategy, source, scaling, initial, backbone, rows=None):
    """The algorithm of the main stage, built in the scope of `strategy`.

    Args:
        config: a `Config`.
        strategy: a `tf.distribute` strategy.
        source: the `Source` that its networks see.
        scaling: see `_scaling`.
        initial: see `build_experiment`.
        backbone: see `Experiment`.
        rows: the `Splits`; None: nothing is trained.
    """
    # Whatever has been built before: a twin starts from the same weights.
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        return build_algorithm(
            config,
            source.info,
            strategy.num_replicas_in_sync,
            len(source.train),
            scaling,
            initial=initial,
            backbone=backbone,
            class_weights=class_weights(config, source, rows),
        )


def class_weights(config, source, rows):
    """The weights of the classes in the labeled loss, see --class_balance.

    Args:
        config: a `Config`.
        source: the `Source`.
        rows: its `Splits`; None: nothing is trained.

    Returns:
        `[C]` floats; None if all are 1.
    """
    if config.class_balance != "loss" or rows is None:
        return None
    return splits.class_weights(
        source.train.labels[rows.labeled], source.info.num_classes
    )


def _with_defaults(config, source):
    """Fills in the defaults that depend on the images.

    Args:
        config: a `Config`.
        source: the `Source`.

    Returns:
        A `Config`. Of `config.UNKNOWN`, the steps per call are left: they
        depend on the networks.
    """
    found = {}
    if config.model == UNKNOWN["model"]:
        found["model"] = models.for_size(source.info.image_shape)
    if config.num_validation == UNKNOWN["num_validation"]:
        found["num_validation"] = splits.default_num_validation(
            source.train.labels, config.num_labeled, source.validation_rows
        )
    return dataclasses.replace(config, **found)


def split(source, config):
    """The labeled, unlabeled and validation rows of `source`.

    Raises:
        ValueError: see `splits.split`; or if the best checkpoint is asked for
            and there are no validation images.
    """
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
        groups=source.groups,
    )
    if config.known_classes:
        rows = dataclasses.replace(
            rows,
            unlabeled=foreign.mixed_pool(
                source.train.labels,
                rows.unlabeled,
                rows.labeled,
                foreign_share=config.foreign_share,
                seed=config.split_seed,
            ),
        )
    if config.patience and not len(rows.validation):
        raise ValueError(
            f"--patience={config.patience} needs validation images, but none "
            "is held out: raise --num_validation (now "
            f"{config.num_validation}), give --validation_dir, or leave "
            "--patience out."
        )
    if config.selection == "best_validation" and not len(rows.validation):
        raise ValueError(
            "--selection=best_validation needs validation images, but none is "
            "held out: raise --num_validation (now "
            f"{config.num_validation}), give --validation_dir, or use "
            "--selection=last."
        )
    return rows


def build_algorithm(
    config,
    info,
    num_replicas=1,
    num_images=0,
    scaling=None,
    cls=None,
    initial=None,
    backbone=None,
    class_weights=None,
):
    """Builds networks, optimizers and the compiled method.

    The variables are created in the current strategy scope.

    Args:
        config: a `Config`.
        info: the `DatasetInfo`.
        num_replicas: number of replicas; with several, `--batch_norm=auto`
            synchronizes batch norm.
        num_images: number of training images, labeled or not.
        scaling: see `tf_metassl.data.statistics.scaling`.
        cls: class of a later stage; None for that of the method.
        initial: see `build_experiment`.
        backbone: see `Experiment`; the networks of the method are the last
            layer of it alone.
        class_weights: see `Algorithm`.

    Returns:
        A compiled `Algorithm`.

    Raises:
        ConfigError: if a batch cannot be divided over the replicas.
    """
    config_lib.check_batches(config, num_replicas)
    elapsed = None
    if config.time_budget_minutes:
        elapsed = tf.Variable(0.0, dtype=keras.config.floatx(), trainable=False)

    def rebuild(num_steps, cls=cls):
        changed = dataclasses.replace(config, num_steps=num_steps)
        return build_algorithm(
            changed,
            info,
            num_replicas,
            num_images,
            scaling,
            cls,
            initial,
            backbone,
            class_weights,
        )

    def build_network(role):
        dropout = config.hyperparameters.dropout_of(role)
        dropout = config.dropout if dropout is None else dropout
        if backbone is not None:
            return feature_cache.head(backbone, dropout, role)
        return _network(
            config, info, num_replicas, scaling, initial, dropout, role
        )

    return assemble(
        config,
        cls or algorithm_class(config.algo),
        build_network,
        functools.partial(_optimizer, config, elapsed),
        num_classes=info.num_classes,
        num_images=num_images,
        rebuild=rebuild,
        elapsed=elapsed,
        class_weights=class_weights,
    )


def assemble(config, cls, build_network, build_optimizer, **arguments):
    """The compiled method, of networks and optimizers that functions build.

    Args:
        config: a `Config`.
        cls: the `Algorithm` of the stage.
        build_network: function of a role that returns a built classifier.
        build_optimizer: function of a role that returns a Keras optimizer.
        **arguments: further ones of `Algorithm`.

    Returns:
        A compiled `Algorithm`.
    """
    algorithm = cls(
        networks=cls.build_networks(build_network, arguments["num_classes"]),
        hyperparameters=config.hyperparameters,
        seed=config.seed,
        ctaugment=config.strong_augmentation == "ctaugment",
        **arguments,
    )
    algorithm.compile(
        optimizers={role: build_optimizer(role) for role in cls.roles},
        weight_decay=config.weight_decay,
        decoupled_weight_decay=config.decoupled_weight_decay,
        weight_decay_on=config.weight_decay_on,
        gradient_clip_norm=config.gradient_clip_norm,
        backbone_scale=config.backbone_learning_rate_scale,
        jit_compile=config.jit_compile,
        steps_per_execution=config.steps_per_execution or 1,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        recompute=config.remat,
        dropblock_steps=config.num_steps,
        sam_rho=config.sam_rho,
    )
    return algorithm


def _backbone(config, info, scaling, initial=None):
    """The network whose frozen layers `--cache_features` applies once."""
    keras.utils.set_random_seed(config.seed)
    return _network(config, info, 1, scaling, initial)


def _network(
    config,
    info,
    num_replicas,
    scaling,
    initial=None,
    dropout=0.0,
    role="backbone",
):
    """A new network for `role`; see `build_algorithm`."""
    synchronized = {
        "auto": num_replicas > 1,
        "local": False,
        "synchronized": True,
    }[config.batch_norm]
    network = models.build(
        config.model,
        info.image_shape,
        info.num_classes,
        dropout=dropout,
        dropblock=config.dropblock,
        synchronized=synchronized,
        **(scaling or {}),
        network_name=role,
    )
    if precision.is_emulated(config.precision):
        precision.compute_in_float32(network)
    if initial is not None:
        pretrained.copy_layers(
            pretrained.layers_of(network, config.init_last_layer),
            initial,
            config.init_weights,
        )
    pretrained.freeze(network, config.freeze)
    return network


def _optimizer(config, elapsed, role):
    """A new optimizer for `role`.

    Args:
        config: the `Config`.
        elapsed: variable with the used share of the time budget; None without
            a budget.
        role: name of the network.
    """
    hp = config.hyperparameters
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
        schedule = schedules.TimedSchedule(schedule, config.num_steps, elapsed)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(
            schedule, beta_1=config.momentum, name=f"{role}_adam"
        )
    if config.optimizer == "lars":
        return Lars(schedule, momentum=config.momentum, name=f"{role}_lars")
    return Sgd(
        schedule,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        name=f"{role}_sgd",
    )
