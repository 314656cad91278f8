"""The time of an evaluation, for `tools/benchmark.py evaluation`."""

import numpy as np

from tools import benchmark_timing

MODEL, SIDE = "wrn_16_1", 32


def experiment(num_images, batch_size, model=MODEL, side=SIDE):
    """An `Experiment` with validation images of noise.

    Args:
        num_images: the validation images.
        batch_size: `--eval_batch_size`.
        model: the network.
        side: of the images, pixels.
    """
    from tf_metassl import config
    from tf_metassl.contract import DatasetInfo
    from tf_metassl.data import store
    from tf_metassl.run.build import build_experiment

    shape = (side, side, 3)
    rng = np.random.default_rng(0)
    size = num_images + 100
    images = store.Images(
        rng.integers(0, 256, (size, *shape), np.uint8),
        np.arange(size, dtype=np.int32) % 10,
    )
    info = DatasetInfo("noise", tuple("0123456789"), shape)
    test = images.take(np.arange(10))
    settings = {
        "algo": "supervised",
        "model": model,
        "num_labeled": 20,
        "num_validation": num_images,
        "eval_batch_size": batch_size,
    }
    return build_experiment(
        config.resolve(settings),
        source=store.Source(info, images, test, "flip_crop", "fixmatch"),
    )


def functions(built):
    """What is compared, name -> function without arguments.

    Args:
        built: an `Experiment`.
    """
    import tensorflow as tf

    from tf_metassl.run import evaluation

    algorithm = built.algorithm
    images = built.images("validation")
    pixels = tf.constant(images.read(range(len(images))))
    network = algorithm.deployable_model
    size = built.config.eval_batch_size
    apply = tf.function(
        lambda batch: network(batch, training=False), reduce_retracing=True
    )

    def bare():
        for first in range(0, len(images), size):
            apply(pixels[first : first + size])

    exported = (evaluation.deployable_role(algorithm),)
    return {
        "bare pass of one network": bare,
        "evaluation of the exported network": lambda: evaluation.evaluate(
            built, algorithm, "validation", networks=exported
        ),
        "evaluation of student and average": lambda: evaluation.evaluate(
            built, algorithm, "validation"
        ),
    }


def run_evaluation(args):
    """Prints and writes the time of evaluations beside that of a bare pass."""
    benchmark_timing.one_core()
    built = experiment(args.images, args.batch_size)
    found = benchmark_timing.alternate(functions(built), args.repeats, 0.0)
    base = found["bare pass of one network"]
    rows = [
        [
            name,
            benchmark_timing.milliseconds(times),
            *benchmark_timing.ratios(times, base),
        ]
        for name, times in found.items()
    ]
    lines = [
        "# Time of an evaluation",
        "",
        "Made by `python tools/benchmark.py evaluation`: "
        f"{args.images} images of {SIDE} x {SIDE} x 3 in batches of "
        f"{args.batch_size}, {MODEL}. The bare pass computes the logits of "
        "images that are in memory, and nothing else. "
        f"{benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(["what", "ms", "CPU time", "time"], rows),
    ]
    benchmark_timing.publish(lines, args.out, "evaluation.md")
