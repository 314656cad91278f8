"""CNN-13, the network of many semi-supervised methods for small photos.

Source: Laine and Aila, arXiv 1610.02242. Later papers changed it, see
`VARIANTS`.
"""

import functools
import typing

from keras import layers

from tf_metassl.models.layers import (
    BatchNormalization,
    MeanOnlyBatchNormalization,
    WeightNormConv2D,
    WeightNormDense,
    classifier,
)


class Variant(typing.NamedTuple):
    """Choices in which implementations of the literature differ.

    Attributes:
        mean_only: batch norm that subtracts the mean alone.
        momentum: of batch norm.
        epsilon: of batch norm.
        bias: whether convolutions have one besides batch norm's.
        weight_norm: on all convolutions and the last layer.
        activation_first: convolution, activation, batch norm; else batch norm
            comes before the activation.
        slope: of the leaky ReLU.
        whole_channels: dropout drops whole channels of an image.
        noise: standard deviation of Gaussian noise on the scaled input.
    """

    mean_only: bool = False
    momentum: float = 0.999
    epsilon: float = 1e-3
    bias: bool = False
    weight_norm: bool = False
    activation_first: bool = False
    slope: float = 0.1
    whole_channels: bool = False
    noise: float = 0.0


_TORCH = {"momentum": 0.9, "epsilon": 1e-5}
VARIANTS = {
    "plain": Variant(),
    # Temporal ensembling as well. Its last layer is normalized, too.
    "mean_teacher": Variant(mean_only=True, weight_norm=True, noise=0.15),
    "vat": Variant(momentum=0.99, epsilon=1e-6),
    # With one of its two heads, hence the layers of ICT.
    "fast_swa": Variant(bias=True, weight_norm=True, **_TORCH),
    "ict": Variant(bias=True, weight_norm=True, **_TORCH),
    "semi_meta": Variant(whole_channels=True, **_TORCH),
    "fixmatch": Variant(bias=True, activation_first=True, slope=0.2),
}


def cnn13(images, num_classes, *, variant, dropout, synchronized):
    """Nine convolutions, two poolings, an average, a dense layer.

    For 10 classes and three channels 3,121,802 parameters with batch norm
    alone (plain, vat, semi_meta), 3,123,850 with biases (fixmatch), 3,125,908
    with weight norm and biases (fast_swa, ict), 3,121,812 with mean-only batch
    norm and weight norm (mean_teacher).

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`, at least 12x12.
        num_classes: C.
        variant: a key of `VARIANTS`.
        dropout: rate after both poolings; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    settings = VARIANTS[variant]

    def normalized(x, **options):
        if settings.mean_only:
            return MeanOnlyBatchNormalization(
                settings.momentum, synchronized, **options
            )(x)
        return BatchNormalization(
            momentum=settings.momentum,
            epsilon=settings.epsilon,
            synchronized=synchronized,
        )(x)

    def convolution(x, filters, size, padding):
        kind = WeightNormConv2D if settings.weight_norm else layers.Conv2D
        x = kind(
            filters,
            size,
            padding=padding,
            use_bias=settings.bias,
            kernel_initializer="he_normal",
        )(x)
        if settings.activation_first:
            return normalized(layers.LeakyReLU(settings.slope)(x))
        return layers.LeakyReLU(settings.slope)(normalized(x))

    def pooled(x):
        x = layers.MaxPooling2D(2)(x)
        if not dropout:
            return x
        if settings.whole_channels:
            return layers.SpatialDropout2D(dropout)(x)
        return layers.Dropout(dropout)(x)

    x = images
    if settings.noise:
        x = layers.GaussianNoise(settings.noise)(x)
    for filters in (128, 256):
        for _ in range(3):
            x = convolution(x, filters, 3, "same")
        x = pooled(x)
    x = convolution(x, 512, 3, "valid")
    x = convolution(x, 256, 1, "same")
    x = convolution(x, 128, 1, "same")
    if not settings.weight_norm:
        return classifier(x, num_classes)
    if not settings.mean_only:
        return classifier(x, num_classes, dense=WeightNormDense)
    # The bias comes after the mean has been subtracted.
    dense = functools.partial(WeightNormDense, use_bias=False)
    logits = classifier(x, num_classes, dense=dense)
    return normalized(logits, dtype=logits.dtype)
