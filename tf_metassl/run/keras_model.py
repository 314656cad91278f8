"""The methods as Keras models: compile, fit, evaluate, save.

A model here wraps a network of the user. Its `fit` builds the method's
`Algorithm` and trains it on the batches of `tf_metassl.data.pipeline`, so that
batch t is a function of the seed and of t, and no method knows of this module.
"""

import dataclasses
import functools

import keras
import numpy as np

from tf_metassl import config as config_lib
from tf_metassl.algorithms import (
    ALGORITHMS,
    ALIASES,
    algorithm_class,
    class_names,
    hyperparameters_class,
)
from tf_metassl.algorithms.algorithm import Algorithm
from tf_metassl.contract import view_kind
from tf_metassl.data import arrays, pipeline, policies, splits
from tf_metassl.data.datasets import DATASETS
from tf_metassl.data.pictures import Decoding
from tf_metassl.errors import ConfigError
from tf_metassl.models import custom
from tf_metassl.models import pretrained as pretrained_lib
from tf_metassl.ops import averaging
from tf_metassl.ops.schedules import WarmupSchedule
from tf_metassl.run import build, evaluation, serving, stage
from tf_metassl.run.calibration import Calibration

_PACKAGE = "tf_metassl"
# What is known of pseudo-labels whose true label is known.
_OF_TRUE_LABELS = (
    "pseudo_label_accuracy",
    "selected_pseudo_label_accuracy",
    "foreign_selected_share",
)


@dataclasses.dataclass
class _Training:
    """What `fit` has built. A plain object, which Keras does not look into.

    Attributes:
        config: the `Config`.
        num_images: M, the number of training images.
        algorithm: the method, of the main stage.
        deployed: the network that predicts.
        initial: weights that further networks start from, but for those of the
            last layer; None: they are new.
    """

    config: config_lib.Config
    num_images: int
    algorithm: Algorithm
    deployed: keras.Model
    initial: list | None

    @property
    def has_later_network(self):
        """Whether a later stage has trained the network that predicts."""
        return self.deployed is not self.algorithm.deployable_model


