"""PolyNet: Zhang, Li, Loy, Lin, arXiv 1611.05725, as it was released."""

from keras import layers

from tf_metassl.models.inception_v4 import Inception
from tf_metassl.models.layers import classifier

# See `inception_v4`. The branches of a residual block.
_A = ("32,1,1 48,3,3 64,3,3", "32,1,1 32,3,3", "32,1,1")
_B = ("128,1,1 160,1,7 192,7,1", "192,1,1")
_C = ("192,1,1 224,1,3 256,3,1", "192,1,1")
_REDUCTION_A = ("256,1,1 256,3,3 384,3,3/", "384,3,3/", "max/")
_REDUCTION_B = (
    "256,1,1 256,3,3 256,3,3/",
    "256,1,1 256,3,3/",
    "256,1,1 384,3,3/",
    "max/",
)


def polynet(images, num_classes, *, dropout, synchronized):
    """The very deep PolyNet, 95,366,600 parameters for 1,000 classes.

    10 two-way blocks A; 20 blocks B and 10 blocks C, in turn poly-3 and
    two-way. A two-way block adds two residual blocks of the same input; a
    poly-3 block applies one three times over, whose convolutions are shared but
    for the last, and adds the three results. The number is that of the network
    that the authors have released, as timm and others count it; later tables of
    papers give 92 million. Residuals are multiplied by 1 to 0.7, by depth.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`, at least 75x75.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    inception = Inception(synchronized)

    def kernels(branches):
        return [
            [(text, inception.kernel(text)) for text in branch.split()]
            for branch in branches
        ]

    def residual(x, shared):
        ends = []
        for branch in shared:
            y = x
            for text, layer in branch:
                y = inception.convolution(y, text, layer=layer)
            ends.append(y)
        return inception.convolution(
            layers.Concatenate()(ends), f"{x.shape[-1]},1,1", rectify=False
        )

    def two_way(x, branches, scale):
        parts = [residual(x, kernels(branches)) for _ in range(2)]
        return added(x, parts, scale)

    def poly_3(x, branches, scale):
        shared, parts, y = kernels(branches), [], x
        for _ in range(3):
            part = residual(y, shared)
            parts.append(part)
            y = layers.ReLU()(part)
        return added(x, parts, scale)

    def added(x, parts, scale):
        scaled = [layers.Rescaling(scale)(part) for part in parts]
        return layers.ReLU()(layers.Add()([x, *scaled]))

    stages = (
        (_A, 10, (two_way,), _REDUCTION_A),
        (_B, 20, (poly_3, two_way), _REDUCTION_B),
        (_C, 10, (poly_3, two_way), None),
    )
    total = sum(count for _, count, *_ in stages)
    x, done = inception.stem(images), 0
    for branches, count, kinds, reduction in stages:
        for number in range(count):
            scale = 1.0 - 0.3 * done / (total - 1)
            x = kinds[number % len(kinds)](x, branches, scale)
            done += 1
        if reduction:
            x = inception.block(x, reduction)
    return classifier(x, num_classes, dropout)
