"""Sums over replicas in a step, for `tools/benchmark.py scaling`.

The steps are traced for two replicas on one CPU and not run: what replicas
exchange is in the graph. The time on real machines is projected from it.
"""

import json
import math
import typing

from tools import benchmark_steps, benchmark_timing, make_flagfiles, step_worker

METHODS = ("supervised", "fixmatch", "meta_semi", "meta_pseudo_labels")
MODEL, SHAPE = "wrn_28_2", (32, 32, 3)
SIZE = 64  # Labeled images per replica; twice as many unlabeled ones.


class Cluster(typing.NamedTuple):
    """What a projection assumes of the machines.

    Attributes:
        replicas: their number.
        bandwidth: bytes per second that a replica sends while all do.
        latency: seconds that a sum takes at least.
    """

    replicas: int
    bandwidth: float
    latency: float


CLUSTERS = {
    "8 GPUs": Cluster(8, 200e9, 30e-6),
    "64 GPUs": Cluster(64, 20e9, 100e-6),
}


class Sums(typing.NamedTuple):
    """What a step sums over replicas.

    Attributes:
        calls: the sums that wait for each other.
        tensors: what they add up, counted one by one.
        bytes: of one replica.
    """

    calls: int
    tensors: int
    bytes: int


def seconds(sums, cluster):
    """The time of the sums in a ring, one after the other.

    Each replica sends 2 (n - 1) / n times what is summed.

    Args:
        sums: `Sums`.
        cluster: a `Cluster`.
    """
    share = 2 * (cluster.replicas - 1) / cluster.replicas
    sent = share * sums.bytes / cluster.bandwidth
    return sums.calls * cluster.latency + sent


def counting_ops():
    """A reduction that notes what it sums, and the list of its notes."""
    import tensorflow as tf

    notes = []

    def size(value):
        local = value.values[0] if hasattr(value, "values") else value
        return math.prod(local.shape) * local.dtype.size

    class Counting(tf.distribute.ReductionToOneDevice):
        def reduce(self, reduce_op, per_replica_value, *args, **options):
            notes.append([size(per_replica_value)])
            return super().reduce(
                reduce_op, per_replica_value, *args, **options
            )

        def batch_reduce(self, reduce_op, pairs, options=None):
            notes.append([size(value) for value, _ in pairs])
            return super().batch_reduce(reduce_op, pairs, options)

    return Counting(), notes


def counted(algo, settings, model=MODEL, shape=SHAPE, size=SIZE):
    """The `Sums` of a step of two replicas.

    Args:
        algo: the method.
        settings: further settings, a dict.
        model: the network.
        shape: of the images.
        size: labeled images per replica.
    """
    import tensorflow as tf

    ops, notes = counting_ops()
    cpus = [d.name for d in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(cpus, cross_device_ops=ops)
    with strategy.scope():
        algorithm, iterator = step_worker.parts(
            algo, settings, model, shape, 2 * size
        )[2:]

    def step():
        strategy.run(algorithm.training_step, args=(next(iterator),))

    notes.clear()
    tf.function(step).get_concrete_function()
    return Sums(len(notes), sum(map(len, notes)), sum(map(sum, notes)))


def compute_seconds(algo):
    """The time of a replica's step on a GPU, as flags/ estimate it."""
    key = f"{MODEL} {SHAPE[0]}x{SHAPE[1]}x{SHAPE[2]} 10"
    flops = json.loads((make_flagfiles.FLAGS / "flops.json").read_text())[key]
    passes = (
        benchmark_steps.counted(algo) / benchmark_steps.NETWORK["batch_size"]
    )
    peak = make_flagfiles.PEAK["float32"] * make_flagfiles.UTILIZATION
    return SIZE * passes * flops / peak


def rows(found):
    """The table of the sums of several methods, method -> `Sums`."""
    result = []
    for algo, sums in found.items():
        compute = compute_seconds(algo)
        cells = [
            algo,
            f"{sums.calls}",
            f"{sums.tensors}",
            f"{sums.bytes / 2**20:.2f}",
            f"{1000 * compute:.1f}",
        ]
        for cluster in CLUSTERS.values():
            sent = seconds(sums, cluster)
            cells.append(f"{1000 * sent:.1f}")
            cells.append(f"{compute / (compute + sent):.2f}")
        result.append(cells)
    return result


def run_scaling(args):
    """Prints and writes the sums of a step, and projections."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")[:1]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    found = {algo: counted(algo, {}) for algo in args.algos.split(",")}
    head = ["method", "sums", "tensors", "MiB", "compute, ms"]
    for name in CLUSTERS:
        head += [f"{name}: sums, ms", "efficiency"]
    assumed = "; ".join(
        f"{name}: {c.bandwidth / 1e9:.0f} GB/s and {1e6 * c.latency:.0f} us"
        for name, c in CLUSTERS.items()
    )
    lines = [
        "# What replicas exchange in a step",
        "",
        "Made by `python tools/benchmark.py scaling`: the sums over replicas "
        f"in the graph of a step of two, {MODEL} on images of "
        f"{SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]}, {SIZE} labeled and {2 * SIZE} "
        "unlabeled images per replica, batch norm synchronized. Tensors of one "
        "sum are sent together. Efficiency is projected, not measured: the "
        "compute time is that of an "
        f"{make_flagfiles.GPU} at {100 * make_flagfiles.UTILIZATION:.0f} % of "
        "its TF32 peak; sums are made in a ring, wait for each other and for "
        "the computation, and a replica sends at a rate and starts a sum after "
        f"a time of {assumed}.",
        "",
        *benchmark_timing.table(head, rows(found)),
    ]
    benchmark_timing.publish(lines, args.out, "scaling.md")
