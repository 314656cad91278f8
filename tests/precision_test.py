"""bfloat16 where the processor has no instructions for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_metassl import config
from tf_metassl.models import precision
from tf_metassl.ops import averaging
from tf_metassl.run import build, forecast


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Makes a processor of what it says to have."""

    def says(text):
        precision.emulates_bfloat16.cache_clear()
        monkeypatch.setattr(precision, "_CPU_FILE", tmp_path / "cpuinfo")
        if text is not None:
            (tmp_path / "cpuinfo").write_text(text)

    yield says
    precision.emulates_bfloat16.cache_clear()
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "text, expected",
    (
        ("flags\t: fpu avx2 fma avx512f", True),
        ("flags\t: fpu avx512f avx512_bf16 vnni", False),
        ("flags\t: amx_tile amx_bf16", False),
        ("Features\t: fp asimd bf16 i8mm", False),
        (None, False),
    ),
)
def test_what_a_processor_says(text, expected, processor):
    processor(text)
    assert precision.emulates_bfloat16() == expected


def test_an_accelerator_computes_by_itself(processor, monkeypatch):
    processor("flags: avx2")
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: [kind] * (kind == "GPU")
    )
    assert not precision.emulates_bfloat16()


def built(**given):
    return build.build_experiment(
        config.resolve({"algo": "supervised", "batch_size": 8, **given})
    )


def dtypes_of(network):
    """Kind of layer -> its compute dtypes."""
    found = {}
    for layer in network._flatten_layers():
        found.setdefault(type(layer).__name__, set()).add(layer.compute_dtype)
    return found


def test_layers_compute_in_float32_where_bfloat16_is_emulated(processor):
    processor("flags: avx2")
    experiment = built(precision="mixed_bfloat16")
    (warning,) = forecast.warnings(experiment)
    assert "--precision=float32" in warning
    student = experiment.algorithm.student
    assert dtypes_of(student)["Conv2D"] == {"float32"}
    assert dtypes_of(student)["BatchNormalization"] == {"float32"}
    assert dtypes_of(student)["GlobalAveragePooling2D"] == {"bfloat16"}
    # A copy is one, and trains: gradients are those of the variables.
    copy = averaging.copy_of(student)
    assert dtypes_of(copy) == dtypes_of(student)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(student(images, training=True) ** 2)
    for gradient in tape.gradient(loss, student.trainable_variables):
        assert gradient.dtype == tf.float32

    processor("flags: avx512_bf16")
    experiment = built(precision="mixed_bfloat16")
    assert forecast.warnings(experiment) == []
    native = experiment.algorithm.student
    assert dtypes_of(native)["Conv2D"] == {"bfloat16"}
    native.set_weights(copy.get_weights())
    np.testing.assert_allclose(
        native(images), copy(images), rtol=0.05, atol=0.02
    )


def test_float32_and_layers_of_ones_own_policy_stay(processor):
    processor("flags: avx2")
    assert forecast.warnings(built()) == []
    pixels = keras.Input((3,))
    hidden = layers.Dense(2, dtype="float64")(pixels)
    network = keras.Model(pixels, layers.Dense(2, dtype="bfloat16")(hidden))
    precision.compute_in_float32(network)
    assert dtypes_of(network)["Dense"] == {"float64", "float32"}
