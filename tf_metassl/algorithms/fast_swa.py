"""fast-SWA on Mean Teacher: Athiwaratkun et al., arXiv 1806.05594."""

import itertools

import tensorflow as tf

from tf_metassl.algorithms.mean_teacher import MeanTeacher
from tf_metassl.meta import functional
from tf_metassl.ops import averaging, replicas


class FastSwa(MeanTeacher):
    """Mean Teacher whose deployable model is an arithmetic mean of students.

    The learning rate is cyclic (`cycle_start`, `cycle_steps`). From `swa_start`
    on the student is added to the mean every `swa_every` steps, not only at the
    ends of cycles. Before, the mean is the student itself.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._add_function = None
        self.num_averaged = self.state_variable("num_averaged", ())

    def build_averages(self):
        """See `Algorithm.build_averages`."""
        super().build_averages()
        self.swa = None
        if self.hyperparameters.swa_every:
            self.swa = averaging.copy_of(self.student, name="swa")

    @property
    def deployable_model(self):
        """See `Algorithm.deployable_model`."""
        return super().deployable_model if self.swa is None else self.swa

    @property
    def evaluated_networks(self):
        """See `Algorithm.evaluated_networks`."""
        networks = super().evaluated_networks
        return networks if self.swa is None else networks | {"swa": self.swa}

    def update_ema(self):
        """Updates the teacher, then the mean. See `Algorithm.update_ema`."""
        super().update_ema()
        if self.swa is not None:
            self._update_swa()

    def _update_swa(self):
        hp = self.hyperparameters
        since = self.step - hp.swa_start
        joins = (since >= 0) & (since % hp.swa_every == 0)
        count = self.num_averaged.value
        decay = tf.where(joins, count / (count + 1.0), 1.0)
        decay = tf.where(since < 0, tf.zeros_like(decay), decay)
        averaging.update(self.swa, self.student, decay)
        self.num_averaged.assign(count + tf.cast(joins, count.dtype))

    def prepare_evaluation(self, batches):
        """Computes the batch-norm statistics of the mean.

        Each is the arithmetic mean over `swa_batches` training batches.
        """
        if self.swa is None:
            return
        if self._add_function is None:
            run = self.distribute_strategy.run
            self._add_function = tf.function(
                lambda batch: run(self._add_statistics, args=(batch,)),
                autograph=False,
            )
        for _, average in self._statistics():
            average.assign(tf.zeros(average.shape, average.dtype))
        num_batches = self.hyperparameters.swa_batches
        for batch in itertools.islice(batches(), num_batches):
            self._add_function(batch)

    def _add_statistics(self, batch):
        """Adds a batch's share to the mean's batch-norm statistics."""
        statistics = self._statistics()
        state = functional.state(self.student)
        # A layer without updates takes the batch's statistics as they are.
        state = [
            tf.zeros_like(value) if variable.name == "num_updates" else value
            for value, variable in zip(
                state, self.student.non_trainable_variables, strict=True
            )
        ]
        _, new_state = functional.call_average(
            self.swa,
            self.student,
            state,
            tf.concat(
                [batch["labeled"]["weak"], batch["unlabeled"]["weak_1"]], axis=0
            ),
        )
        share = self.hyperparameters.swa_batches * replicas.count()
        for place, average in statistics:
            moved = replicas.sum_over_replicas(new_state[place])
            average.assign_add(moved / share)

    def _statistics(self):
        """The moving statistics of the student and those of the mean.

        Returns:
            A list of `(place among the student's non-trainable variables,
            variable of the mean)`.
        """
        variables = self.student.non_trainable_variables
        place = {id(v): i for i, v in enumerate(variables)}
        twin = averaging.twins(self.swa, self.student)
        return [
            (place[id(variable)], twin[id(variable)])
            for layer in self.student._flatten_layers()
            for variable in (
                getattr(layer, "moving_mean", None),
                getattr(layer, "moving_variance", None),
            )
            if variable is not None
        ]
