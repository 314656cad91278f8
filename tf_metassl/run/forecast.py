"""What a run is going to cost: operations, memory, and time on this machine.

The forecast counts one pass of one network over every view of a batch. Methods
with several networks or passes need more.
"""

import dataclasses
import os
import time

import tensorflow as tf

from tf_metassl import config as config_lib
from tf_metassl import models
from tf_metassl.data.datasets import DATASETS
from tf_metassl.models import costs, precision
from tf_metassl.options import LOOP_STEPS, MOST_PER_CALL

_GIGA, _GIB, _MIB = 1e9, 2**30, 2**20

# Smaller networks are cheap everywhere.
_CHEAP = 1e9
# A run with fewer operations is short on any machine.
_SHORT = 1e15
_LONG_HOURS = 12
# Of many GPUs.
_GPU_BYTES = 24 * _GIB
# Operations in half a second: of one core of a CPU, of a GPU or TPU.
_CPU_CALL, _ACCELERATOR_CALL = 1e10, 1e13
# A backward pass takes about twice the time of a forward pass.
_PASSES = 3


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The costs of a run.

    Attributes:
        flops: operations of a forward pass per image.
        image_bytes: activations per image.
        views: images in a step, every view of them counted.
        step_bytes: activations per step and replica, at most.
        total_flops: operations of the run.
    """

    flops: int
    image_bytes: int
    views: int
    step_bytes: int
    total_flops: float


def of(experiment):
    """The `Forecast` of an `Experiment`.

    Returns:
        A `Forecast`; None for a network of one's own, which cannot be counted,
        and where nothing but the last layer is run.
    """
    config = experiment.config
    if models.find(config.model).is_own or experiment.backbone is not None:
        return None
    network = costs.of(experiment.algorithm.student)
    pools = experiment.pools(experiment.algorithm)
    views = sum(pool.batch_size * len(pool.views) for pool in pools)
    parts = config.gradient_accumulation_steps
    parts *= experiment.strategy.num_replicas_in_sync
    return Forecast(
        flops=network.flops,
        image_bytes=network.activation_bytes,
        views=views,
        step_bytes=network.activation_bytes * views // parts,
        total_flops=float(_PASSES * network.flops * views * config.num_steps),
    )


def steps_per_call(experiment):
    """The steps per call with `--steps_per_execution=0`.

    All steps of a call end before a signal is obeyed and a checkpoint written,
    so that there are no more than are over soon.

    Args:
        experiment: an `Experiment`.

    Returns:
        A divisor of all numbers of steps of the run.
    """
    config = experiment.config
    if config.num_steps <= LOOP_STEPS:
        return 1
    if experiment.backbone is not None:
        # Nothing but the last layer is run.
        return config_lib.steps_per_call(config, MOST_PER_CALL)
    found = of(experiment)
    if found is None:
        return 1
    limit = _CPU_CALL
    if config.strategy == "tpu" or tf.config.list_physical_devices("GPU"):
        replicas = experiment.strategy.num_replicas_in_sync
        limit = _ACCELERATOR_CALL * replicas
    fitting = int(limit * config.num_steps / found.total_flops)
    return config_lib.steps_per_call(
        config, max(1, min(fitting, MOST_PER_CALL))
    )


def line(experiment):
    """A line for the plan about the network and its costs.

    Args:
        experiment: an `Experiment`.

    Returns:
        Text; empty if the network was neither chosen by the size of the images
        nor is large.
    """
    config, found = experiment.config, of(experiment)
    shape = experiment.source.info.image_shape
    auto = config_lib.UNKNOWN["model"]
    by_size = DATASETS[config.dataset].defaults["model"] == auto
    if found is None or not (by_size or found.flops >= _CHEAP):
        return ""
    text = (
        f"{_number(found.flops / _GIGA)} GFLOP and "
        f"{_number(found.image_bytes / _MIB)} MiB of activations per image; "
        f"{found.views} views a step, up to "
        f"{_number(found.step_bytes / _GIB)} GiB"
    )
    if by_size and config.model == models.for_size(shape):
        text = f"the default for {shape[0]}x{shape[1]} pixels; {text}"
    return text


def warnings(experiment):
    """Sentences about costs that this machine may not bear.

    Args:
        experiment: an `Experiment`.

    Returns:
        A list of strings.
    """
    config = experiment.config
    result = []
    if precision.is_emulated(config.precision):
        result.append(
            f"--precision={config.precision}: this processor has no "
            "instructions for bfloat16. Convolutions, dense layers, "
            "normalization and activations compute in float32; "
            "--precision=float32 is not slower."
        )
    found = of(experiment)
    if found is None:
        return result
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    limit = _GPU_BYTES if on_gpu else _memory()
    if not config.remat and limit and found.step_bytes > limit:
        whose = "many GPUs have" if on_gpu else "this machine has"
        result.append(
            f"A step may need up to {found.step_bytes / _GIB:,.0f} GiB of "
            f"memory for activations; {whose} {limit / _GIB:,.0f}. Lower "
            "--image_size or --batch_size, set "
            "--gradient_accumulation_steps or --remat, or choose a smaller "
            "--model."
        )
    if found.total_flops > _SHORT and config.strategy != "tpu":
        replicas = experiment.strategy.num_replicas_in_sync if on_gpu else 1
        hours = found.total_flops / (_flops_per_second() * replicas) / 3600
        if hours > _LONG_HOURS:
            result.append(
                f"This run will take at least {hours:,.0f} hours on this "
                f"machine: {found.flops / _GIGA:,.1f} GFLOP forward for each "
                f"of {found.views} views in {config.num_steps} steps. Lower "
                "--image_size, --batch_size or --num_steps, or choose a "
                "smaller --model; tf-metassl summary prints what a network "
                "costs."
            )
    return result


def _number(value):
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _memory():
    """The bytes of this machine's memory; 0 if they are not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _flops_per_second(size=2048, repetitions=3):
    """The speed of a matrix product, which no network exceeds."""
    matrix = tf.ones([size, size])

    def seconds():
        start = time.monotonic()
        tf.linalg.matmul(matrix, matrix).numpy()
        return time.monotonic() - start

    seconds()
    best = min(seconds() for _ in range(repetitions))
    return 2 * size**3 / max(best, 1e-9)
