"""Runs training steps on demand, for tools/benchmark.py to time.

    cd TREE && python /path/to/step_worker.py

serves the source tree in the working directory, which may be another version
of this project: two workers, asked in turn, compare two versions of a step at
the same load of the machine. Each line of standard input is a request in JSON,
answered by a line of standard output:

    {"algo": ..., "settings": {...}, ...}   builds a method, see `built`
    {"steps": N}                            runs N steps
    {"forward": N}                          runs its network N times

Steps are answered by CPU seconds and seconds per step.
"""

import json
import os
import sys
import time
import typing

sys.path.insert(0, os.getcwd())


class Parts(typing.NamedTuple):
    """A method that is ready to train.

    Attributes:
        step: function without arguments, a training step.
        forward: function without arguments, a pass of the network.
        algorithm: the compiled `Algorithm`.
        iterator: over the batch, which repeats; under a strategy of several
            replicas the step takes its own.
    """

    step: typing.Callable
    forward: typing.Callable
    algorithm: typing.Any
    iterator: typing.Any


def built(algo, settings, model, image_shape, batch_size, replicas=1):
    """The step and the forward pass of `parts`, on some replicas.

    Args:
        algo: as for `parts`, and so are the settings, network and sizes.
        settings: see there.
        model: see there.
        image_shape: see there.
        batch_size: of all replicas.
        replicas: logical devices of one CPU; set before TensorFlow is used.
    """
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")[:1]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
        )
        strategy = tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices("CPU")]
        )
    with strategy.scope():
        found = parts(algo, settings, model, image_shape, batch_size)
    return found.step, found.forward


def parts(algo, settings, model, image_shape, batch_size):
    """A step of a method, and a forward pass of its network.

    Args:
        algo: the method.
        settings: further settings, a dict.
        model: the network.
        image_shape: of the images, which are noise.
        batch_size: labeled images; there are twice as many unlabeled ones.

    Returns:
        `Parts`. The same batch is used in every call: the input pipeline is not
        measured.
    """
    import numpy as np
    import tensorflow as tf

    from tf_metassl import config as config_lib
    from tf_metassl.contract import DatasetInfo
    from tf_metassl.data import pipeline, store
    from tf_metassl.run.build import build_algorithm

    config = config_lib.resolve(
        {"algo": algo, "model": model, "batch_size": batch_size, **settings}
    )
    info = DatasetInfo("noise", tuple("0123456789"), tuple(image_shape))
    rng = np.random.default_rng(0)
    images = store.Images(
        rng.integers(0, 256, (512, *image_shape), np.uint8),
        np.arange(512, dtype=np.int32) % 10,
    )
    source = store.Source(info, images, images, "flip_crop", "mpl")
    strategy = tf.distribute.get_strategy()
    algorithm = build_algorithm(
        config, info, strategy.num_replicas_in_sync, len(images)
    )
    rows = np.arange(len(images))
    sizes = {"labeled": batch_size, "unlabeled": 2 * batch_size}
    # An earlier version has no probes beside the views.
    views = getattr(algorithm, "batch_views", algorithm.views)
    pools = [
        pipeline.Pool(name, rows, size, getattr(views, name))
        for name, size in sizes.items()
        if getattr(views, name)
    ]
    batch = next(
        iter(
            pipeline.training_dataset(
                source,
                pools,
                views=views,
                augmentation=pipeline.Augmentation("flip_crop", "mpl"),
                seed=0,
            )
        )
    )
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    iterator = iter(strategy.experimental_distribute_dataset(dataset))
    train = algorithm.make_train_function()
    network = algorithm.student
    pixels = tf.constant(images.pixels[: 2 * batch_size])
    apply = tf.function(lambda: network(pixels, training=False))
    return Parts(lambda: train(iterator), apply, algorithm, iterator)


def timed(function, times):
    """Calls a function: `[CPU seconds, seconds]` per call."""
    import tensorflow as tf

    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        function()
    tf.test.experimental.sync_devices()  # A GPU may be behind.
    used = time.process_time() - cpu, time.perf_counter() - wall
    return [seconds / times for seconds in used]


def main():
    """Answers requests until standard input ends."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # First, because it chooses the kernels that TensorFlow is imported with.
    import tf_metassl  # noqa: F401, I001
    import tensorflow as tf

    # One core, so that CPU seconds are those of the work.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What is printed on the way is no answer.
    functions = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "algo" in request:
            step, forward = built(**request)
            functions = {"steps": step, "forward": forward}
            answer = {name: timed(f, 1) for name, f in functions.items()}
        else:
            ((name, times),) = request.items()
            answer = timed(functions[name], times)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
