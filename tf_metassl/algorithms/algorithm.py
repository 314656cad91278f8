"""What all methods share, so that a method's own file is its algorithm."""

import dataclasses
import typing
import zlib

import keras
import tensorflow as tf

from tf_metassl import models
from tf_metassl.algorithms.trainer import Trainer
from tf_metassl.contract import Views, view_kind
from tf_metassl.meta import functional
from tf_metassl.ops import (
    augmentation_rates,
    averaging,
    draws,
    remat,
    replicas,
)
from tf_metassl.ops.schedules import linear_ramp


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a run with an algorithm of its own, such as finetuning.

    Attributes:
        name: names the stage in logs and the folder of its checkpoints.
        num_steps: the number of its training steps.
        build: function without arguments that returns the compiled algorithm.
            It is called when the stage before has ended.
        batch_size: labeled images per step; 0 for that of the run.
    """

    name: str
    num_steps: int
    build: typing.Callable[[], "Algorithm"]
    batch_size: int = 0


# Metrics of methods with one loss of labeled and one of unlabeled images.
TWO_LOSSES = (
    "loss",
    "labeled_loss",
    "unlabeled_loss",
    "labeled_accuracy",
    "pseudo_label_accuracy",
    "pseudo_label_entropy",
)


class Algorithm(Trainer):
    """Base of all methods: networks, views, losses and hooks.

    A method defines `views`, `roles`, `metric_names` and either
    `compute_losses(batch)`, if the student is trained on one loss, or
    `train_step(batch)`. The training loop is `keras.Model.fit`; optimizers,
    metrics and step functions are those of the other half,
    `tf_metassl.algorithms.trainer.Trainer`.

    A step sees its replica's part of the global batch. Every loss that a method
    returns or hands to `update` is this replica's share of a mean over the
    global batch (`replicas.share_of_mean`), so that gradients are summed over
    replicas. `apply_gradients` alone takes that sum, adds weight decay, clips
    and runs the optimizer.

    Args:
        networks: role -> built Keras network, uint8 or float images in
            0...255 `[N, H, W, C]` -> float logits `[N, C]`.
        hyperparameters: the method's dataclass.
        num_classes: C.
        num_images: M, the number of training images, which a batch's `index`
            refers to; for methods that store something for each image.
        seed: seed of the draws that the method makes itself, see `draw`.
        rebuild: function `rebuild(num_steps, cls=None)` that builds another
            compiled algorithm with the same settings on new networks, for a
            later stage of `num_steps` steps. `cls` is its class if it differs.
            Methods with later stages on new networks need it.
        elapsed: scalar variable in [0, 1], the used share of the run's time
            budget; None without a budget. The training loop assigns it,
            learning-rate schedules read it.
        class_weights: `[C]` floats, the weights of the classes in the labeled
            loss, see `class_weighted`; None: all have the weight 1.
        ctaugment: whether the magnitudes of strong views are learned
            (`--strong_augmentation=ctaugment`).
        name: name of the Keras model.

    Raises:
        ValueError: if `networks` are not those of `roles`.
    """

    roles = ("student",)
    # Whether the method needs `student_and_features`, see
    # `tf_metassl.models.features`.
    reads_features = False
    # Whether the moving statistics of the averaged student's batch norm are
    # averages of the student's; else the method moves them itself.
    averages_statistics = True

    def __init__(
        self,
        *,
        networks,
        hyperparameters,
        num_classes,
        num_images=0,
        seed=0,
        rebuild=None,
        elapsed=None,
        class_weights=None,
        ctaugment=False,
        name=None,
    ):
        super().__init__(name=name)
        if set(networks) != set(self.roles):
            raise ValueError(
                f"{type(self).__name__} trains the networks "
                f"{', '.join(self.roles)}; got {', '.join(networks)}."
            )
        self.hyperparameters = hyperparameters
        self.num_classes = num_classes
        self.num_images = num_images
        self.rebuild = rebuild
        self.elapsed = elapsed
        # A tuple, because Keras would wrap a list in one of its own.
        self.class_weights = (
            None if class_weights is None else tuple(map(float, class_weights))
        )
        self._seed = seed
        for role in self.roles:
            setattr(self, role, networks[role])
        if self.reads_features:
            self.student_and_features = models.features(self.student)
        self.ema = None
        self.learned_rates = self.drawn_rates = None
        if ctaugment:
            self.create_rates()
        self.build_averages()
        self.create_metrics()
        self._micro_batch = 0
        self.built = True

    # What a method defines.

    @classmethod
    def build_networks(cls, build, num_classes):
        """Builds the network of every role.

        Args:
            build: function of a role that returns a built image classifier.
            num_classes: C, for networks that are no image classifiers.

        Returns:
            Role -> network.
        """
        del num_classes
        return {role: build(role) for role in cls.roles}

    @property
    def views(self):
        """The views of each image that `train_step` reads, a `Views`."""
        return Views()

    def compute_losses(self, batch):
        """The loss of a method that trains one network on one loss.

        Args:
            batch: see `tf_metassl.contract`.

        Returns:
            A scalar, this replica's share.
        """
        raise NotImplementedError

    def train_step(self, batch):
        """Takes one optimizer step of the student on `compute_losses`.

        With several micro-batches their gradients are summed first. The result
        is that of the whole batch, except that batch norm takes its statistics
        from one micro-batch at a time.

        With `sam_rho` the gradient is that at the parameters of a higher loss,
        see `_sharpness_aware`.
        """
        state = self._state_of_losses()
        before = [tf.identity(variable.value) for variable in state]
        total, gradients = self._loss_and_gradients(batch)
        if self._sam_rho:
            gradients = self._sharpness_aware(batch, gradients, state, before)
        self.apply_gradients("student", gradients)
        self.update_ema()
        self.track_share("loss", total)
        return {}

    def _loss_and_gradients(self, batch):
        """This replica's shares of the loss of `batch` and of its gradient."""
        total, gradients = 0.0, []
        for part in self._split(batch):
            # Without the dependency the activations of all micro-batches would
            # be in memory at once.
            with tf.control_dependencies(gradients):
                with tf.GradientTape() as tape:
                    loss = self.compute_losses(part) / self._micro_batches
                new = self.gradients("student", tape, loss)
                if gradients:
                    new = [a + b for a, b in zip(gradients, new, strict=True)]
                gradients = new
                total += loss
        return total, gradients

    def _state_of_losses(self):
        """The variables that `compute_losses` may change, a list.

        Batch-norm averages, dropout's random states and what the method
        remembers; not the averaged student, which is updated after the step,
        unless its batch norm has statistics of its own. Empty without
        `sam_rho`, which alone needs it.
        """
        if not self._sam_rho:
            return []
        is_fixed = self.ema is not None and self.averages_statistics
        averaged = {id(v) for v in self.ema.variables} if is_fixed else set()
        return [
            v for v in self.non_trainable_variables if id(v) not in averaged
        ]

    def _sharpness_aware(self, batch, gradients, state, before):
        """The gradient of the batch at perturbed parameters.

        The perturbation is rho * g / |g|, g the gradient over the global
        batch, all-reduced, so that a step does not depend on the number of
        replicas; the paper's code has one perturbation per replica. Weight
        decay is no part of g, as in equation 1 of the paper. The second pass
        has the draws of the first, and only the first changes batch-norm
        averages, what the method remembers and the metrics.

        Source: Foret, Kleiner, Mobahi, Neyshabur, arXiv 2010.01412, equations 2
        and 3.

        Args:
            batch: this replica's batch.
            gradients: its share of the gradient at the parameters themselves.
            state: the variables that `compute_losses` may change.
            before: their values before that gradient was computed.

        Returns:
            This replica's share of the gradient, in the same order.
        """
        variables = self.trained_variables("student")
        direction = replicas.sum_over_replicas(gradients)
        scale = self._sam_rho / (tf.linalg.global_norm(direction) + 1e-12)
        with tf.control_dependencies(gradients):
            after = [tf.identity(variable.value) for variable in state]
            params = [tf.identity(variable.value) for variable in variables]
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)
        for variable, value, g in zip(
            variables, params, direction, strict=True
        ):
            variable.assign(value + tf.cast(scale, g.dtype) * g)
        self.tracks = False
        _, gradients = self._loss_and_gradients(batch)
        self.tracks = True
        with tf.control_dependencies(gradients):
            for variable, value in zip(
                [*state, *variables], [*after, *params], strict=True
            ):
                variable.assign(value)
        return gradients

    # Whether a pseudo-label is either selected or not, so that the metric
    # `selected_share` counts images; False if it is a mean weight.
    selects_whole_images = True

    @property
    def has_one_loss(self):
        """Whether a step is one gradient of `compute_losses`.

        False for methods that define a `train_step` of their own, and those
        with a later stage that does.
        """
        return type(self).train_step is Algorithm.train_step

    @property
    def can_accumulate(self):
        """Whether a step may be computed as a sum over micro-batches.

        True for methods that define `compute_losses` alone: a meta step
        compares every unlabeled image with all labeled ones. A method whose
        loss of an image depends on the other images of the batch, through a
        threshold or a divisor, overrides this with False.
        """
        return self.has_one_loss

    def build_averages(self):
        """Builds the moving averages of the student, right after `roles`."""
        if self.hyperparameters.ema_decay:
            self.ema = averaging.copy_of(self.student, name="ema")

    @property
    def training_networks(self):
        """The networks that a step differentiates, for `--remat`; a list.

        Small heads are left out, because recomputing them saves no memory.
        """
        networks = [getattr(self, role) for role in self.roles]
        if self.reads_features:
            networks.append(self.student_and_features)
        return networks

    def later_stages(self):
        """The stages after the main one, a list of `Stage`."""
        return []

    def trained_variables(self, role):
        """The variables that the optimizer of `role` trains, in a fixed order.

        A method with further heads on a network appends their variables.
        """
        return list(getattr(self, role).trainable_variables)

    def prepare(self, predict):
        """Called once, before the first step of a stage.

        For what is computed once for all images, such as the predictions of a
        frozen teacher. Store it in variables of the algorithm: these are part
        of every checkpoint, and a resumed run does not call this method.

        Args:
            predict: a `tf_metassl.run.evaluation.Predictor`: a function of a
                network that returns its logits `[M, C]` float32 in inference
                mode on every training image, by row; its method
                `probabilities` returns calibrated probabilities, its attribute
                `unlabeled` the rows of the unlabeled pool.
        """

    def prepare_evaluation(self, batches):
        """Called before every evaluation.

        Args:
            batches: function without arguments that returns an endless
                iterator over training batches, the same in every call.
        """

    @property
    def augmentation_rates(self):
        """CTAugment's rates that the pipeline draws with, a variable, or None.

        See `tf_metassl.ops.augmentation_rates`. The pipeline prepares batches
        in advance. It reads this variable every `--ctaugment_every` steps only,
        because with rates that changed at every step the batches would depend
        on its speed. The variable differs from the one that steps update, so
        that a run that is resumed in between draws with the same rates.
        """
        return self.drawn_rates if self._learns_rates else None

    @property
    def _learns_rates(self):
        """Whether CTAugment's rates are learned and views are drawn by them.

        The main stage of a method may have no strong views, but a later one.
        """
        views = self.views.labeled + self.views.unlabeled
        kinds = set(map(view_kind, views))
        return self.drawn_rates is not None and bool(
            kinds & {"strong", "ctaugment"}
        )

    def refresh_augmentation_rates(self):
        """Called every `--ctaugment_every` steps: publishes the rates."""
        if self._learns_rates:
            self.drawn_rates.assign(
                tf.convert_to_tensor(self.learned_rates.value)
            )

    @property
    def batch_views(self):
        """The views that a batch has: `views`, and probes to rate magnitudes.

        A probe is an augmented labeled image, see `training_step`.
        """
        views = self.views
        if not self._learns_rates:
            return views
        return dataclasses.replace(views, labeled=(*views.labeled, "probe"))

    def training_step(self, batch):
        """`train_step`, then an update of CTAugment's rates with its result.

        The rates are updated by how well the deployable network recognizes the
        probes in inference mode.
        """
        results = self.train_step(batch)
        if self._learns_rates:
            self._update_rates(batch["labeled"])
        return results

    def create_rates(self):
        """Creates CTAugment's rates, those that are learned and drawn with."""
        rates = augmentation_rates.initial()
        for name in ("learned_rates", "drawn_rates"):
            variable = self.state_variable(
                name, tuple(rates.shape), dtype="float32"
            )
            variable.assign(rates)
            setattr(self, name, variable)

    def _update_rates(self, labeled):
        """Updates the rates of the bins that the probes were drawn from."""
        probs = tf.nn.softmax(
            self.deployable_model(labeled["probe"], training=False)
        )
        distance = tf.abs(probs - self.one_hot(labeled["label"]))
        proximity = 1.0 - 0.5 * tf.reduce_sum(distance, axis=-1)  # [B]
        self.learned_rates.assign(
            augmentation_rates.update(
                self.learned_rates.value,
                replicas.all_rows(labeled["probe_op"]),
                replicas.all_rows(labeled["probe_bin"]),
                replicas.all_rows(tf.cast(proximity, tf.float32)),
            )
        )

    def select_unlabeled(self, rows):
        """The rows of the unlabeled pool that this stage trains on.

        Called after `prepare`, or after a checkpoint has been restored.

        Args:
            rows: `[M_u]` integers, the unlabeled pool.

        Returns:
            Integers; a row may occur several times.
        """
        return rows

    @property
    def round_length(self):
        """Steps between two calls of `begin_round`; 0 if it is not called."""
        return 0

    def begin_round(self, predict):
        """Called before the first step and then every `round_length` steps.

        For what is computed of all images every now and then, such as a
        clustering of their features. Store it in variables, and let it depend
        on nothing but the variables and `finished_steps`: a run that is
        resumed at the start of a round calls this method again.

        In a Keras model, rounds begin with the first epoch after these steps.

        Args:
            predict: as for `prepare`.
        """

    # What a method uses.

    @property
    def deployable_model(self):
        """The network to export: the averaged student if there is one."""
        return self.student if self.ema is None else self.ema

    @property
    def evaluated_networks(self):
        """Name -> network, for evaluation and the final table."""
        networks = {role: getattr(self, role) for role in self.roles}
        if self.ema is not None:
            networks["ema"] = self.ema
        return networks

    def one_hot(self, label):
        """`[N]` integer labels -> `[N, C]` one-hot rows."""
        return tf.one_hot(label, self.num_classes, dtype=keras.config.floatx())

    def class_weighted(self, losses, label):
        """Weights the losses of labeled images by their classes.

        Every method applies it to its labeled loss, for --class_balance=loss.

        Args:
            losses: `[N]`.
            label: `[N, C]` distributions over classes, not smoothed. A mixture
                has the mean weight of its classes.

        Returns:
            `[N]`: loss * sum_c label_c class_weight_c; no gradient flows to
            `label`. `losses` themselves if no class weights are set.
        """
        if self.class_weights is None:
            return losses
        weights = tf.constant(self.class_weights, losses.dtype)
        return losses * tf.stop_gradient(tf.linalg.matvec(label, weights))

    @staticmethod
    def forward(network, *image_groups):
        """Runs several groups of images as one batch-norm batch.

        Args:
            network: a Keras network.
            *image_groups: `[N_i, H, W, C]` each, of one dtype.

        Returns:
            The logits `[N_i, C]` of each group in training mode, a list; a
            tensor if there is one group. For a network with several outputs, a
            list with one such result per output.
        """
        images = tf.concat(image_groups, axis=0)
        if remat.is_on(network):
            outputs, new_state = functional.call(
                network,
                functional.parameters(network),
                functional.state(network),
                images,
            )
            functional.assign_state(network, new_state)
        else:
            outputs = network(images, training=True)
        if len(image_groups) == 1:
            return outputs
        sizes = [group.shape[0] for group in image_groups]
        if tf.is_tensor(outputs):
            return tf.split(outputs, sizes)
        return [tf.split(output, sizes) for output in outputs]

    def ramped(self, weight, ramp_steps, ramp=linear_ramp):
        """The weight of a loss at this step, a scalar.

        Args:
            weight: the final weight.
            ramp_steps: the steps until it is reached; 0 for at once.
            ramp: the shape, a function of `tf_metassl.ops.schedules`.
        """
        risen = ramp(self.step, ramp_steps)
        return weight * tf.cast(risen, keras.config.floatx())

    def state_variable(self, name, shape, value=0.0, dtype=None):
        """Creates a variable that no optimizer trains.

        It is part of every checkpoint. Assign the same value to it on every
        replica.

        Args:
            name: name of the variable.
            shape: a tuple.
            value: the initial value of all elements.
            dtype: dtype of the variable; Keras' float type if None.

        Returns:
            A Keras variable.
        """
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            trainable=False,
        )

    def draw(self, sample, shape, name):
        """This replica's rows of a random draw for the whole batch.

        The draw is a function of seed, step and name, so that it is the same
        after a resume and on any number of replicas.

        Args:
            sample: a function of a shape and a seed, of
                `tf_metassl.ops.draws`.
            shape: shape of this replica's rows, `[N, ...]`.
            name: distinguishes the draws of one step.

        Returns:
            A tensor of that shape.
        """
        shares = replicas.count() * self._micro_batches
        values = self.draw_for_all(
            sample, [shares * shape[0], *shape[1:]], name
        )
        if shares == 1:
            return values
        share = self._micro_batch + replicas.replica_id() * self._micro_batches
        return tf.gather(tf.reshape(values, [shares, *shape]), share)

    def draw_for_all(self, sample, shape, name):
        """A random draw, the same on every replica; see `draw`."""
        key = tf.constant([self._seed & 0x7FFFFFFF, zlib.crc32(name.encode())])
        return sample(shape, draws.fold_step(key, self.step))

    def update_ema(self):
        """Moves the averaged student; call it after the student's update."""
        if self.ema is None:
            return
        # The optimizer has counted this update already.
        decay = averaging.ramped_decay(
            self.hyperparameters.ema_decay,
            self._optimizers["student"].iterations.value - 1,
        )
        averaging.update(
            self.ema,
            self.student,
            decay,
            statistics=self.averages_statistics,
        )

    def _split(self, batch):
        """Yields the micro-batches of this replica's batch, in order."""
        parts = self._micro_batches
        for index in range(parts):
            self._micro_batch = index

            def rows(values, index=index):
                size = values.shape[0] // parts
                return values[index * size : (index + 1) * size]

            yield batch if parts == 1 else tf.nest.map_structure(rows, batch)


def float_images(images):
    """uint8 images as floats in 0...255, so that they can be mixed."""
    return tf.cast(images, keras.config.floatx())
