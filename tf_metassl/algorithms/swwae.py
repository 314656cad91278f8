"""Stacked what-where autoencoder: Zhao et al., arXiv 1506.02351."""

import math

import keras
import tensorflow as tf
from keras import layers

from tf_metassl.algorithms.algorithm import Algorithm, float_images
from tf_metassl.contract import Views
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import cross_entropy

# The least number of filters of the decoder's convolutions.
_FEWEST_FILTERS = 16


class Swwae(Algorithm):
    """Learns labels, and to reconstruct unlabeled images by a decoder.

    The convolutions of the student are the encoder. A max pooling passes its
    values, the "what", to the next layer, and their positions, the "where", to
    the decoder, which puts the reconstructed values there. The decoder sees the
    feature map that the last layer averages. The student's optimizer trains
    it as well.

    Only pooling windows that do not overlap have a "where" of this kind. Where
    the student reduces its maps in another way, the decoder repeats values.
    """

    metric_names = (
        "loss",
        "labeled_loss",
        "reconstruction_loss",
        "intermediate_loss",
        "labeled_accuracy",
    )

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder(self.student)
        self.decoder = decoder(self.student)

    @property
    def views(self):
        """See `Algorithm.views`."""
        learned_view = self.hyperparameters.learned_view
        return Views(labeled=(learned_view,), unlabeled=("weak",))

    @property
    def training_networks(self):
        """See `Algorithm.training_networks`."""
        return [*super().training_networks, self.encoder]

    def trained_variables(self, role):
        """The student's variables and those of the decoder."""
        variables = super().trained_variables(role)
        return [*variables, *self.decoder.trainable_variables]

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        images = unlabeled["weak"]
        *maps, logits = self.forward(
            self.encoder, labeled[hp.learned_view], images
        )
        label = self.one_hot(labeled["label"])
        losses = cross_entropy(label, logits[0])
        labeled_loss = replicas.share_of_mean(
            self.class_weighted(losses, label)
        )

        *unpooled, code = (of_unlabeled for _, of_unlabeled in maps)
        decoded = self.decoder([code, *unpooled], training=True)
        reconstruction_loss = replicas.share_of_mean(
            mean_square(decoded["image"], float_images(images) / 127.5 - 1.0)
        )
        intermediate_loss = tf.zeros([], reconstruction_loss.dtype)
        for pooling, values, what in zip(
            poolings(self.student), unpooled, decoded["whats"], strict=True
        ):
            intermediate_loss += replicas.share_of_mean(
                mean_square(what, pooling(values))
            )

        self.track_share("labeled_loss", labeled_loss)
        self.track_share("reconstruction_loss", reconstruction_loss)
        self.track_share("intermediate_loss", intermediate_loss)
        self.track_labeled(labeled["label"], logits[0])
        return (
            labeled_loss
            + hp.reconstruction_weight * reconstruction_loss
            + hp.intermediate_weight * intermediate_loss
        )


def mean_square(first, second):
    """The squared difference of maps, `[N, ...]` -> `[N]`, a mean."""
    difference = tf.cast(first, keras.config.floatx()) - tf.cast(
        second, keras.config.floatx()
    )
    return tf.reduce_mean(difference**2, range(1, len(first.shape)))


def poolings(network):
    """The max-pooling layers with windows that do not overlap, in order.

    Args:
        network: a functional Keras model.
    """
    return [
        layer
        for layer in network.layers
        if isinstance(layer, layers.MaxPooling2D)
        and layer.pool_size == layer.strides
        and layer.padding == "valid"
    ]


def _feature_map(network):
    """The last feature map of a network, a Keras tensor `[N, h, w, F]`.

    Raises:
        ValueError: if the network has no convolutions, or none whose maps are
            averaged or flattened.
    """
    found = [
        layer.input
        for layer in network.layers
        if layer is not network.layers[0]
        and isinstance(layer.input, keras.KerasTensor)
        and len(layer.input.shape) == 4
        and len(layer.output.shape) == 2
    ]
    has_convolutions = any(
        isinstance(layer, layers.Conv2D) for layer in network._flatten_layers()
    )
    if not found or not has_convolutions:
        raise ValueError(
            "swwae decodes the feature map [N, h, w, F] of a convolutional "
            "network, and this network (--model) has none that its last layer "
            "averages or flattens. Use a network with max pooling such as "
            "--model=cnn13, without --cache_features."
        )
    return found[-1]


