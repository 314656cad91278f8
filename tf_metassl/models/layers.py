"""The first and the last layers of every network, and layers of several."""

import math

import keras
from keras import layers, ops

from tf_metassl.ops import batch_norm, replicas


class Whitening(layers.Layer):
    """Subtracts a mean from all pixels of an image and mixes them linearly.

    The numbers are constants, not weights: nothing trains, averages or saves
    them again with every checkpoint.

    Args:
        mean: `[H * W * C]`, on a scale of 0...1.
        matrix: `[H * W * C, H * W * C]`.
    """

    def __init__(self, mean, matrix, **kwargs):
        super().__init__(**kwargs)
        self._mean, self._matrix = mean, matrix

    def call(self, pixels):
        """Pixels in 0...255, `[N, H, W, C]`, to whitened ones."""
        size = len(self._mean)
        flat = ops.reshape(pixels, (-1, size)) / 255.0
        mean = ops.convert_to_tensor(self._mean, dtype=flat.dtype)
        matrix = ops.convert_to_tensor(self._matrix, dtype=flat.dtype)
        mixed = ops.matmul(flat - mean, matrix)
        return ops.reshape(mixed, (-1, *pixels.shape[1:]))

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        return {**config, "mean": self._mean, "matrix": self._matrix}


def image_input(image_shape, mean=None, std=None, whitening=None):
    """The network's input and its first layer.

    Pixels come as uint8, or as floats in 0...255 after MixUp, and are scaled
    inside the network, so that training, evaluation and serving cannot
    disagree. Scaling is done in full precision: half precision would round
    mixed pixels first.

    Args:
        image_shape: height, width, channels.
        mean: of each channel, on a scale of 0...1. None scales to -1...1.
        std: of each channel, likewise.
        whitening: arguments of `Whitening`, in place of mean and std.

    Returns:
        The input and the scaled images, two Keras tensors.

    Raises:
        ValueError: if there are not as many values as channels.
    """
    scale, offset = 1 / 127.5, -1.0
    if mean is not None:
        if not len(mean) == len(std) == image_shape[-1]:
            raise ValueError(
                f"mean and std must have {image_shape[-1]} values, one for "
                f"each channel, got {len(mean)} and {len(std)}: change "
                "--normalization or --channels."
            )
        scale = [1 / (255 * s) for s in std]
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
    dtype = keras.config.floatx()
    pixels = keras.Input(image_shape, dtype=dtype, name="image")
    if whitening is not None:
        return pixels, Whitening(*whitening, dtype=dtype)(pixels)
    return pixels, layers.Rescaling(scale, offset, dtype=dtype)(pixels)


def classifier(
    feature_map,
    num_classes,
    dropout=0.0,
    *,
    dense=layers.Dense,
    kernel_initializer="glorot_uniform",
):
    """Global average pooling, dropout, logits in full precision.

    Args:
        feature_map: Keras tensor `[N, h, w, F]`.
        num_classes: C.
        dropout: rate; 0 adds no layer.
        dense: class of the last layer.
        kernel_initializer: of the last layer.

    Returns:
        Keras tensor `[N, C]`.
    """
    x = layers.GlobalAveragePooling2D()(feature_map)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        dtype=keras.config.floatx(),
        name="logits",
    )(x)


def linear(name, input_size, output_size):
    """A linear map of features, `[N, F]` -> `[N, P]` in Keras' float type.

    Args:
        name: of the model.
        input_size: F.
        output_size: P.
    """
    return keras.Sequential(
        [
            keras.Input((input_size,)),
            layers.Dense(output_size, dtype=keras.config.floatx()),
        ],
        name=name,
    )


def perceptron(name, input_size, hidden_size, output_size):
    """A further head on features: two dense layers with ReLU in between.

    Args:
        name: of the model.
        input_size: F.
        hidden_size: units of the hidden layer.
        output_size: P.

    Returns:
        A Keras model, `[N, F]` -> `[N, P]` in Keras' float type.
    """
    return keras.Sequential(
        [
            keras.Input((input_size,)),
            layers.Dense(hidden_size, activation="relu"),
            layers.Dense(output_size, dtype=keras.config.floatx()),
        ],
        name=name,
    )


def fan_out_normal():
    """N(0, 2 / fan out), what most convolutions here start from."""
    return keras.initializers.VarianceScaling(
        2.0, mode="fan_out", distribution="untruncated_normal"
    )


def fan_out_uniform():
    """Uniform in +-1 / sqrt(fan out), for last layers of Google's code."""
    return keras.initializers.VarianceScaling(
        1 / 3, mode="fan_out", distribution="uniform"
    )


