"""`tf.distribute` strategies by name, workers, and distributed datasets."""

import contextlib
import faulthandler
import functools
import re
import sys
import zlib

import numpy as np
import tensorflow as tf

from tf_metassl.errors import ConfigError, WorkerLostError
from tf_metassl.run import cluster as cluster_lib
from tf_metassl.run import rendezvous

# Seconds that a worker waits for the others to join.
JOIN_TIMEOUT = 60


def make_strategy(name, num_replicas=0, tpu="", facts=None):
    """Makes the `tf.distribute` strategy called `name`.

    Call it before any other use of TensorFlow, after which a CPU cannot be
    split and a cluster cannot be joined.

    Args:
        name: `one_device`, `mirrored`, `multi_worker`, `tpu` or `auto`, which
            is `multi_worker` if the environment names several workers, else
            `mirrored` if there are several GPUs or `num_replicas` is given,
            else `one_device`.
        num_replicas: number of replicas of `mirrored`; 0 for all GPUs.
            Without a GPU the CPU is split into as many logical devices.
        tpu: name or address of the TPU, or `local`; empty for the one that
            the environment names.
        facts: what must be the same on several workers, see
            `tf_metassl.run.rendezvous.meet`.

    Raises:
        ValueError: if there are too few devices, no cluster or no TPU.
    """
    # Listing logical devices would initialize TensorFlow, after which the CPU
    # cannot be split.
    gpus = tf.config.list_physical_devices("GPU")
    cluster = cluster_lib.for_strategy(name)
    if cluster and num_replicas:
        raise ValueError(
            f"--num_replicas={num_replicas} is for one machine, but the "
            f"environment names {len(cluster.workers)} workers: leave it out, "
            "or set --strategy=mirrored."
        )
    if name == "multi_worker" or cluster:
        return _multi_worker(cluster, len(gpus), facts or {})
    if name == "auto":
        several = num_replicas or len(gpus) > 1
        name = "mirrored" if several else "one_device"
    if name == "tpu":
        return _tpu(tpu)
    if name == "one_device":
        return tf.distribute.get_strategy()
    if gpus:
        wanted = num_replicas or len(gpus)
        if wanted > len(gpus):
            raise ValueError(
                f"--num_replicas={num_replicas}, but there are {len(gpus)} "
                "GPUs. Use at most as many replicas as GPUs."
            )
        return tf.distribute.MirroredStrategy(
            [f"GPU:{index}" for index in range(wanted)]
        )
    wanted = max(num_replicas, 1)
    return tf.distribute.MirroredStrategy(_logical_cpus(wanted))


def _logical_cpus(count):
    """Names of `count` logical CPU devices, created if necessary."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(configured) < count:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError as error:
            raise ValueError(
                f"--num_replicas={count}: TensorFlow was already in use when "
                "the CPU was to be split into logical devices. Make the "
                "strategy first in a new process."
            ) from error
    names = [d.name for d in tf.config.list_logical_devices("CPU")]
    return names[:count]


def _multi_worker(cluster, num_gpus, facts):
    """A strategy of all GPUs, or the CPU, of every worker of `cluster`."""
    if cluster is None:
        raise ValueError(
            "--strategy=multi_worker needs the names of the workers, but "
            "neither TF_CONFIG nor SLURM provides them. Start the command "
            "once per worker, with TF_CONFIG set or with srun."
        )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": num_gpus} if num_gpus else {},
        rpc_layer="grpc",
    )
    print(
        f"Worker {cluster.index} of {', '.join(cluster.workers)} waits at "
        f"most {JOIN_TIMEOUT} s for the others.",
        file=sys.stderr,
        flush=True,
    )
    rendezvous.meet(cluster, facts, JOIN_TIMEOUT)
    # All are there, hence joining takes seconds. It holds the interpreter lock,
    # so no Python code could interrupt it; this watchdog does not need the
    # lock. TensorFlow's own limit is one hour.
    faulthandler.dump_traceback_later(
        JOIN_TIMEOUT, exit=True, file=sys.__stderr__
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        raise WorkerLostError(
            f"Worker {cluster.index} could not join "
            f"{', '.join(cluster.workers)}: {error.message}"
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()


def _tpu(name):
    """A strategy of all cores of a TPU."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"--strategy=tpu --tpu={name!r}: cannot connect to a TPU "
            f"({type(error).__name__}: {first_line}). Set --tpu to its name or "
            "address, or to local on a TPU VM."
        ) from error


def check_xla(strategy):
    """Raises ValueError if XLA cannot compile a step under `strategy`."""
    gpus = tf.config.list_physical_devices("GPU")
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if strategy.num_replicas_in_sync > 1 and not gpus and not on_tpu:
        raise ValueError(
            "--jit_compile: XLA cannot sum over several CPU replicas. Use "
            "--jit_compile=false, or GPUs."
        )


def is_chief(strategy):
    """Whether this process is the one that writes the files of the run."""
    resolver = strategy.cluster_resolver
    return num_workers(strategy) == 1 or resolver.task_id == 0


