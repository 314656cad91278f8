"""bfloat16 on processors that have no instructions for it."""

import functools
import pathlib
import re

import keras
import tensorflow as tf
from keras import layers

_CPU_FILE = pathlib.Path("/proc/cpuinfo")
# As Linux names them on x86 and on ARM.
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
# Those that multiply by a kernel. Attention is made of dense ones.
_LAYERS = (
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.SeparableConv2D,
    layers.DepthwiseConv2D,
    layers.Dense,
    layers.EinsumDense,
)


@functools.cache
def emulates_bfloat16() -> bool:
    """Whether networks run on a processor without instructions for bfloat16.

    There, TensorFlow's gradients of convolutions take 20 to 40 times as long as
    in float32. False where there is an accelerator, and where the processor
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
    """Whether `multiply_in_float32` is for networks of a Keras dtype policy."""
    return policy == "mixed_bfloat16" and emulates_bfloat16()


def multiply_in_float32(network: keras.Model) -> None:
    """Lets layers that multiply by a kernel compute in float32.

    The layers between them stay in bfloat16, and round what they get.

    Args:
        network: a built Keras model, which is changed.
    """
    for layer in network._flatten_layers():
        if isinstance(layer, _LAYERS) and layer.compute_dtype == "bfloat16":
            layer.dtype_policy = "float32"
