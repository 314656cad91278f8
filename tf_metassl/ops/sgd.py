"""SGD whose step is one kernel per variable."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tf_metassl")
class Sgd(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, with the same results to the last bit.

    Keras composes a step with momentum from nine operations per variable. For
    small networks, where a step has hundreds of small variables, most of the
    time of an optimizer step is spent on starting them.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Moves a variable; see `keras.optimizers.Optimizer.update_step`."""
        if not self.momentum:
            super().update_step(gradient, variable, learning_rate)
            return
        slot = self.momentums[self._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=slot.value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )
