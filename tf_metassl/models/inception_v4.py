"""Inception-v4: Szegedy, Ioffe, Vanhoucke, Alemi, arXiv 1602.07261."""

from keras import layers

from tf_metassl.models.layers import BatchNormalization, classifier

# Branches of a block: convolutions one after the other. A convolution is its
# filters, and height and width of its kernel. `/` halves the image, `v` leaves
# out its border, `|` separates what is applied in parallel. `max` and `average`
# are 3x3 poolings.
_STEM = (
    ("max/", "96,3,3/"),
    ("64,1,1 96,3,3v", "64,1,1 64,1,7 64,7,1 96,3,3v"),
    ("192,3,3/", "max/"),
)
_A = (
    "96,1,1",
    "64,1,1 96,3,3",
    "64,1,1 96,3,3 96,3,3",
    "average 96,1,1",
)
_REDUCTION_A = ("384,3,3/", "192,1,1 224,3,3 256,3,3/", "max/")
_B = (
    "384,1,1",
    "192,1,1 224,1,7 256,7,1",
    "192,1,1 192,7,1 224,1,7 224,7,1 256,1,7",
    "average 128,1,1",
)
_REDUCTION_B = (
    "192,1,1 192,3,3/",
    "256,1,1 256,1,7 320,7,1 320,3,3/",
    "max/",
)
_C = (
    "256,1,1",
    "384,1,1 256,1,3|256,3,1",
    "384,1,1 448,3,1 512,1,3 256,1,3|256,3,1",
    "average 256,1,1",
)


class Inception:
    """Blocks of parallel branches, which are written as text.

    Args:
        synchronized: batch statistics over all replicas.
    """

    def __init__(self, synchronized):
        self._synchronized = synchronized

    def stem(self, images):
        """`[N, H, W, C]` -> `[N, H / 8, W / 8, 384]`, less some borders."""
        x = images
        for text in ("32,3,3/", "32,3,3v", "64,3,3"):
            x = self.convolution(x, text)
        for branches in _STEM:
            x = self.block(x, branches)
        return x

    def block(self, x, branches):
        """The branches beside each other."""
        ends = [end for text in branches for end in self._ends(x, text)]
        return layers.Concatenate()(ends)

    def convolution(self, x, text, *, layer=None, rectify=True):
        """Convolution, batch norm and, unless `rectify` is False, ReLU.

        Args:
            x: Keras tensor.
            text: the convolution.
            layer: one that is shared; None: a new one.
            rectify: whether ReLU follows.
        """
        x = (layer or self.kernel(text))(x)
        x = BatchNormalization(
            momentum=0.9997, epsilon=1e-3, synchronized=self._synchronized
        )(x)
        return layers.ReLU()(x) if rectify else x

    @staticmethod
    def kernel(text):
        """The layer of a convolution."""
        reduces, valid = text.endswith("/"), text[-1] in "/v"
        filters, height, width = map(int, text.rstrip("/v").split(","))
        return layers.Conv2D(
            filters,
            (height, width),
            strides=2 if reduces else 1,
            padding="valid" if valid else "same",
            use_bias=False,
        )

    def _ends(self, x, text):
        *steps, last = text.split()
        for step in steps:
            x = self._single(x, step)
        return [self._single(x, step) for step in last.split("|")]

    def _single(self, x, step):
        if step == "max/":
            return layers.MaxPooling2D(3, 2)(x)
        if step == "average":
            return layers.AveragePooling2D(3, 1, padding="same")(x)
        return self.convolution(x, step)


def inception_v4(images, num_classes, *, dropout, synchronized):
    """The paper's network, 42,679,816 parameters for 1,000 classes.

    The number is timm's for the released network; later tables of papers give
    48 million.

    Args:
        images: scaled images, a Keras tensor `[N, H, W, C]`, at least 75x75.
        num_classes: C.
        dropout: rate before the last layer; 0 adds no layer.
        synchronized: batch statistics over all replicas.

    Returns:
        Logits, a Keras tensor `[N, C]`.
    """
    inception = Inception(synchronized)
    x = inception.stem(images)
    for branches in (
        *[_A] * 4,
        _REDUCTION_A,
        *[_B] * 7,
        _REDUCTION_B,
        *[_C] * 3,
    ):
        x = inception.block(x, branches)
    return classifier(x, num_classes, dropout)
