"""Strategies by name, and datasets that know their replica."""

import tensorflow as tf


def make_strategy(name, num_replicas=0):
    """The `tf.distribute` strategy called `name`.

    Args:
        name: `one_device`, `mirrored` or `auto`, which is mirrored if there
            are several GPUs.
        num_replicas: replicas of `mirrored`; 0 for all GPUs. Without a GPU
            the CPU is split into as many logical devices.

    Raises:
        ValueError: if there are not as many devices.
    """
    # Physical devices: asking for logical ones would initialise TensorFlow,
    # after which the CPU cannot be split any more.
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "one_device":
        return tf.distribute.get_strategy()
    if gpus:
        wanted = num_replicas or len(gpus)
        if wanted > len(gpus):
            raise ValueError(
                f"--num_replicas={num_replicas}: there are {len(gpus)} GPUs."
            )
        return tf.distribute.MirroredStrategy(
            [f"GPU:{index}" for index in range(wanted)]
        )
    wanted = max(num_replicas, 1)
    return tf.distribute.MirroredStrategy(_logical_cpus(wanted))


def _logical_cpus(count):
    """Names of `count` logical CPU devices, made if TensorFlow still can."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(configured) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError as error:
            raise ValueError(
                f"--num_replicas={count}: the CPU was in use before it could "
                "be split into logical devices. Ask for them in a fresh "
                "process."
            ) from error
    names = [d.name for d in tf.config.list_logical_devices("CPU")]
    return names[:count]


def distribute(strategy, make_dataset):
    """A dataset for `fit` or `evaluate` under `strategy`.

    Args:
        strategy: a `tf.distribute.Strategy`.
        make_dataset: function of `shard`, `num_shards` and `local_shards`, see
            `tf_metassl.data.pipeline`, that returns per-replica batches.

    Returns:
        A `tf.data.Dataset`, or its distributed form if there are several
        replicas.
    """
    if strategy.num_replicas_in_sync == 1:
        return make_dataset(shard=0, num_shards=1, local_shards=1)

    def for_pipeline(context):
        local = context.num_replicas_in_sync // context.num_input_pipelines
        return make_dataset(
            shard=context.input_pipeline_id * local,
            num_shards=context.num_replicas_in_sync,
            local_shards=local,
        )

    return strategy.distribute_datasets_from_function(for_pipeline)
