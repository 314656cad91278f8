"""What training loops need: optimizers, metrics and step functions."""

import functools

import keras
import tensorflow as tf

from tf_metassl.contract import FOREIGN
from tf_metassl.models import pretrained
from tf_metassl.models.layers import DropBlock
from tf_metassl.ops import averaging, remat, replicas
from tf_metassl.ops.metrics import (
    ClassEntropy,
    ConfusionMatrix,
    DivergenceWatch,
    Histogram,
    in_top_5,
    is_correct,
)


class Trainer(keras.Model):
    """The half of a method that `fit` and `evaluate` use.

    It owns the optimizers, the metrics and the functions that run a step on
    every replica. What is trained on which loss is the other half,
    `tf_metassl.algorithms.algorithm.Algorithm`. A training step calls methods
    of this class to update a network (`update`, `apply_gradients`) and to
    report metrics (`track` and others).

    A subclass defines `roles`, `metric_names`, `num_classes`,
    `evaluated_networks`, `deployable_model`, `elapsed`, `trained_variables`,
    `training_networks`, `has_one_loss`, `can_accumulate`, `train_step` and
    `training_step`, and calls `create_metrics` as soon as its networks exist.

    Args:
        name: name of the Keras model.
    """

    # The training metrics, in the order in which they are written.
    metric_names = ("loss", "labeled_accuracy")

    def __init__(self, name=None):
        super().__init__(name=name)
        self._optimizers = {}
        self._micro_batches = 1
        self._sam_rho = 0.0
        self._test_functions = {}
        # The names of the networks that `evaluate` runs, a tuple.
        self._tested = ()
        # False if the training loop reads the metrics when it needs them: to
        # read them is to wait for the step, and a sum over workers.
        self.reads_every_step = True
        self._watch = None
        # False while a batch is seen a second time.
        self.tracks = True

    # Optimizers.

    def compile(
        self,
        *,
        optimizers,
        weight_decay=0.0,
        decoupled_weight_decay=False,
        weight_decay_on="kernels",
        gradient_clip_norm=0.0,
        backbone_scale=1.0,
        jit_compile=False,
        steps_per_execution=1,
        gradient_accumulation_steps=1,
        recompute=False,
        dropblock_steps=0,
        sam_rho=0.0,
    ):
        """Attaches one optimizer per role and creates all of their slots.

        Args:
            optimizers: role -> Keras optimizer without weight decay or
                clipping of its own.
            weight_decay: w in gradient + w * parameter.
            decoupled_weight_decay: instead multiply parameters by
                1 - w * learning rate after the step, as MixMatch's code does.
            weight_decay_on: `kernels` or `all`, see `decays`.
            gradient_clip_norm: bound on the global norm of the gradient, after
                weight decay; 0 for none.
            backbone_scale: factor on the update, and so on the learning rate
                of SGD, of all layers of a network but the last.
            jit_compile: compile the step with XLA.
            steps_per_execution: steps per call of the compiled function.
            gradient_accumulation_steps: number of micro-batches that a step is
                computed from. Activations are in memory for one at a time.
            recompute: compute activations again for the gradient, see
                `tf_metassl.ops.remat`.
            dropblock_steps: steps over which the rate of DropBlock rises
                linearly; 0 for all of it at once. With a time budget it rises
                with the time instead.
            sam_rho: length of the perturbation of sharpness-aware
                minimization, for methods with one loss; 0 for none.

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
        if sam_rho and not self.has_one_loss:
            raise ValueError(
                f"--sam_rho={sam_rho}: the step of {type(self).__name__} is "
                "not the gradient of one loss, so that sharpness-aware "
                "minimization is not defined for it. Leave --sam_rho at 0, or "
                "change --algo."
            )
        self._sam_rho = sam_rho
        self._micro_batches = gradient_accumulation_steps
        if recompute:
            for network in self.training_networks:
                remat.switch_on(network)
        self._optimizers = dict(optimizers)
        self._weight_decay = weight_decay
        self._decoupled_weight_decay = decoupled_weight_decay
        self._decayed = functools.partial(decays, on=weight_decay_on)
        self._gradient_clip_norm = gradient_clip_norm
        self._backbone_scale = backbone_scale
        self._backbone = {
            id(variable)
            for role in self.roles
            for layer in pretrained.body_layers(getattr(self, role))
            for variable in layer.weights
        }
        for role, optimizer in optimizers.items():
            # A restore would lose slots that the first step creates.
            optimizer.build(self.trained_variables(role))
            setattr(self, f"{role}_optimizer", optimizer)
            for layer in averaging.leaves(getattr(self, role)):
                if isinstance(layer, DropBlock) and dropblock_steps:
                    layer.progress = functools.partial(
                        self._progress, dropblock_steps
                    )

    def _progress(self, num_steps):
        """The share of the run that is over, a float32 scalar."""
        if self.elapsed is not None:
            return tf.cast(self.elapsed, tf.float32)
        return tf.minimum(tf.cast(self.step, tf.float32) / num_steps, 1.0)

    @property
    def step(self):
        """The number of finished training steps, an integer tensor.

        The student's optimizer counts them: within a step it includes this
        step as soon as the student's gradients have been applied.
        """
        return self.optimizer.iterations.value

    @property
    def finished_steps(self):
        """The number of finished training steps, an int; outside of a step."""
        return int(self.step.numpy())

    @property
    def state_variables(self):
        """All variables that training changes, in a fixed order.

        Checkpoints save this list instead of the model, because TensorFlow
        does not find the random states of dropout layers in Keras objects.
        """
        variables = list(self.variables)
        for optimizer in self._optimizers.values():
            variables.extend(optimizer.variables)
        return variables

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
            role: the network to update.
            gradients: this replica's share of the gradient, in the order of
                `trained_variables`; None counts as zero.
        """
        variables = self.trained_variables(role)
        gradients = [
            tf.zeros_like(v.value) if g is None else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        num_replicas = replicas.count()
        if self._weight_decay and not self._decoupled_weight_decay:
            share = self._weight_decay / num_replicas
            gradients = [
                g + share * v.value if self._decayed(v) else g
                for g, v in zip(gradients, variables, strict=True)
            ]
        if self._gradient_clip_norm:
            total = replicas.sum_over_replicas(gradients)
            total, _ = tf.clip_by_global_norm(total, self._gradient_clip_norm)
            gradients = [g / num_replicas for g in total]
        if self._backbone_scale != 1.0:
            gradients = [
                self._backbone_scale * g if id(v) in self._backbone else g
                for g, v in zip(gradients, variables, strict=True)
            ]
        optimizer = self._optimizers[role]
        # The rate of this step: `apply` increments the step.
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        # Keras optimizers sum gradients over replicas themselves.
        optimizer.apply(gradients, variables)
        if self._decoupled_weight_decay:
            kept = 1.0 - self._weight_decay * rate
            for v in filter(self._decayed, variables):
                v.assign(v.value * tf.cast(kept, v.dtype))

    # Metrics.

    def create_metrics(self):
        """Creates the training metrics and those of every evaluated network.

        Top-5 accuracy is measured with 100 classes or more.
        """
        self._trackers = {
            metric: keras.metrics.Mean(name=metric)
            for metric in self.metric_names
        }
        if "pseudo_label_entropy" in self._trackers:
            self._trackers["pseudo_label_entropy"] = ClassEntropy(
                self.num_classes, name="pseudo_label_entropy"
            )
        if "selected_share" in self._trackers:
            # Learning to reweight has weights above 1: their mean is 1.
            self._trackers["example_weight"] = Histogram(
                -1.0, 4.0, 50, name="example_weight"
            )
        self._confusions = {
            role: ConfusionMatrix(self.num_classes, name=role)
            for role in self.evaluated_networks
        }
        self._top_5 = {}
        if self.num_classes >= 100:
            self._top_5 = {
                role: keras.metrics.Mean(name=f"{role}_top_5_accuracy")
                for role in self.evaluated_networks
            }

    def metric(self, name):
        """The running value of a training metric, a float.

        Args:
            name: one of `metric_names`.
        """
        return float(self._trackers[name].result())

    def train_results(self):
        """The running values of the training metrics, name -> float."""
        return _floats(_results(self.train_metrics))

    def watch_loss(self, max_loss=0.0):
        """Lets every step compare the running mean of the loss with a bound.

        What was found before is forgotten.

        Args:
            max_loss: the bound; 0 for none, so that the mean has to be finite.
        """
        if self._watch is not None and self._watch.max_loss == max_loss:
            self._watch.reset()
            return
        with self.distribute_strategy.scope():
            self._watch = DivergenceWatch(max_loss)
        # The bound is a constant in it.
        self.train_function = None

    def divergence(self):
        """What `watch_loss` has found on this worker's replicas.

        Returns:
            `(step, loss)`, the first step after which the mean was not finite
            or too large, and that mean; None if there is no such step.
        """
        return self._watch.first(self.distribute_strategy)

    def track(self, name, values, weight=None):
        """Adds values to a running mean.

        Args:
            name: one of `metric_names`.
            values: scalar or `[N]`.
            weight: None or `[N]`; rows with weight 0 do not count.
        """
        if self.tracks:
            self._trackers[name].update_state(values, sample_weight=weight)

    def track_share(self, name, share):
        """Adds the sum of a share over replicas to a running mean.

        Args:
            name: one of `metric_names`.
            share: scalar, this replica's share, such as
                `replicas.share_of_mean` returns.
        """
        self.track(name, share * replicas.count())

    def track_labeled(self, label, logits):
        """Tracks `labeled_accuracy` of `logits [N, C]` for `label [N]`."""
        self.track("labeled_accuracy", is_correct(label, logits))

    def track_pseudo_labels(self, oracle_label, pseudo_label, selected=None):
        """Tracks `pseudo_label_entropy` and `pseudo_label_accuracy`.

        The first is the entropy of the classes of all pseudo-labels. The
        second counts the examples whose true label is known.

        Args:
            oracle_label: `[N]` integers, -1 where unknown and -2 for images
                of a class that is not to be learned.
            pseudo_label: `[N, C]`.
            selected: None or `[N]`, the weights of the examples. If given,
                the accuracy of the examples where it is positive is tracked as
                `selected_pseudo_label_accuracy` as well, the share of the
                foreign images where it is positive as
                `foreign_selected_share`, and all weights are counted.
        """
        if self.tracks:
            self._trackers["pseudo_label_entropy"].update_state(pseudo_label)
        known = tf.cast(oracle_label >= 0, tf.float32)
        correct = is_correct(oracle_label, pseudo_label)
        self.track("pseudo_label_accuracy", correct, known)
        if selected is not None:
            if self.tracks:
                self._trackers["example_weight"].update_state(selected)
            selected = tf.cast(selected > 0, tf.float32)
            self.track(
                "selected_pseudo_label_accuracy", correct, known * selected
            )
            is_foreign = tf.cast(oracle_label == FOREIGN, tf.float32)
            self.track("foreign_selected_share", selected, is_foreign)

    # What Keras calls.

    def call(self, images, training=False):
        """Logits of the deployable network."""
        return self.deployable_model(images, training=training)

    def test_step(self, batch):
        """Adds an evaluation batch to the counts of the tested networks."""
        label, mask = batch["label"], batch["mask"]
        for role in self._tested:
            network = self.evaluated_networks[role]
            logits = network(batch["image"], training=False)
            self._confusions[role].update_state(label, logits, mask)
            if self._top_5:
                self._top_5[role].update_state(
                    in_top_5(label, logits), sample_weight=mask
                )
        return {}

    def evaluate(self, *args, networks=None, return_dict=False, **kwargs):
        """See `keras.Model.evaluate`.

        Runs one batch per call, whatever `steps_per_execution` is: Keras would
        hand only every `steps_per_execution`-th batch to the test function.
        The metrics are read once, after the last batch.

        Args:
            *args: of `keras.Model.evaluate`.
            networks: keys of `evaluated_networks`; None for all of them.
            return_dict: whether to return the names of the metrics, too.
            **kwargs: of `keras.Model.evaluate`.

        Returns:
            The metrics of these networks, name -> float; their values without
            `return_dict`.
        """
        self._tested = tuple(networks or self.evaluated_networks)
        training = self.steps_per_execution
        self.steps_per_execution = 1
        try:
            super().evaluate(*args, return_dict=True, **kwargs)
        finally:
            self.steps_per_execution = training
        found = _floats(
            _results(
                evaluators[role]
                for evaluators in (self._confusions, self._top_5)
                for role in self._tested
                if role in evaluators
            )
        )
        return found if return_dict else list(found.values())

    def confusion(self, role):
        """The `[C, C]` counts of the last evaluation of a network.

        Args:
            role: a key of `evaluated_networks`.

        Returns:
            float32 array; rows are true classes, columns predicted ones.
        """
        return self._confusions[role].counts.numpy()

    @property
    def metrics(self):
        """All metrics. Keras resets them through this property."""
        return [*self._trackers.values(), *self._evaluators]

    @property
    def train_metrics(self):
        """The training metrics, which `fit` resets at every epoch."""
        return list(self._trackers.values())

    @property
    def _evaluators(self):
        return [*self._confusions.values(), *self._top_5.values()]

    def make_train_function(self, force=False):
        """Builds the function that `fit` calls; see `_step_function`."""
        if self.train_function is None or force:
            self.train_function = self._step_function(
                self._watched_step, self.train_metrics, self.steps_per_execution
            )
        return self.train_function

    def _watched_step(self, batch):
        self.training_step(batch)
        if self._watch is not None:
            loss = self._trackers["loss"]
            mean = tf.math.divide_no_nan(loss.total.value, loss.count.value)
            self._watch.note(mean, self.step)

    def make_test_function(self, force=False):
        """Builds the function that `evaluate` calls; see `_step_function`.

        There is one for each choice of networks.
        """
        if self._tested not in self._test_functions or force:
            self._test_functions[self._tested] = self._step_function(
                self.test_step, [], 1
            )
        self.test_function = self._test_functions[self._tested]
        return self.test_function

    def _step_function(self, step, metrics, steps_per_execution):
        """A function that runs steps on all replicas and returns the metrics.

        Keras' own function reduces what the step returns over replicas, which
        fails with several workers. Reading the metrics afterwards does not.

        Args:
            step: function of a batch.
            metrics: list of Keras metrics.
            steps_per_execution: steps per call.

        Returns:
            Function of an iterator over batches that returns metric name ->
            value, or an empty dict, see `reads_every_step`.
        """
        strategy = self.distribute_strategy
        # Steps have no control flow for AutoGraph to convert, and its attempt
        # takes more than half of the time of tracing. Keras does the same.
        step = tf.autograph.experimental.do_not_convert(step)
        if self.jit_compile:
            step = tf.function(step, jit_compile=True, autograph=False)

        def run_step(iterator):
            strategy.run(step, args=(next(iterator),))

        def run_loop(iterator):
            for _ in tf.range(steps_per_execution):
                run_step(iterator)

        # A loop around one step takes a third longer to trace and to compile.
        run_steps = tf.function(
            run_loop if steps_per_execution > 1 else run_step,
            reduce_retracing=True,
            autograph=steps_per_execution > 1,
        )

        def run_and_read(iterator):
            run_steps(iterator)
            return _results(metrics) if self.reads_every_step else {}

        return run_and_read

    def _get_metrics_result_or_logs(self, logs):
        """What the step function returned: Keras would read all metrics."""
        return logs

    def _symbolic_build(self, *args, **kwargs):
        """Does nothing: networks and optimizer slots exist since `compile`."""

    def _maybe_symbolic_build(self, *args, **kwargs):
        """Does nothing: networks and optimizer slots exist since `compile`."""


def _results(metrics):
    """What Keras metrics say, name -> scalar."""
    results = {}
    for metric in metrics:
        result = metric.result()
        if not isinstance(result, dict):
            result = {metric.name: result}
        results.update(result)
    return results


def _floats(results):
    """The same scalars as Python floats, which waits for them."""
    return {name: float(value) for name, value in results.items()}


def decays(variable, on="kernels"):
    """Whether weight decay applies to a trained variable.

    Args:
        variable: a Keras variable.
        on: `kernels`: neither biases, nor batch norm, nor the gains of weight
            norm; `all`: everything.
    """
    return on == "all" or variable.name.endswith("kernel")
