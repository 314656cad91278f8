"""LARS: layer-wise adaptive rate scaling."""

import keras
import tensorflow as tf


class Lars(keras.optimizers.Optimizer):
    """SGD whose step of a kernel is proportional to the kernel's norm.

    With the gradient g of a variable w, to which weight decay has been added,
    and the learning rate r:

        trust = coefficient * |w| / |g| for kernels, where both are positive;
                1 for all other variables
        v <- momentum * v + r * trust * g
        w <- w - v

    Biases and the variables of batch norm have no trust ratio, as in the code
    of SimCLR. That code has weight decay inside g, other than the paper, which
    divides by |g| + decay * |w|. Momentum is not Nesterov's.

    Source: You, Gitman, Ginsburg, arXiv 1708.03888; Chen et al., arXiv
    2002.05709.

    Args:
        learning_rate: a number or a Keras schedule.
        momentum: of v; 0 for none.
        coefficient: of the trust ratio.
        name: of the optimizer.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        coefficient=0.001,
        name="lars",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.coefficient = coefficient

    def build(self, variables):
        """Creates the velocity of every variable."""
        if self.built:
            return
        super().build(variables)
        # TensorFlow's variables, which `update_step` gets, have other names.
        self._adapted = [v.name.endswith("kernel") for v in variables]
        self.velocities = [
            self.add_variable_from_reference(variable, name="velocity")
            for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        """See `keras.optimizers.Optimizer`."""
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        gradient = tf.cast(gradient, variable.dtype)
        rate = tf.cast(learning_rate, variable.dtype)
        if self._adapted[index]:
            rate *= self._trust(tf.convert_to_tensor(variable), gradient)
        moved = self.momentum * velocity.value + rate * gradient
        self.assign(velocity, moved)
        self.assign_sub(variable, moved)

    def _trust(self, values, gradient):
        """The trust ratio, a scalar."""
        size, slope = tf.norm(values), tf.norm(gradient)
        ratio = self.coefficient * tf.math.divide_no_nan(size, slope)
        return tf.where((size > 0) & (slope > 0), ratio, tf.ones_like(ratio))

    def get_config(self):
        """See `keras.optimizers.Optimizer`."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "coefficient": self.coefficient,
        }
