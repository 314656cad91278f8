"""Vision Transformers: Dosovitskiy et al., arXiv 2010.11929."""

import keras
from keras import layers, ops

_EPSILON = 1e-6


@keras.saving.register_keras_serializable("tf_metassl")
class Tokens(layers.Layer):
    """Puts a learned class token before the patches, and adds positions."""

    def build(self, input_shape):
        """Creates the token and the positions, which start as N(0, 0.02)."""
        _, count, width = input_shape
        self.token = self.add_weight(
            name="token", shape=(1, 1, width), initializer="zeros"
        )
        self.positions = self.add_weight(
            name="positions",
            shape=(1, count + 1, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, patches):
        """`[N, P, F]` -> `[N, P + 1, F]`."""
        token = ops.broadcast_to(
            self.token, (ops.shape(patches)[0], 1, patches.shape[-1])
        )
        return ops.concatenate([token, patches], axis=1) + self.positions

    def compute_output_shape(self, input_shape):
        """One token more."""
        batch, count, width = input_shape
        return batch, count + 1, width


def vit(
    images,
    num_classes,
    *,
    patch,
    width,
    depth,
    heads,
    dropout,
    synchronized,
):
    """A Vision Transformer with a class token.

    Parameters for 1,000 classes and 224 pixels: ViT-B/16 86,567,656, ViT-L/16
    304,326,632, ViT-H/14 632,045,800 (86, 307 and 632 million in the paper's
    table 1; the exact numbers are those of torchvision). The MLP is four times
    as wide. There is no dropout inside, and the number of positions is that of
    the image size, so that weights fit images of one size.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`.
        num_classes: C.
        patch: height and width of a patch.
        width: features of a token.
        depth: layers of the encoder.
        heads: of attention.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: not used, there is no batch norm.

    Returns:
        Logits, a Keras tensor `[N, C]`.

    Raises:
        ValueError: if the images cannot be divided into patches.
    """
    del synchronized
    if images.shape[1] % patch or images.shape[2] % patch:
        raise ValueError(
            f"A network with patches of {patch}x{patch} pixels needs images "
            f"whose sides are multiples of {patch}, got {images.shape[1]}x"
            f"{images.shape[2]}: change --image_size or --model."
        )
    x = layers.Conv2D(width, patch, strides=patch)(images)
    x = Tokens()(layers.Reshape((-1, width))(x))
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        y = layers.MultiHeadAttention(heads, width // heads)(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization(epsilon=_EPSILON)(x)
        y = layers.Dense(4 * width, "gelu")(y)
        y = layers.Dense(width)(y)
        x = layers.Add()([x, y])
    x = layers.LayerNormalization(epsilon=_EPSILON)(x)[:, 0]
    if dropout:
        x = layers.Dropout(dropout)(x)
    return layers.Dense(
        num_classes,
        kernel_initializer="zeros",
        dtype=keras.config.floatx(),
        name="logits",
    )(x)
