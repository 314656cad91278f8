"""What every method shares, so that its own file holds only its algorithm."""

import dataclasses
import typing
import zlib

import keras
import tensorflow as tf

from tf_metassl import models
from tf_metassl.contract import Views
from tf_metassl.meta import functional
from tf_metassl.ops import averaging, draws, remat
from tf_metassl.ops.metrics import ClassEntropy, ConfusionMatrix, in_top_5
from tf_metassl.ops.schedules import linear_ramp


@dataclasses.dataclass(frozen=True)
class Stage:
    """A further training after the main one, such as finetuning.

    Attributes:
        name: used in logs and for the stage's checkpoint folder.
        num_steps: how long it lasts.
        build: makes the compiled algorithm, called when the stage before it
            has ended.
    """

    name: str
    num_steps: int
    build: typing.Callable[[], "Algorithm"]


# What methods report that have one loss of labeled and one of unlabeled images.
TWO_LOSSES = (
    "loss",
    "labeled_loss",
    "unlabeled_loss",
    "labeled_accuracy",
    "pseudo_label_accuracy",
    "pseudo_label_entropy",
)


class Algorithm(keras.Model):
    """Base of all methods: networks, optimizers, metrics, evaluation.

    A method defines `views`, `roles`, `metric_names` and either
    `compute_losses(batch)`, if the student is trained on one loss, or
    `train_step(batch)`. It never asks how many replicas there are: every loss
    that it hands to `update` is normalized by the global batch, through
    `mean`, so that gradients are summed over replicas. That sum, weight decay,
    clipping and the optimizer's step happen in `apply_gradients` alone.

    Not for training loops: those belong to `keras.Model.fit`, which runs
    `train_step` under whatever strategy the algorithm was built in.

    Args:
        networks: role -> built Keras network, uint8 or float images in
            0...255 `[N, H, W, C]` -> float logits `[N, C]`.
        hyperparameters: the method's dataclass.
        num_classes: C.
        num_images: M, the rows that a batch's `index` counts; for methods that
            remember something of each image.
        seed: of the draws that a method makes itself, see `draw`.
    """

    roles = ("student",)
    metric_names = ("loss", "labeled_accuracy")
    # Whether there is `student_and_features`, of `tf_metassl.models.features`.
    reads_features = False

    def __init__(
        self,
        *,
        networks,
        hyperparameters,
        num_classes,
        num_images=0,
        seed=0,
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
        self._seed = seed
        for role in self.roles:
            setattr(self, role, networks[role])
        if self.reads_features:
            self.student_and_features = models.features(self.student)
        self.ema = None
        self.build_averages()
        self._trackers = {
            metric: keras.metrics.Mean(name=metric)
            for metric in self.metric_names
        }
        if "pseudo_label_entropy" in self._trackers:
            self._trackers["pseudo_label_entropy"] = ClassEntropy(
                num_classes, name="pseudo_label_entropy"
            )
        self._confusions = {
            role: ConfusionMatrix(num_classes, name=role)
            for role in self.evaluated_networks
        }
        # Of few classes the five likeliest say little.
        self._top_5 = {}
        if num_classes >= 100:
            self._top_5 = {
                role: keras.metrics.Mean(name=f"{role}_top_5_accuracy")
                for role in self.evaluated_networks
            }
        self._optimizers = {}
        self._micro_batches = 1
        self._micro_batch = 0
        # `rebuild(num_steps, cls=None)`: another compiled algorithm with the
        # same settings on fresh networks, for a later stage of that length; of
        # class `cls` if that is another. Set by whoever built this one.
        self.rebuild = None
        # The share of a time budget that is used up, a variable that whoever
        # holds the clock keeps; None without a budget.
        self.elapsed = None
        # Labeled images per step of a later stage with a batch of its own.
        self.batch_size = 0
        self.built = True

    # What a method defines.

    @classmethod
    def build_networks(cls, build, num_classes):
        """Builds the network of every role.

        Args:
            build: role -> a built classifier of images.
            num_classes: C, for networks of another kind.

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
        """The loss of a method with one network and one level.

        Args:
            batch: see `tf_metassl.contract`.

        Returns:
            A scalar, normalized by `mean`.
        """
        raise NotImplementedError

    def train_step(self, batch):
        """One optimizer step of the student on `compute_losses`.

        With several micro-batches their gradients are summed first. That is
        the step on the whole batch, but for batch norm, which takes its
        statistics from one micro-batch at a time.
        """
        total, gradients = 0.0, []
        for part in self._split(batch):
            # Not before the last gradients are there, or the activations of
            # all micro-batches would be alive at once.
            with tf.control_dependencies(gradients):
                with tf.GradientTape() as tape:
                    loss = self.compute_losses(part) / self._micro_batches
                new = self.gradients("student", tape, loss)
                if gradients:
                    new = [a + b for a, b in zip(gradients, new, strict=True)]
                gradients = new
                total += loss
        self.apply_gradients("student", gradients)
        self.update_ema()
        self.track("loss", total * self.num_replicas)
        return {}

    @property
    def can_accumulate(self):
        """Whether a step is a sum over micro-batches.

        It is for methods with `compute_losses` alone. In a meta step every
        image is judged by all labeled ones at one point, and what is summed
        next depends on that. A method whose loss of an image depends on the
        others of its batch, through a threshold or a divisor, says False.
        """
        return type(self).train_step is Algorithm.train_step

    def build_averages(self):
        """Makes the networks that follow the student, before anything else."""
        if self.hyperparameters.ema_decay:
            self.ema = averaging.copy_of(self.student, name="ema")

    @property
    def training_networks(self):
        """Every network that a step differentiates as a whole, a list.

        Small heads are not among them: there is nothing to save.
        """
        networks = [getattr(self, role) for role in self.roles]
        if self.reads_features:
            networks.append(self.student_and_features)
        return networks

    def later_stages(self):
        """Stages that follow the main training, a list of `Stage`."""
        return []

    def trained_variables(self, role):
        """What the optimizer of `role` trains, in a fixed order.

        A method with further heads on a network adds their variables here.
        """
        return list(getattr(self, role).trainable_variables)

    def prepare(self, predict):
        """Called once, before the first step of a stage.

        For what is computed once over all images, such as a frozen teacher's
        predictions. Whatever it leaves in the algorithm's variables is part of
        every checkpoint, so that a resumed run does not compute it again.

        Args:
            predict: function of a network, returns its logits `[M, C]` float32
                in inference mode on every training image, by row.
        """

    def prepare_evaluation(self, batches):
        """Called before every evaluation.

        Args:
            batches: function without arguments that returns an endless
                iterator of training batches, always the same.
        """

    @property
    def augmentation_rates(self):
        """CTAugment's rates that the pipeline draws with, a variable, or None.

        See `tf_metassl.ops.augmentation_rates`. The pipeline works ahead, so
        that rates which change with every step would make batches depend on its
        speed: it keeps to these until `refresh_augmentation_rates`. They are a
        variable other than the one that the method updates, since a run may be
        resumed between two evaluations.
        """
        return None

    def refresh_augmentation_rates(self):
        """Called at every evaluation: takes over the rates learned so far."""

    def select_unlabeled(self, rows):
        """The rows of the unlabeled pool that this stage trains on.

        Called when `prepare` has been or a checkpoint is restored.

        Args:
            rows: `[M_u]` integers, the unlabeled pool.

        Returns:
            Integers; a row may occur several times.
        """
        return rows

    # What a method uses.

    @property
    def step(self):
        """The number of finished training steps, an integer tensor.

        The student's optimizer counts them: within a step, once it has been
        applied, this step is among them.
        """
        return self.optimizer.iterations.value

    @property
    def finished_steps(self):
        """The number of finished training steps, outside of a step."""
        return int(self.step.numpy())

    @property
    def num_replicas(self):
        """The number of replicas that share the global batch."""
        return self.distribute_strategy.num_replicas_in_sync

    @property
    def deployable_model(self):
        """The network that is exported: the average if there is one."""
        return self.student if self.ema is None else self.ema

    @property
    def evaluated_networks(self):
        """Name -> network, for evaluation and the final table."""
        networks = {role: getattr(self, role) for role in self.roles}
        if self.ema is not None:
            networks["ema"] = self.ema
        return networks

    @property
    def state_variables(self):
        """Everything that training changes, in a fixed order.

        A list rather than the object itself, because TensorFlow does not
        follow Keras objects to the random states of dropout layers.
        """
        variables = list(self.variables)
        for optimizer in self._optimizers.values():
            variables.extend(optimizer.variables)
        return variables

    def one_hot(self, label):
        """`[N]` integer labels -> `[N, C]` one-hot rows."""
        return tf.one_hot(label, self.num_classes, dtype=keras.config.floatx())

    @staticmethod
    def forward(network, *image_groups):
        """Runs several groups of images as one batch-norm batch.

        Args:
            network: a Keras network.
            *image_groups: `[N_i, H, W, C]` each, of one dtype.

        Returns:
            The logits `[N_i, C]` of each group, in training mode; a single
            tensor for a single group. A network with several outputs gives a
            list of that for each.
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

    def mean(self, values):
        """This replica's share of a mean over the global batch.

        Args:
            values: `[N]`, one value per example of this replica.

        Returns:
            A scalar; its sum over replicas is the mean over all examples.
        """
        return tf.reduce_mean(values) / self.num_replicas

    def ramped(self, weight, ramp_steps, ramp=linear_ramp):
        """A loss's weight at this step, a scalar.

        Args:
            weight: what it rises to.
            ramp_steps: over how many steps; 0 is at once.
            ramp: the shape, a function out of `tf_metassl.ops.schedules`.
        """
        risen = ramp(self.step, ramp_steps)
        return weight * tf.cast(risen, keras.config.floatx())

    def state_variable(self, name, shape, value=0.0, dtype=None):
        """A variable that no optimizer trains; part of every checkpoint.

        Args:
            name: of the variable.
            shape: a tuple.
            value: what all of its elements start as.
            dtype: of the variable; Keras' float type if None.

        Returns:
            A Keras variable. Assign the same value to it on every replica.
        """
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            trainable=False,
        )

    @staticmethod
    def average(variable, value, decay):
        """Assigns decay * variable + (1 - decay) * value to the variable."""
        decay = tf.cast(decay, variable.dtype)
        value = tf.cast(value, variable.dtype)
        variable.assign(decay * variable.value + (1.0 - decay) * value)

    def global_mean(self, values):
        """The mean over the global batch, the same on every replica.

        Args:
            values: `[N, ...]`, this replica's rows.

        Returns:
            `[...]`.
        """
        total = self.replica_sum(tf.reduce_mean(values, axis=0))
        return total / self.num_replicas

    def replica_sum(self, values):
        """Sums a tensor, or a list of tensors, over replicas."""
        if self.num_replicas == 1:
            return values
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    def all_rows(self, values):
        """Puts the rows of all replicas together, in the order of the batch.

        Args:
            values: `[N, ...]`, this replica's rows.

        Returns:
            `[N * replicas, ...]`, the same on every replica. Not for
            differentiation.
        """
        if self.num_replicas == 1:
            return values
        # A sum, because it exists under every strategy and XLA; integers of
        # any size stay exact in their own type.
        context = tf.distribute.get_replica_context()
        is_own = tf.one_hot(
            context.replica_id_in_sync_group,
            self.num_replicas,
            dtype=values.dtype,
        )
        is_own = tf.reshape(is_own, [-1, *[1] * values.shape.rank])
        total = self.replica_sum(is_own * values[None])
        return tf.reshape(total, [-1, *values.shape[1:]])

    def write_rows(self, table, index, values):
        """Writes rows of a per-image table, the same on every replica.

        Args:
            table: variable `[num_images, ...]`.
            index: `[N]` int64, this replica's rows of it. If a row occurs
                twice in the batch, where an epoch ends inside it, its first
                value counts.
            values: `[N, ...]`.
        """
        index, values = self.all_rows(index), self.all_rows(values)
        place = tf.range(index.shape[0])
        same = index[:, tf.newaxis] == index
        first = tf.reduce_min(tf.where(same, place, index.shape[0]), axis=1)
        # Equal rows get equal values, so that their order does not matter.
        table.assign(
            tf.tensor_scatter_nd_update(
                tf.convert_to_tensor(table.value),
                index[:, tf.newaxis],
                tf.gather(values, first),
            )
        )

    def draw(self, sample, shape, name):
        """This replica's rows of a random draw for the whole batch.

        The draw is a function of seed, step and name alone, so that it is the
        same after a resume and on any number of replicas.

        Args:
            sample: a function of a shape and a seed out of
                `tf_metassl.ops.draws`.
            shape: of this replica's rows, `[N, ...]`.
            name: tells the draws of one step apart.

        Returns:
            A tensor of that shape.
        """
        key = tf.constant([self._seed & 0x7FFFFFFF, zlib.crc32(name.encode())])
        shares = self.num_replicas * self._micro_batches
        values = sample(
            [shares * shape[0], *shape[1:]], draws.fold_step(key, self.step)
        )
        if shares == 1:
            return values
        share = self._micro_batch
        if self.num_replicas > 1:
            context = tf.distribute.get_replica_context()
            replica = context.replica_id_in_sync_group
            share += replica * self._micro_batches
        return tf.gather(tf.reshape(values, [shares, *shape]), share)

    def update(self, role, tape, loss):
        """Differentiates `loss` and takes one optimizer step of `role`."""
        self.apply_gradients(role, self.gradients(role, tape, loss))

    def gradients(self, role, tape, loss):
        """This replica's share of the gradient of what `role` trains."""
        values = [v.value for v in self.trained_variables(role)]
        gradients = tape.gradient(loss, values)
        return [
            tf.zeros_like(value) if g is None else g
            for g, value in zip(gradients, values, strict=True)
        ]

    def apply_gradients(self, role, gradients):
        """Weight decay, sum over replicas, clipping, optimizer step.

        Args:
            role: whose parameters to update.
            gradients: this replica's share of the gradient, in the order of
                `trained_variables`; None counts as zero.
        """
        variables = self.trained_variables(role)
        gradients = [
            tf.zeros_like(v.value) if g is None else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        replicas = self.num_replicas
        if self._weight_decay and not self._decoupled_weight_decay:
            gradients = [
                g + self._weight_decay / replicas * v.value if decays(v) else g
                for g, v in zip(gradients, variables, strict=True)
            ]
        if self._gradient_clip_norm:
            total = self.replica_sum(gradients)
            total, _ = tf.clip_by_global_norm(total, self._gradient_clip_norm)
            gradients = [g / replicas for g in total]
        optimizer = self._optimizers[role]
        # Of this step: `apply` counts it.
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        # Keras optimizers sum gradients over replicas themselves.
        optimizer.apply(gradients, variables)
        if self._decoupled_weight_decay:
            kept = 1.0 - self._weight_decay * rate
            for v in filter(decays, variables):
                v.assign(v.value * tf.cast(kept, v.dtype))

    def update_ema(self):
        """Moves the averaged student; call it after the student's update."""
        if self.ema is None:
            return
        # The optimizer has counted this update already.
        decay = averaging.ramped_decay(
            self.hyperparameters.ema_decay,
            self._optimizers["student"].iterations.value - 1,
        )
        averaging.update(self.ema, self.student, decay)

    def track(self, name, values, weight=None):
        """Adds `values` to the running mean called `name`.

        Args:
            name: one of `metric_names`.
            values: scalar or `[N]`.
            weight: None or `[N]`; rows with weight 0 do not count.
        """
        self._trackers[name].update_state(values, sample_weight=weight)

    def track_labeled(self, label, logits):
        """Tracks `labeled_accuracy` of `logits [N, C]` for `label [N]`."""
        self.track("labeled_accuracy", is_correct(label, logits))

    def track_pseudo_labels(self, oracle_label, pseudo_label, selected=None):
        """Tracks `pseudo_label_entropy` and `pseudo_label_accuracy`.

        The first is that of the classes of all pseudo-labels, the second
        counts where the true label is known.

        Args:
            oracle_label: `[N]` integers, -1 where unknown.
            pseudo_label: `[N, C]`.
            selected: None or `[N]`; with it, only selected examples count and
                the name is `selected_pseudo_label_accuracy`.
        """
        self._trackers["pseudo_label_entropy"].update_state(pseudo_label)
        known = tf.cast(oracle_label >= 0, tf.float32)
        correct = is_correct(oracle_label, pseudo_label)
        self.track("pseudo_label_accuracy", correct, known)
        if selected is not None:
            self.track(
                "selected_pseudo_label_accuracy",
                correct,
                known * tf.cast(selected > 0, tf.float32),
            )

    # What Keras calls.

    def compile(
        self,
        *,
        optimizers,
        weight_decay=0.0,
        decoupled_weight_decay=False,
        gradient_clip_norm=0.0,
        jit_compile=False,
        steps_per_execution=1,
        gradient_accumulation_steps=1,
        recompute=False,
    ):
        """Attaches one optimizer per role and creates all of their slots.

        Args:
            optimizers: role -> Keras optimizer without weight decay or
                clipping of its own.
            weight_decay: w in gradient + w * parameter, on kernels alone.
            decoupled_weight_decay: instead multiply kernels by
                1 - w * learning rate after the step, as MixMatch's code does.
            gradient_clip_norm: bound on the global norm of the gradient, after
                weight decay; 0 switches it off.
            jit_compile: compile the step with XLA.
            steps_per_execution: steps per call of the compiled function.
            gradient_accumulation_steps: micro-batches that a step is divided
                into, so that only one has its activations in memory.
            recompute: compute activations again for the gradient, see
                `tf_metassl.ops.remat`.

        Raises:
            ValueError: if the optimizers are not those of the roles, or the
                method or network cannot do what is asked for.
        """
        if set(optimizers) != set(self.roles):
            raise ValueError(
                f"{type(self).__name__} needs an optimizer for each of "
                f"{', '.join(self.roles)}; got {', '.join(optimizers)}."
            )
        super().compile(
            optimizer=optimizers["student"],
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
        )
        if gradient_accumulation_steps > 1 and not self.can_accumulate:
            raise ValueError(
                f"--gradient_accumulation_steps={gradient_accumulation_steps}: "
                f"the step of {type(self).__name__} is not a sum over "
                "micro-batches. Use --remat, or a smaller --batch_size."
            )
        self._micro_batches = gradient_accumulation_steps
        if recompute:
            for network in self.training_networks:
                remat.switch_on(network)
        self._optimizers = dict(optimizers)
        self._weight_decay = weight_decay
        self._decoupled_weight_decay = decoupled_weight_decay
        self._gradient_clip_norm = gradient_clip_norm
        for role, optimizer in optimizers.items():
            # Slots that appear with the first step are lost on a restore.
            optimizer.build(self.trained_variables(role))
            setattr(self, f"{role}_optimizer", optimizer)

    def call(self, images, training=False):
        """Logits of the deployable network."""
        return self.deployable_model(images, training=training)

    def test_step(self, batch):
        """Adds an evaluation batch to what is counted of every network."""
        label, mask = batch["label"], batch["mask"]
        for role, network in self.evaluated_networks.items():
            logits = network(batch["image"], training=False)
            self._confusions[role].update_state(label, logits, mask)
            if self._top_5:
                self._top_5[role].update_state(
                    in_top_5(label, logits), sample_weight=mask
                )
        return {}

    def evaluate(self, *args, **kwargs):
        """See `keras.Model.evaluate`.

        It runs one batch per call, however many training runs: Keras would
        take only every `steps_per_execution`-th batch to our function.
        """
        training = self.steps_per_execution
        self.steps_per_execution = 1
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.steps_per_execution = training

    def confusion(self, role):
        """The `[C, C]` counts of the last evaluation of network `role`."""
        return self._confusions[role].counts.numpy()

    @property
    def metrics(self):
        """All trackers, in the one place where Keras resets them."""
        return [*self._trackers.values(), *self._evaluators]

    @property
    def _evaluators(self):
        return [*self._confusions.values(), *self._top_5.values()]

    @property
    def train_metrics(self):
        """The trackers of training, which `fit` resets at every epoch."""
        return list(self._trackers.values())

    def make_train_function(self, force=False):
        """Builds the function that `fit` calls; see `_step_function`."""
        if self.train_function is None or force:
            self.train_function = self._step_function(
                self.train_step, self.train_metrics, self.steps_per_execution
            )
        return self.train_function

    def make_test_function(self, force=False):
        """Builds the function that `evaluate` calls; see `_step_function`."""
        if self.test_function is None or force:
            self.test_function = self._step_function(
                self.test_step, self._evaluators, 1
            )
        return self.test_function

    def _split(self, batch):
        """Yields the micro-batches of this replica's batch, in order."""
        parts = self._micro_batches
        for index in range(parts):
            self._micro_batch = index

            def rows(values, index=index):
                size = values.shape[0] // parts
                return values[index * size : (index + 1) * size]

            yield batch if parts == 1 else tf.nest.map_structure(rows, batch)

    def _step_function(self, step, metrics, steps_per_execution):
        """Runs `step` over the strategy, then reads the metrics' results.

        Keras' own function reduces what the step returns over replicas, which
        breaks under several workers; metric variables know how to be read.
        """
        strategy = self.distribute_strategy
        if self.jit_compile:
            step = tf.function(step, jit_compile=True)

        @tf.function(reduce_retracing=True)
        def run_steps(iterator):
            for _ in tf.range(steps_per_execution):
                strategy.run(step, args=(next(iterator),))

        def run_and_read(iterator):
            run_steps(iterator)
            results = {}
            for metric in metrics:
                result = metric.result()
                if not isinstance(result, dict):
                    result = {metric.name: result}
                results.update(result)
            return results

        return run_and_read

    def _symbolic_build(self, *args, **kwargs):
        """Nothing to build: networks and slots exist since `compile`."""

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Nothing to build: networks and slots exist since `compile`."""


def decays(variable):
    """Whether weight decay applies: kernels, but no biases or batch norm."""
    return variable.name.endswith("kernel")


def is_correct(label, scores):
    """`[N]` float32: 1 where the largest of `scores [N, C]` is at `label`."""
    predicted = tf.argmax(scores, axis=-1, output_type=tf.int32)
    return tf.cast(predicted == tf.cast(label, tf.int32), tf.float32)


def float_images(images):
    """uint8 images as floats in 0...255, so that they can be mixed."""
    return tf.cast(images, keras.config.floatx())
