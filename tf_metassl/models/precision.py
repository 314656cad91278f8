"""bfloat16 on processors that have no instructions for it."""

import functools
import pathlib
import re

import keras
import tensorflow as tf
from keras import layers

from tf_metassl.models.layers import MovingStatistics

_CPU_FILE = pathlib.Path("/proc/cpuinfo")
# As Linux names them on x86 and on ARM.
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
# Those that compute, and do not only move, add or choose among numbers.
_LAYERS = (
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.SeparableConv2D,
    layers.DepthwiseConv2D,
    layers.Dense,
    layers.EinsumDense,
    layers.MultiHeadAttention,
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    MovingStatistics,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.Softmax,
)


@functools.cache
def emulates_bfloat16() -> bool:
    """Whether networks run on a processor without instructions for bfloat16.

    There, TensorFlow's gradients of convolutions take 20 to 40 times as long as
    in float32, and activations and normalization make a step of wrn_16_1 a
    tenth longer. False where there is an accelerator, and where the processor
    does not say what it has.
    """
    for kind in ("GPU", "TPU"):
        if tf.config.list_logical_devices(kind):
            return False
    try:
        text = _CPU_FILE.read_text("utf-8")
    except OSError:
        return False
    return not _INSTRUCTIONS & set(re.findall(r"\w+", text))


def is_emulated(policy: str) -> bool:
    """Whether `compute_in_float32` is for networks of a Keras dtype policy."""
    return policy == "mixed_bfloat16" and emulates_bfloat16()


def compute_in_float32(network: keras.Model) -> None:
    """Lets layers with costly operations compute in float32.

    What is left for bfloat16 are the sums of residual networks and the layers
    that only move numbers, such as pooling: they round what they get.

    Args:
        network: a built Keras model, which is changed.
    """
    for layer in network._flatten_layers():
        if isinstance(layer, _LAYERS) and layer.compute_dtype == "bfloat16":
            layer.dtype_policy = "float32"
