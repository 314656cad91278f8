"""Networks: uint8 images (or floats in 0...255) -> float32 logits."""

import re

from tf_metassl.models.digits_cnn import digits_cnn
from tf_metassl.models.wide_resnet import wide_resnet


def build(name, image_shape, num_classes, **options):
    """Builds the network called `name`.

    Args:
        name: `digits_cnn` or `wrn_D_K`, such as `wrn_28_2`.
        image_shape: height, width, channels.
        num_classes: C.
        **options: `dropout`, `synchronized` and `network_name`, see the
            networks.

    Returns:
        A built Keras model, `[N, H, W, C]` -> logits `[N, C]`.

    Raises:
        ValueError: if the name is unknown or the depth impossible.
    """
    if name == "digits_cnn":
        return digits_cnn(image_shape, num_classes, **options)
    match = re.fullmatch(r"wrn_(\d+)_(\d+)", name)
    if not match:
        raise ValueError(
            f"--model={name}: must be digits_cnn or wrn_D_K, such as wrn_28_2."
        )
    depth, width = map(int, match.groups())
    return wide_resnet(
        image_shape, num_classes, depth=depth, width=width, **options
    )