class SemiSupervisedModel(keras.Model):
    """A classifier that learns from labeled and unlabeled images.

    Calling it gives the logits of the deployable network: the averaged one, or
    that of the last stage. There is a subclass for every method, such as
    `MetaSemi`, named as in `tf_metassl.algorithms`. For a method of one's own,
    a subclass sets `algorithm`, an `Algorithm`, and `method`, the one whose
    hyperparameters it has.

    Args:
        network: a functional or sequential Keras model from pixels in 0...255
            to logits; it becomes the student and is trained in place.
        teacher: for methods with a teacher, such a model; None: one of the
            network's architecture.
        pretrained: whether a teacher that is not given, and new networks of
            later stages, start from the weights of `network` but for the last
            layer. None: if a layer of it is frozen.
        algo: the method, see `--algo`; empty: that of the class.
        class_names: for exports; None: their numbers.
        seed: of batches, augmentation and the method's own draws.
        name: of the model.
        **hyperparameters: of the method, by the names of its flags. A default
            that is a share of the run is one of the first `fit`.

    Raises:
        ConfigError: if the network or a hyperparameter cannot be used.
    """

    # Of subclasses.
    method = ""
    algorithm = None

    def __init__(
        self,
        network,
        *,
        teacher=None,
        pretrained=None,
        algo="",
        class_names=None,
        seed=0,
        name=None,
        **hyperparameters,
    ):
        super().__init__(name=name)
        self.algo = algo or self.method or "meta_semi"
        if self.method not in ("", self._method):
            raise ConfigError(
                f"algo={algo}: {type(self).__name__} is {self.method}. Use "
                "SemiSupervisedModel for other methods."
            )
        self.seed = seed
        self.hyperparameters = dict(hyperparameters)
        self._options = {}
        self._settings()
        for role, given in {"network": network, "teacher": teacher}.items():
            if given is not None:
                _check_network(role, given)
        self.num_classes = network.output_shape[-1]
        class_names = class_names or map(str, range(self.num_classes))
        self.class_names = list(class_names)
        if len(self.class_names) != self.num_classes:
            raise ConfigError(
                f"class_names: expected {self.num_classes}, one for each "
                f"logit of the network; got {len(self.class_names)}."
            )
        if teacher is not None:
            self._check_has_teacher("teacher")
        self.network = network
        self.teacher = teacher
        if pretrained is None:
            layers = pretrained_lib.leaves(network)
            pretrained = not all(layer.trainable for layer in layers)
        self.pretrained = pretrained
        self._training = None
        # Of a model that has been loaded: what its training was built of, and
        # the network that predicts without it. A function, because Keras would
        # look for its weights in the file.
        self._trained = None
        self._loaded = None
        self._optimizers = {}
        self.built = True

    @property
    def _method(self):
        """Its name in the registry, which `algo` may be short for."""
        return ALIASES.get(self.algo, self.algo)

    def _algorithm_class(self):
        return self.algorithm or algorithm_class(self._method)

    def _check_has_teacher(self, argument):
        if "teacher" not in self._algorithm_class().roles:
            raise ConfigError(f"{argument}: --algo={self.algo} has no teacher.")

    def _settings(self, **others):
        """The `Config` of the hyperparameters and other settings.

        Raises:
            ConfigError: if one is unknown, or has a value that is not allowed.
        """
        settings = {
            "algo": self.algo,
            "dataset": "arrays",
            "num_validation": 0,
            "selection": "last",
            "seed": self.seed,
            **self._options,
            **others,
        }
        if self._method in ALGORITHMS:
            own = {
                field.name
                for field in dataclasses.fields(
                    hyperparameters_class(self._method)
                )
            }
            for name in self.hyperparameters.keys() - own:
                raise ConfigError(
                    f"{name} is no hyperparameter of --algo={self.algo}, which "
                    f"has: {', '.join(sorted(own))}."
                )
        return config_lib.resolve({**settings, **self.hyperparameters})

    # Optimizers.

    def compile(
        self,
        optimizer,
        loss=None,
        metrics=("accuracy",),
        *,
        teacher_optimizer=None,
        weight_decay=0.0,
        gradient_clip_norm=0.0,
        steps_per_execution=1,
        jit_compile=False,
        remat=False,
    ):
        """Sets the optimizers, and what `evaluate` measures.

        Args:
            optimizer: a Keras optimizer, or the name of one, of the student.
                Every later stage on new networks gets a copy.
            loss: that `evaluate` reports; None: the cross-entropy of integer
                labels. What is trained on is the method's.
            metrics: that `evaluate` reports.
            teacher_optimizer: None: a copy of `optimizer`.
            weight_decay: see `--weight_decay`.
            gradient_clip_norm: see `--gradient_clip_norm`.
            steps_per_execution: see `--steps_per_execution`.
            jit_compile: see `--jit_compile`.
            remat: see `--remat`.

        Raises:
            ConfigError: if an optimizer cannot be used, or the model has been
                trained: its optimizers hold what they have learned.
        """
        if self._training:
            raise ConfigError(
                "compile: this model has been trained, and another optimizer "
                "would lose its momentum. Change optimizer.learning_rate, or "
                "make a new model of trained_network()."
            )
        if teacher_optimizer is not None:
            self._check_has_teacher("teacher_optimizer")
        given = {"student": optimizer, "teacher": teacher_optimizer}
        self._optimizers = {
            role: keras.optimizers.get(value)
            for role, value in given.items()
            if value is not None
        }
        self._options = {
            "weight_decay": weight_decay,
            "gradient_clip_norm": gradient_clip_norm,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "remat": remat,
        }
        self._settings()
        self._measured = {"loss": loss, "metrics": list(metrics)}
        super().compile(
            optimizer=self._optimizers["student"],
            loss=loss
            or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=list(metrics),
            jit_compile=False,
        )

    def _build_optimizer(self, config, used, role):
        """The optimizer of a role: the user's own, or a copy of it.

        Args:
            config: the `Config` of the stage.
            used: ids of the optimizers that have variables already.
            role: name of the network.
        """
        own = self._optimizers.get(role)
        optimizer = own or self._optimizers["student"]
        # A copy, because an optimizer belongs to one network.
        if own is None or id(own) in used:
            settings = {**optimizer.get_config(), "name": f"{role}_optimizer"}
            optimizer = type(optimizer).from_config(settings)
        used.add(id(optimizer))
        hp = config.hyperparameters
        rate = hp.learning_rate_of(role)
        wait, cycle = hp.wait_steps_of(role), hp.learning_rate_cycle
        # A dict if it is a schedule.
        current = optimizer.get_config()["learning_rate"]
        schedule = current["class_name"] if isinstance(current, dict) else ""
        if schedule == WarmupSchedule.__name__ or not (
            rate or wait or cycle[1]
        ):
            return optimizer
        if schedule:
            raise ConfigError(
                f"optimizer: --algo={self.algo} has a schedule of its own for "
                f"the learning rate of the {role}. Give a number, or a "
                "tf_metassl.ops.schedules.WarmupSchedule."
            )
        optimizer.learning_rate = WarmupSchedule(
            rate or current,
            config.num_steps,
            wait_steps=wait,
            shape="cosine" if cycle[1] else "constant",
            cycle_start=cycle[0],
            cycle_steps=cycle[1],
        )
        return optimizer

    # Training.

    def fit(
        self,
        labeled,
        unlabeled=None,
        *,
        weak="auto",
        strong="auto",
        batch_size=64,
        unlabeled_batch_ratio=None,
        epochs=1,
        steps_per_epoch=None,
        initial_epoch=0,
        validation_data=None,
        callbacks=None,
        verbose="auto",
    ):
        """Trains the method, then its later stages.

        On a model that has been trained it goes on: with the batches that
        follow, and with the lengths, such as that of a ramp, of the first call.

        Args:
            labeled: `(images, labels)`: uint8 `[N, H, W, C]` or `[N, H, W]`
                and integers `[N]`, -1 for images without a label; or a finite
                `tf.data.Dataset` of such pairs, batched or not. Images are
                read into memory once.
            unlabeled: images, or a dataset of images. The labeled images are
                part of the unlabeled pool as well.
            weak: weak augmentation: the name of a policy, see
                `--weak_augmentation`, or a function of an image `[H, W, C]`
                uint8 and a seed `[2]` int32, such as
                `tf.image.stateless_random_flip_left_right`, that returns an
                image of the same shape.
            strong: strong augmentation, the same; a function is applied to
                what the weak one returns.
            batch_size: labeled images per step.
            unlabeled_batch_ratio: unlabeled images per labeled one; None: the
                default of the flag.
            epochs: at which to end, as `initial_epoch` is where to begin.
            steps_per_epoch: None: once through the unlabeled images, or
                through the labeled ones of methods without unlabeled ones.
            initial_epoch: epochs that the model has been trained for.
            validation_data: what `evaluate` takes, after each epoch: a pair of
                arrays or a batched dataset.
            callbacks: of Keras.
            verbose: as in `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History` of the main stage.

        Raises:
            ConfigError: if images, augmentation or settings cannot be used.
        """
        if not self._optimizers:
            raise ConfigError("fit: call compile(optimizer) first.")
        _check_callbacks(callbacks)
        source = self._source(labeled, unlabeled, weak, strong)
        settings = {"batch_size": batch_size}
        if unlabeled_batch_ratio is not None:
            settings["unlabeled_batch_ratio"] = unlabeled_batch_ratio
        if not steps_per_epoch:
            steps_per_epoch = _one_pass(self._settings(**settings), source)
        if not 0 <= initial_epoch < epochs:
            raise ConfigError(
                f"initial_epoch={initial_epoch}: expected less than "
                f"epochs={epochs}."
            )
        config = self._settings(
            **settings,
            num_steps=epochs * steps_per_epoch,
            evaluate_every=steps_per_epoch,
        )
        self._check_goes_on(config, len(source.train), initial_epoch)
        if not self._training:
            self._build(config, len(source.train))
        algorithm = self._training.algorithm
        self._check_policies(algorithm, weak, strong)
        try:
            pipeline.check_channels(
                algorithm.batch_views,
                pipeline.augmentation(source, config),
                source.info.image_shape[2],
            )
            rows = build.split(source, config)
            if algorithm.batch_views.unlabeled:
                splits.check_unlabeled(rows)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        experiment = build.Experiment(
            config=config,
            strategy=self.distribute_strategy,
            source=source,
            splits=rows,
            algorithm=algorithm,
        )
        history = self._fit_main(
            experiment, validation_data, callbacks, verbose, initial_epoch
        )
        self._fit_later(experiment, validation_data, verbose)
        return history

    def _source(self, labeled, unlabeled, weak, strong):
        """The images, a `Source`."""
        given = {"labeled": labeled}
        if unlabeled is not None:
            given["unlabeled"] = unlabeled
        given = arrays.in_memory(given)
        images, labels = arrays.pair("labeled", given["labeled"])
        if labels.max() >= self.num_classes:
            raise ConfigError(
                f"labeled: the network has {self.num_classes} logits, and "
                f"there is the label {labels.max()}."
            )
        known = np.flatnonzero(labels >= 0)
        source = arrays.source(
            DATASETS["arrays"],
            labeled=(images, labels),
            unlabeled=given.get("unlabeled"),
            # Nothing is measured on them here.
            test=(images[known[:1]], labels[known[:1]]),
            class_names=self.class_names,
        )
        expected = self.network.input_shape[1:]
        shape = source.info.image_shape
        if any(
            a not in (None, b) for a, b in zip(expected, shape, strict=True)
        ):
            raise ConfigError(
                f"labeled: the network expects images of shape {expected}, got "
                f"{shape}."
            )
        return dataclasses.replace(
            source,
            **{
                f"{name}_policy": policies.of_user(name, value)
                for name, value in {"weak": weak, "strong": strong}.items()
                if value != "auto"
            },
        )

    def _check_goes_on(self, config, num_images, initial_epoch):
        """Refuses what contradicts devices, or what has been trained."""
        config_lib.check_batches(
            config, self.distribute_strategy.num_replicas_in_sync
        )
        training = self._training
        done = training.algorithm.finished_steps if training else 0
        expected = initial_epoch * config.evaluate_every
        if initial_epoch and expected != done:
            raise ConfigError(
                f"initial_epoch={initial_epoch}: that is step {expected}, and "
                f"the model has been trained for {done} steps."
            )
        if training and training.num_images != num_images:
            raise ConfigError(
                f"labeled, unlabeled: got {num_images} images; the model has "
                f"been trained on {training.num_images}, and a method may "
                "remember each of them. Make a new model of trained_network()."
            )

    def _check_policies(self, algorithm, weak, strong):
        """Refuses augmentation that the method does not use."""
        views = algorithm.batch_views
        kinds = {view_kind(view) for view in views.labeled + views.unlabeled}
        used = {
            "weak": kinds - {"clean"},
            "strong": kinds & {"strong"},
        }
        for name, given in {"weak": weak, "strong": strong}.items():
            if given != "auto" and not used[name]:
                raise ConfigError(
                    f"{name}: --algo={self.algo} has no {name} views with "
                    "these hyperparameters."
                )

    def _build(self, config, num_images):
        """Builds the algorithm of the main stage."""
        used = set()
        networks = {"student": self.network, "teacher": self.teacher}
        initial = self.network.get_weights() if self.pretrained else None
        training = _Training(config, num_images, None, None, initial)

        def new_network():
            network = keras.models.clone_model(self.network)
            if training.initial:
                last = pretrained_lib.leaves(network)[-1]
                head = last.get_weights()
                network.set_weights(training.initial)
                last.set_weights(head)
            return network

        def assemble(config, cls=None, **networks):
            def build_network(role):
                return networks.get(role) or new_network()

            def rebuild(num_steps, cls=cls):
                return assemble(
                    dataclasses.replace(config, num_steps=num_steps), cls
                )

            return build.assemble(
                config,
                cls or self._algorithm_class(),
                build_network,
                functools.partial(self._build_optimizer, config, used),
                num_classes=self.num_classes,
                num_images=num_images,
                rebuild=rebuild,
            )

        try:
            with self.distribute_strategy.scope():
                training.algorithm = assemble(config, **networks)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self._training = training
        self._deploy(training.algorithm.deployable_model)

    def _deploy(self, network):
        """Makes a network the one that predicts."""
        self._training.deployed = network
        # Keras would go on with what it has traced of another network.
        self.test_function = self.predict_function = None

    def _fit_main(
        self, experiment, validation_data, callbacks, verbose, initial_epoch
    ):
        """Trains the main stage; returns its `History`."""
        algorithm, config = experiment.algorithm, experiment.config
        self._deploy(algorithm.deployable_model)
        first = algorithm.finished_steps
        epochs = config.num_steps // config.evaluate_every - initial_epoch
        if not first:
            algorithm.prepare(evaluation.Predictor(experiment))
        watchers = _Watchers(
            [_Logs(experiment, algorithm, validation_data), *(callbacks or [])],
            add_history=True,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            epochs=initial_epoch + epochs,
            steps=config.evaluate_every,
        )
        algorithm.history = watchers._history
        watchers.begin()
        renewed = stage.renewals(experiment, algorithm, config.evaluate_every)
        for first_step, steps, count in stage.segments(
            first,
            first + epochs * config.evaluate_every,
            config.evaluate_every,
            renewed=[config.evaluate_every] if renewed else [],
        ):
            epoch = initial_epoch + (first_step - first) // steps
            for every, renew in renewed:
                # What is due within an epoch waits for the next one.
                if first_step % every < steps:
                    renew()
            algorithm.fit(
                experiment.training_data(algorithm, first_step),
                initial_epoch=epoch,
                epochs=epoch + count,
                steps_per_epoch=steps,
                shuffle=False,
                callbacks=watchers,
            )
            if self.stop_training:
                break
        watchers.end()
        return self.history

    def _fit_later(self, experiment, validation_data, verbose):
        """Trains the stages after the main one."""
        for later in stage.stages(experiment)[1:]:
            algorithm = stage.build_stage(experiment, later)
            self._deploy(algorithm.deployable_model)
            algorithm.prepare(evaluation.Predictor(experiment))
            watchers = _Watchers(
                [_Logs(experiment, algorithm, validation_data)],
                add_progbar=verbose != 0,
                model=self,
                verbose=verbose,
                epochs=1,
                steps=later.num_steps,
            )
            algorithm.history = None
            if verbose:
                print(f"Stage {later.name}")
            watchers.begin()
            algorithm.fit(
                experiment.training_data(
                    algorithm,
                    0,
                    stage.seed_offset(later.name, 0, version=3),
                    later.batch_size,
                ),
                steps_per_epoch=later.num_steps,
                shuffle=False,
                callbacks=watchers,
            )
            watchers.end()

    @property
    def stop_training(self):
        """Whether `fit` is to end after this step; callbacks assign it."""
        training = self.__dict__.get("_training")
        return bool(training) and training.algorithm.stop_training

    @stop_training.setter
    def stop_training(self, value):
        training = self.__dict__.get("_training")
        if training:
            training.algorithm.stop_training = value

    # The trained network.

    def call(self, images, training=False):
        """Logits of the deployable network."""
        return self._deployed()(images, training=training)

    # A method: what a property returns is saved by Keras.
    def _deployed(self):
        """The network that predicts."""
        if self._training:
            return self._training.deployed
        return self._loaded() if self._loaded else self.network

    def get_weights(self):
        """Those of the network that predicts, a list of arrays."""
        return self._deployed().get_weights()

    def set_weights(self, weights):
        """Sets those of the network that predicts.

        `keras.callbacks.EarlyStopping` restores the best ones so. Training goes
        on from what the method has, not from them.
        """
        self._deployed().set_weights(weights)

    def trained_network(self):
        """A copy of the deployable network, named and trainable as the given.

        Returns:
            A Keras model.
        """
        return averaging.trainable_copy(
            self._deployed(), like=self.network, name=self.network.name
        )

    def export(self, folder, formats=()):
        """Writes a SavedModel, see `serving.export_saved_model`.

        Args:
            folder: where to write.
            formats: what to write instead, any of `saved_model`, `onnx`,
                `litert` and `keras`; files get the folder's name and a suffix.
        """
        shape = self.network.input_shape[1:]
        serving.export_network(
            self._deployed(),
            self.class_names,
            folder,
            formats,
            examples=build.example_images(shape),
            decoding=Decoding(shape, 0, 0),
            calibration=Calibration(),
        )

    # Saving. Keras saves what it finds: the network, a teacher and optimizers
    # that were given.

    def get_config(self):
        """What `from_config` makes the same model of."""
        config = {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "teacher": keras.saving.serialize_keras_object(self.teacher),
            "pretrained": self.pretrained,
            "algo": self.algo,
            "class_names": list(self.class_names),
            "seed": self.seed,
            **self.hyperparameters,
        }
        if training := self._training:
            config["trained"] = {
                "config": training.config.to_json(),
                "num_images": training.num_images,
                "has_later_network": training.has_later_network,
            }
        return config

    @classmethod
    def from_config(cls, config):
        """The model that `get_config` describes."""
        config = dict(config)
        trained = config.pop("trained", None)
        for name in ("network", "teacher"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        model = cls(config.pop("network"), **config)
        model._trained = trained
        return model

    def get_compile_config(self):
        """The arguments of `compile`, or None."""
        if not self._optimizers:
            return None
        return keras.saving.serialize_keras_object(
            {
                "optimizer": self._optimizers["student"],
                "teacher_optimizer": self._optimizers.get("teacher"),
                **self._measured,
                **self._options,
            }
        )

    def compile_from_config(self, config):
        """Compiles as before saving, and builds what `fit` had built."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if trained := self._trained:
            self._build(
                config_lib.Config.from_json(trained["config"]),
                trained["num_images"],
            )
            if trained["has_later_network"]:
                self._deploy(averaging.copy_of(self.network))

    def save_own_variables(self, store):
        """Writes the state that Keras does not find."""
        for name, variable in self._own_variables().items():
            store[name] = variable.numpy()
        for number, value in enumerate(self._initial()):
            store[f"initial_{number}"] = value

    def _initial(self):
        return self._training and self._training.initial or []

    def load_own_variables(self, store):
        """Reads what `save_own_variables` has written."""
        if self._trained and not self._training:
            # Loaded with compile=False, which is enough to predict.
            loaded = averaging.copy_of(self.network)
            self._loaded = lambda: loaded
        for name, variable in self._own_variables().items():
            variable.assign(np.asarray(store[name]))
        if initial := self._initial():
            self._training.initial = [
                np.asarray(store[f"initial_{number}"])
                for number in range(len(initial))
            ]

    def _own_variables(self):
        """Name in the file -> variable; the first are those that predict."""
        found = {}
        if self._training or self._loaded:
            for number, variable in enumerate(self._deployed().variables):
                found[f"deployed_{number}"] = variable
        if self._training:
            owners = self.network, self.teacher, *self._optimizers.values()
            seen = {id(v) for owner in owners if owner for v in owner.variables}
            seen |= {id(variable) for variable in found.values()}
            state = self._training.algorithm.state_variables
            for number, variable in enumerate(state):
                if id(variable) not in seen:
                    found[f"training_{number}"] = variable
        return found


class _Watchers(keras.callbacks.CallbackList):
    """The callbacks of a stage, which may be several calls of `fit`."""

    def on_train_begin(self, logs=None):
        """Does nothing, see `begin`."""

    def on_train_end(self, logs=None):
        """Does nothing, see `end`."""

    def begin(self):
        """Tells the callbacks that the stage begins."""
        self.last_logs = None
        super().on_train_begin()

    def on_epoch_end(self, epoch, logs=None):
        """See `keras.callbacks.Callback`."""
        self.last_logs = logs
        super().on_epoch_end(epoch, logs)

    def end(self):
        """Tells the callbacks that the stage has ended."""
        super().on_train_end(self.last_logs)


class _Logs(keras.callbacks.Callback):
    """Completes the metrics that the other callbacks see."""

    def __init__(self, experiment, algorithm, validation_data):
        super().__init__()
        self._experiment = experiment
        self._algorithm = algorithm
        self._validation_data = validation_data

    def on_train_batch_end(self, batch, logs=None):
        """Removes what nothing is known of: pseudo-labels' true labels."""
        for name in _OF_TRUE_LABELS:
            logs.pop(name, None)

    def on_epoch_end(self, epoch, logs=None):
        """Adds `val_loss` and other measures of the deployable network."""
        self.on_train_batch_end(None, logs)
        if self._validation_data is None:
            return
        self._algorithm.prepare_evaluation(
            lambda: iter(self._experiment.training_data(self._algorithm, 0))
        )
        data = self._validation_data
        data = data if isinstance(data, tuple | list) else (data,)
        measured = self.model.evaluate(*data, verbose=0, return_dict=True)
        logs |= {f"val_{name}": value for name, value in measured.items()}


def _one_pass(config, source):
    """The steps of an epoch: once through the images that it is about."""
    labels, size = source.train.labels, config.batch_size
    count = int(np.sum(labels >= 0))
    if config.hyperparameters.uses_unlabeled:
        count, size = len(labels), size * config.unlabeled_batch_ratio
    steps, every = -(-count // size), config.steps_per_execution
    return -(-steps // every) * every


def _check_network(role, network):
    """Raises ConfigError unless it is a classifier from pixels to logits."""
    shape = getattr(network, "input_shape", None) or (None,)
    classes = (getattr(network, "output_shape", None) or (None,))[-1]
    if isinstance(shape, list) or isinstance(classes, tuple):
        found = "it has several inputs or outputs"
    elif None in shape[1:]:
        found = f"its input has the shape {shape[1:]}, which is not fixed"
    else:
        found = custom.problem(network, shape[1:], classes)
    if found:
        raise ConfigError(
            f"{role}: {found}. Expected a functional or sequential Keras model "
            "from pixels in 0...255 to logits."
        )


def _check_callbacks(callbacks):
    """Refuses a callback that restores weights and not the data's step."""
    for callback in callbacks or []:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ConfigError(
                "callbacks: BackupAndRestore does not know which batch comes "
                "next. Use ModelCheckpoint, load its file and call fit with "
                "initial_epoch."
            )


def _model_class(name, algo):
    """The subclass of `SemiSupervisedModel` of a method."""
    text = f"The method `{algo}` as a Keras model, see `SemiSupervisedModel`."
    members = {"method": algo, "__doc__": text, "__module__": __name__}
    return type(name, (SemiSupervisedModel,), members)


_CLASSES = {
    name: _model_class(name, algo) for name, algo in class_names().items()
}
# `from tf_metassl.run.keras_model import MetaSemi`, which Keras does as well
# when it loads one.
globals().update(_CLASSES)
for _cls in (SemiSupervisedModel, *_CLASSES.values()):
    keras.saving.register_keras_serializable(_PACKAGE)(_cls)