def num_workers(strategy):
    """The number of processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return strategy.cluster_resolver.cluster_spec().num_tasks("worker")


def wait_for_all(strategy):
    """Returns when every worker has called it.

    What a worker has written before its call can then be read by all. The call
    fails within seconds if a worker is gone, see `lost_workers_named`.
    """
    worker_means(strategy, 0.0)


def worker_means(strategy, *values):
    """Means of numbers over all workers; every worker has to call it.

    Workers must agree on what to do next: if one of them stopped on a signal
    or by its own clock, the others would wait for it in the next step.

    Args:
        strategy: a `tf.distribute.Strategy`.
        *values: numbers of this worker. The mean of a flag is above 0 if it
            is set on any worker.

    Returns:
        A tuple of numbers, the same on all workers.
    """
    if num_workers(strategy) == 1:
        return values
    totals = _summing(strategy)(tf.constant(values, tf.float32))
    totals = strategy.experimental_local_results(totals)[0]
    return tuple(totals.numpy() / strategy.num_replicas_in_sync)


def check_equal(strategy, facts, advice=""):
    """Raises ConfigError unless all workers have the same facts.

    For what is known only after TensorFlow has started; every worker has to
    call it.

    Args:
        strategy: a `tf.distribute.Strategy`.
        facts: values with the same names on all workers, by name.
        advice: a sentence that ends the message.
    """
    count = num_workers(strategy)
    if count == 1:
        return
    resolver = strategy.cluster_resolver
    names = sorted(facts)
    # Sums of float32 are exact for such numbers.
    numbers = [
        zlib.crc32(repr(facts[name]).encode()) >> shift & 0xFFFF
        for name in names
        for shift in (0, 16)
    ]
    mine = np.zeros((count, 1 + len(numbers)))
    # The mean is over replicas; the one tells the share of this worker's.
    mine[resolver.task_id] = [1, *numbers]
    means = np.reshape(worker_means(strategy, *mine.ravel()), mine.shape)
    gathered = np.rint(means[:, 1:] / means[:, :1]).astype(int)
    workers = resolver.cluster_spec().job_tasks("worker")
    facts_of = [
        {
            name: f"{row[2 * i + 1]:04x}{row[2 * i]:04x}"
            for i, name in enumerate(names)
        }
        for row in gathered.tolist()
    ]
    if text := rendezvous.differences(facts_of, workers):
        raise ConfigError(f"{text} {advice}".rstrip())


@functools.cache
def _summing(strategy):
    """A compiled function that sums a tensor over all replicas."""

    def total(values):
        context = tf.distribute.get_replica_context()
        # A constant is not on the replica's device; its copy is.
        values = tf.identity(values)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    # The facts, metrics and counts that are summed have several lengths.
    return tf.function(
        lambda values: strategy.run(total, args=(values,)),
        autograph=False,
        reduce_retracing=True,
    )


@contextlib.contextmanager
def lost_workers_named(strategy):
    """Turns TensorFlow's errors about a lost worker into one message.

    Raises:
        WorkerLostError: if another worker was killed, which is noticed at
            once because its connection is closed, or has not answered
            TensorFlow's heartbeat for about ten seconds.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # The other collectives of the step that failed are cancelled.
        lost = (
            tf.errors.UnavailableError,
            tf.errors.DeadlineExceededError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.InternalError,
        )
        if num_workers(strategy) == 1 or not isinstance(error, lost):
            raise
        index = strategy.cluster_resolver.task_id
        # Without the names of TensorFlow's nodes, and the first line only.
        reason = re.sub(r"{{.*?}} *", "", error.message).strip()
        reason = reason.partition("\n")[0].rstrip(":")
        raise WorkerLostError(
            f"Worker {index} has lost another worker and stops ({reason}). "
            "Run the same command on all workers again to continue from the "
            "last checkpoint."
        ) from error


def distribute(strategy, make_dataset):
    """A dataset for `fit` or `evaluate` under `strategy`.

    Args:
        strategy: a `tf.distribute.Strategy`.
        make_dataset: function of `shard`, `num_shards` and `local_shards`, see
            `tf_metassl.data.pipeline`, that returns per-replica batches. Each
            worker reads the rows of its own replicas only.

    Returns:
        What `make_dataset` returns; with several replicas a distributed
        dataset that repeats it without end.
    """
    if strategy.num_replicas_in_sync == 1:
        return make_dataset(shard=0, num_shards=1, local_shards=1)

    def for_pipeline(context):
        local = context.num_replicas_in_sync // context.num_input_pipelines
        dataset = make_dataset(
            shard=context.input_pipeline_id * local,
            num_shards=context.num_replicas_in_sync,
            local_shards=local,
        )
        # The caller counts the steps. If the dataset could end, several
        # workers would get batches of unknown size, because one of them might
        # have none left.
        return dataset.repeat()

    return strategy.distribute_datasets_from_function(for_pipeline)