@keras.saving.register_keras_serializable("tf_metassl")
class DropBlock(layers.Layer):
    """Drops square regions of every channel in training.

    Each channel of an image has regions of its own, which lie inside the map.
    What is left of an image is divided by its share, so that its sum keeps its
    expectation; the authors' code takes that share over the batch, which would
    depend on the number of replicas.

    Source: Ghiasi, Lin, Le, arXiv 1810.12890, algorithm 1.

    Args:
        rate: about the share of values that is dropped, 1 - keep_prob.
        size: height and width of a region; at most those of the map.
        **kwargs: of `keras.layers.Layer`.
    """

    # Function without arguments that returns the share of the rate that
    # applies at this step; None: all of it. Training sets it.
    progress = None

    def __init__(self, rate, size=7, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.size = size
        self.seed_generator = keras.random.SeedGenerator()
        self.built = True

    def call(self, inputs, training=False):
        """`[N, H, W, C]` -> the same shape."""
        if not training:
            return inputs
        rate = (
            self.rate
            if self.progress is None
            else (self.rate * self.progress())
        )
        height, width, channels = inputs.shape[1:]
        size = min(self.size, height, width)
        places = height - size + 1, width - size + 1
        noise = keras.random.uniform(
            (ops.shape(inputs)[0], *places, channels),
            dtype="float32",
            seed=self.seed_generator,
        )
        density = height * width / (size**2 * places[0] * places[1])
        corners = ops.cast(noise < rate * density, "float32")
        around = [[0, 0], [size - 1, size - 1], [size - 1, size - 1], [0, 0]]
        dropped = ops.max_pool(ops.pad(corners, around), size, 1, "valid")
        kept = 1.0 - dropped
        share = ops.mean(kept, axis=(1, 2, 3), keepdims=True)
        mask = kept / ops.maximum(share, 1e-6)
        return inputs * ops.cast(mask, inputs.dtype)

    def get_config(self):
        """The constructor's arguments."""
        config = super().get_config()
        return {**config, "rate": self.rate, "size": self.size}


class MovingStatistics:
    """Mixin: moving averages of batch statistics that are never cold.

    With a constant momentum of 0.999 a moving average that starts at 0 still
    is 0.37 of its start after 1,000 steps, and a network that was trained for
    fewer classifies at chance in inference mode. Here update number t, counted
    from 0, has the momentum min(momentum, t / (t + 9)), as the weights' moving
    average is ramped (`tf_metassl.ops.averaging.ramped_decay`): the first batch
    replaces what the average started as, later ones cover about the last ninth
    of the updates, until the layer's own momentum is reached.
    """

    def add_count(self):
        """Creates the number of updates, after all other weights."""
        # A float, because the moving average of the whole network has to carry
        # it along: a network that goes on from there must not start again.
        self.num_updates = self.add_weight(
            name="num_updates",
            shape=(),
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    def settle(self):
        """Makes averages that have been loaded those of a long training."""
        self.num_updates.assign(1e6)

    def update_averages(self, *pairs):
        """Moves averages toward the statistics of a batch.

        Args:
            *pairs: `(variable [F], statistic [F])` each.
        """
        count = self.num_updates.value
        # Two minima rather than 1 - momentum, which would round 1 - 0.999.
        kept = ops.minimum(self.momentum, count / (count + 9.0))
        taken = ops.maximum(1.0 - self.momentum, 9.0 / (count + 9.0))
        for variable, statistic in pairs:
            old = variable.value
            variable.assign(
                old * ops.cast(kept, old.dtype)
                + ops.cast(statistic, old.dtype) * ops.cast(taken, old.dtype)
            )
        self.num_updates.assign(count + 1.0)


@keras.saving.register_keras_serializable("tf_metassl")
class BatchNormalization(MovingStatistics, layers.BatchNormalization):
    """Batch norm (arXiv 1502.03167) whose averages serve from the first step.

    Everything but the moving averages is Keras' own layer; see
    `MovingStatistics`. A mask has no effect, and there is no renormalization.
    """

    def build(self, input_shape):
        """See `keras.layers.Layer.build`."""
        super().build(input_shape)
        self.add_count()

    def call(self, inputs, training=None, mask=None):
        """`[..., F]` -> the same shape."""
        del mask  # Images have none; Keras hands it on where it copies graphs.
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        size = inputs.shape[-1]
        scale = self.gamma.value if self.scale else ops.ones([size])
        offset = self.beta.value if self.center else ops.zeros([size])
        if self._takes_kernel(inputs):
            outputs, mean, variance = batch_norm.batch_norm(
                inputs, scale, offset, self.epsilon
            )
        else:
            x = ops.cast(
                inputs, keras.backend.result_type(inputs.dtype, "float32")
            )
            moments = (
                batch_norm.global_moments if self.synchronized else ops.moments
            )
            mean, variance = moments(x, self._reduction_axes)
            outputs = ops.batch_normalization(
                x,
                mean,
                variance,
                axis=self.axis,
                offset=ops.cast(offset, x.dtype),
                scale=ops.cast(scale, x.dtype),
                epsilon=self.epsilon,
            )
        self.update_averages(
            (self.moving_mean, mean), (self.moving_variance, variance)
        )
        return ops.cast(outputs, self.compute_dtype)

    def _takes_kernel(self, inputs):
        """Whether one kernel does it; statistics over replicas are composed."""
        is_last = self.axis in (-1, len(inputs.shape) - 1)
        is_local = not self.synchronized or replicas.count() == 1
        return is_last and is_local and batch_norm.is_available(inputs)


def with_moving_statistics(network):
    """A copy of a functional network with batch norm of this module.

    Args:
        network: a functional or sequential Keras model, as yet untrained;
            models inside it are copied, too.

    Returns:
        The copy; `network` itself if it has no batch norm of Keras.
    """

    def is_keras_own(layer):
        return type(layer) is layers.BatchNormalization

    if not any(map(is_keras_own, network._flatten_layers())):
        return network

    def copied(layer):
        if is_keras_own(layer):
            return BatchNormalization.from_config(layer.get_config())
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(
        network, clone_function=copied, recursive=True
    )


def with_keras_batch_norm(network):
    """A trainable copy of a network whose batch norm is Keras' own.

    It can be loaded without this package, unless the network has weight norm
    or whitening. It predicts the same.

    Args:
        network: a functional Keras model.
    """

    def copied(layer):
        kind = type(layer)
        if kind is BatchNormalization:
            kind = layers.BatchNormalization
        if kind is DropBlock:
            return layers.Identity(name=layer.name)
        copy = kind.from_config(layer.get_config())
        copy.trainable = True
        return copy

    copy = keras.models.clone_model(
        network, clone_function=copied, recursive=True
    )
    for old, new in zip(
        network._flatten_layers(), copy._flatten_layers(), strict=True
    ):
        if not old._layers:
            weights = old.weights
            if type(old) is BatchNormalization:
                weights = [v for v in weights if v is not old.num_updates]
            for variable, value in zip(new.weights, weights, strict=True):
                variable.assign(value)
    return copy


def synchronize(network):
    """Gives all batch norm of `network` batch statistics over all replicas."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            synchronize(layer)
        elif isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True


def loses_tangents(network, num_replicas):
    """Whether no forward-mode derivative goes through `network`.

    TensorFlow loses tangents in sums over replicas. This package's batch norm
    hands them on (`tf_metassl.ops.replicas.sum_with_tangent`); a class of a
    user's own does not.

    Args:
        network: a Keras model.
        num_replicas: that share the global batch.
    """
    return num_replicas > 1 and any(
        getattr(layer, "synchronized", False)
        and not isinstance(layer, BatchNormalization)
        for layer in network._flatten_layers()
    )


class WeightNorm:
    """Mixin: each output's weights are gain * v / |v|.

    Source: Salimans and Kingma, arXiv 1602.07868. Gains start at a constant
    that keeps the variance of the activations, where the paper measures it on
    a first batch.
    """

    initial_gain = 1.0

    def build(self, input_shape):
        """Creates the gains beside the kernel v."""
        super().build(input_shape)
        self.gain = self.add_weight(
            name="gain",
            shape=self._kernel.shape[-1:],
            initializer=keras.initializers.Constant(self.initial_gain),
        )

    @property
    def kernel(self):
        """The weights that the layer applies."""
        direction = super().kernel
        # Thousands of squares: not to be summed in half precision.
        squares = ops.cast(ops.square(direction), keras.config.floatx())
        norm = ops.sqrt(ops.sum(squares, axis=range(len(squares.shape) - 1)))
        return direction * ops.cast(self.gain / norm, direction.dtype)

    # Keras' own would write the kernel that is applied, and no gains.
    def save_own_variables(self, store):
        """Writes the kernel v, the bias and the gains."""
        layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        """Reads what `save_own_variables` has written."""
        layers.Layer.load_own_variables(self, store)


@keras.saving.register_keras_serializable("tf_metassl")
class WeightNormConv2D(WeightNorm, layers.Conv2D):
    """A convolution with weight norm, before a rectifier."""

    initial_gain = math.sqrt(2.0)


@keras.saving.register_keras_serializable("tf_metassl")
class WeightNormDense(WeightNorm, layers.Dense):
    """A dense layer with weight norm."""


@keras.saving.register_keras_serializable("tf_metassl")
class MeanOnlyBatchNormalization(MovingStatistics, layers.Layer):
    """Subtracts the mean of the batch, then adds a bias.

    Source: Salimans and Kingma, arXiv 1602.07868, section 4; goes with weight
    norm, which takes care of the variance.

    Args:
        momentum: of the moving mean.
        synchronized: the mean over all replicas.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, momentum=0.999, synchronized=False, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.synchronized = synchronized

    def build(self, input_shape):
        """Creates the bias and the moving mean, in full precision."""
        self.bias = self.add_weight(
            name="bias",
            shape=input_shape[-1:],
            initializer="zeros",
            autocast=False,
        )
        self.moving_mean = self.add_weight(
            name="moving_mean",
            shape=input_shape[-1:],
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.add_count()

    def call(self, inputs, training=False):
        """`[..., F]` -> the same shape."""
        x = ops.cast(inputs, keras.config.floatx())
        mean = self.moving_mean.value
        if training and self.trainable:
            axes = list(range(len(x.shape) - 1))
            mean, _ = ops.moments(x, axes, synchronized=self.synchronized)
            self.update_averages((self.moving_mean, mean))
        return ops.cast(x - mean + self.bias, self.compute_dtype)

    def get_config(self):
        """What `from_config` needs for a copy, such as the averaged one."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "synchronized": self.synchronized,
        }