def encoder(network):
    """A network with its feature maps.

    Args:
        network: an image classifier, a functional Keras model.

    Returns:
        A Keras model that shares all layers: images -> a list of the map
        before each of `poolings`, the last feature map, and the logits.

    Raises:
        ValueError: as `_feature_map`.
    """
    code = _feature_map(network)
    return keras.Model(
        network.inputs[0],
        [*(p.input for p in poolings(network)), code, network.outputs[0]],
        name=f"{network.name}_encoder",
    )


def decoder(network):
    """The decoder of a network.

    Each convolution normalizes the map of an image by itself, so that results
    depend neither on replicas nor on micro-batches. Between two poolings maps
    are enlarged by repetition, as long as twice their size is not too much, and
    then padded, which inverts convolutions without padding.

    Args:
        network: an image classifier, a functional Keras model.

    Returns:
        A Keras model from a list, the last feature map and the maps before each
        of `poolings`, to a dict: `image`, with values in -1...1, and `whats`,
        what each pooling passed on, a list in the order of `poolings`.

    Raises:
        ValueError: as `_feature_map`.
    """
    code = _feature_map(network)
    inputs = keras.Input(code.shape[1:], name="code")
    unpooled = [keras.Input(p.input.shape[1:]) for p in poolings(network)]
    x, whats = inputs, []
    for pooling, values in reversed(
        list(zip(poolings(network), unpooled, strict=True))
    ):
        _, height, width, filters = pooling.output.shape
        what = _convolution(_enlarged(x, (height, width)), filters)
        whats.insert(0, what)
        x = Unpooling(pooling.pool_size)([what, values])
    *size, channels = network.inputs[0].shape[1:]
    x = _enlarged(x, size)
    # A squared error of sums of so many terms would need a lower learning rate.
    x = layers.Rescaling(1 / math.sqrt(9 * x.shape[-1]))(x)
    image = layers.Conv2D(
        channels, 3, padding="same", dtype=keras.config.floatx()
    )(x)
    return keras.Model(
        [inputs, *unpooled], {"image": image, "whats": whats}, name="decoder"
    )


def _convolution(x, filters):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    return layers.LeakyReLU(0.1)(layers.GroupNormalization(1)(x))


def _enlarged(x, size):
    """Maps `[N, h, w, F]` as maps of a size `(H, W)` at least as large."""
    while all(2 * a <= b for a, b in zip(x.shape[1:3], size, strict=True)):
        filters = max(x.shape[-1] // 2, _FEWEST_FILTERS)
        x = _convolution(layers.UpSampling2D(2)(x), filters)
    margins = [b - a for a, b in zip(x.shape[1:3], size, strict=True)]
    if any(margins):
        x = layers.ZeroPadding2D([(m // 2, m - m // 2) for m in margins])(x)
    return x


class Unpooling(layers.Layer):
    """Puts values where a max pooling found its maxima, and 0 elsewhere.

    Of equal maxima of a window, the first has the value, so that a window never
    has it twice.

    Source: Zhao et al., arXiv 1506.02351, section 3.

    Args:
        size: height and width of the windows, which do not overlap.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)

    def call(self, inputs):
        """See the class.

        Args:
            inputs: the values `[N, h, w, F]`, and the maps `[N, H, W, F]` that
                were pooled; no gradient flows to these.

        Returns:
            `[N, H, W, F]`.
        """
        values, maps = inputs
        _, height, width, filters = values.shape
        rows, columns = self.size
        # Pooling ignores what is left at the margins.
        inner = maps[:, : height * rows, : width * columns]
        windows = tf.reshape(inner, [-1, height, rows, width, columns, filters])
        windows = tf.transpose(windows, [0, 1, 3, 5, 2, 4])
        windows = tf.reshape(
            windows, [-1, height, width, filters, rows * columns]
        )
        where = tf.one_hot(
            tf.argmax(windows, axis=-1), rows * columns, dtype=values.dtype
        )
        put = tf.reshape(
            values[..., tf.newaxis] * where,
            [-1, height, width, filters, rows, columns],
        )
        put = tf.reshape(
            tf.transpose(put, [0, 1, 4, 2, 5, 3]), [-1, *inner.shape[1:]]
        )
        below = maps.shape[1] - put.shape[1]
        right = maps.shape[2] - put.shape[2]
        return tf.pad(put, [[0, 0], [0, below], [0, right], [0, 0]])

    def compute_output_shape(self, shapes):
        """The shape of the maps that were pooled."""
        return shapes[1]
