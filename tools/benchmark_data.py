"""Speed and memory of the input pipeline, for `tools/benchmark.py`."""

import dataclasses
import functools
import os
import pathlib
import time

import numpy as np

from tools import benchmark_pillow

SIDE = 32
NUM_IMAGES = 10_000


def make_images(num_images, seed=0):
    """Noise on blocks of 4 x 4 pixels, `[num_images, 32, 32, 3]` uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (num_images, SIDE // 4, SIDE // 4, 3))
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    noise = rng.integers(-20, 21, large.shape)
    return np.clip(large + noise, 0, 255).astype(np.uint8)


def images_per_second(dataset, seconds):
    """Images per second of a dataset of batches.

    Args:
        dataset: a `tf.data.Dataset` of batches; must not end.
        seconds: how long to measure, after a warm-up of a third of it.
    """
    count, start = 0, None
    begin = time.perf_counter()
    for batch in dataset:
        now = time.perf_counter()
        if start is not None:
            count += batch.shape[0]
            if now - start > seconds:
                return count / (now - start)
        elif now - begin > seconds / 3:
            start = now
    raise ValueError(f"The dataset ended within {seconds} seconds.")


def tf_data(policy, batch_size, seconds):
    """Images per second of `tf_metassl.data.rand_augment` in tf.data."""
    import tensorflow as tf

    images = tf.constant(make_images(NUM_IMAGES))

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        seed = tf.stack([0, tf.cast(step, tf.int32)])
        rows = tf.random.stateless_uniform(
            [batch_size], seed, 0, NUM_IMAGES, tf.int32
        )
        draw = policy.draw(seed, batch_size, images.shape[1:])
        return policy.apply(tf.gather(images, rows), draw)

    dataset = tf.data.Dataset.counter().map(batch, tf.data.AUTOTUNE)
    return images_per_second(dataset.prefetch(2), seconds)


def keras_layer(policy, batch_size, seconds):
    """Images per second of `keras.layers.RandAugment` mapped per image."""
    import keras
    import tensorflow as tf

    layer = keras.layers.RandAugment((0, 255), num_ops=policy.num_ops)
    images = tf.data.Dataset.from_tensor_slices(make_images(1000)).repeat()
    dataset = images.map(layer, tf.data.AUTOTUNE).batch(batch_size)
    return images_per_second(dataset.prefetch(2), seconds)


def pillow(policy, cores, seconds):
    """Images per second of the same policy in Pillow."""
    return benchmark_pillow.images_per_second(
        dataclasses.asdict(policy), make_images(1000), seconds, cores
    )


def run_data(args):
    """Prints the speed of RandAugment in tf.data, Pillow and Keras."""
    available = sorted(os.sched_getaffinity(0))
    cores = args.cores or len(available)
    os.sched_setaffinity(0, available[:cores])
    from tf_metassl.data import policies

    policy = policies.STRONG_POLICIES[args.policy]
    contestants = {
        "ours": functools.partial(tf_data, batch_size=args.batch_size),
        "pillow": functools.partial(pillow, cores=cores),
        "keras.layers.RandAugment": functools.partial(
            keras_layer, batch_size=args.batch_size
        ),
    }
    print(
        f"RandAugment({policy.num_ops}) {args.policy!r}, {SIDE} x {SIDE} x 3, "
        f"batches of {args.batch_size}, {cores} cores, {args.rounds} rounds",
        flush=True,
    )
    rates = {name: [] for name in contestants}
    for _ in range(args.rounds):
        for name, measure in contestants.items():
            rates[name].append(measure(policy, seconds=args.seconds))
    for name, values in rates.items():
        ratios = np.array(rates["ours"]) / values
        print(
            f"{name:26} {np.median(values):9,.0f} images/s   "
            f"ours is {np.median(ratios):5.2f} times as fast "
            f"({ratios.min():.2f} ... {ratios.max():.2f})"
        )
    made = steps_per_second_of_views(args.seconds)
    taken = seconds_per_step_of_network()
    print(
        f"UDA step, 64 + 448 images: views made in {1000 / made:,.0f} ms, "
        f"consumed by WRN-28-2 in {1000 * taken:,.0f} ms; headroom "
        f"{made * taken:.0f} times"
    )


def uda_batches(num_labeled, num_unlabeled, first_step=0):
    """The training batches of a UDA step on 32 x 32 images."""
    from tf_metassl.contract import DatasetInfo, Views
    from tf_metassl.data import pipeline, sources

    images = sources.Images(
        make_images(NUM_IMAGES), np.zeros(NUM_IMAGES, np.int32)
    )
    source = sources.Source(
        info=DatasetInfo("noise", tuple("0123456789"), (SIDE, SIDE, 3)),
        train=images,
        test=images,
        weak_policy="flip_crop",
        strong_policy="uda",
    )
    views = Views(labeled=("weak",), unlabeled=("weak", "strong"))
    rows = np.arange(NUM_IMAGES)
    return pipeline.training_dataset(
        source,
        [
            pipeline.Pool("labeled", rows, num_labeled, views.labeled),
            pipeline.Pool("unlabeled", rows, num_unlabeled, views.unlabeled),
        ],
        views=views,
        augmentation=pipeline.Augmentation("flip_crop", "uda"),
        seed=0,
        first_step=first_step,
    )


def steps_per_second_of_views(seconds):
    """How many UDA batches of 64 + 448 images are made per second."""
    batches = uda_batches(64, 448).map(lambda b: b["unlabeled"]["strong"])
    return images_per_second(batches, seconds) / 448


def seconds_per_step_of_network():
    """Seconds of a UDA step of WRN-28-2 without its optimizer.

    A forward and backward pass over 64 weak labeled and 448 strong unlabeled
    images, and a forward pass over the 448 weak unlabeled ones.
    """
    import keras
    import tensorflow as tf

    from tf_metassl import models

    network = models.build("wrn_28_2", (SIDE, SIDE, 3), 10)

    @tf.function
    def step(learned, labeling):
        network(labeling, training=False)
        with tf.GradientTape() as tape:
            logits = network(learned, training=True)
            loss = tf.reduce_mean(
                keras.ops.categorical_crossentropy(
                    tf.one_hot(tf.zeros([len(learned)], tf.int32), 10),
                    logits,
                    from_logits=True,
                )
            )
        values = [v.value for v in network.trainable_variables]
        return tape.gradient(loss, values)

    images = tf.constant(make_images(512 + 448))
    step(images[:512], images[512:])
    begin = time.perf_counter()
    step(images[:512], images[512:])
    return time.perf_counter() - begin


def run_data_memory(args):
    """Prints the resident memory ten times during `--steps` batches."""
    page = os.sysconf("SC_PAGE_SIZE")

    def megabytes():
        fields = pathlib.Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * page / 2**20

    every, seen = max(args.steps // 10, 1), []
    for step, _ in enumerate(uda_batches(8, 56).take(args.steps), start=1):
        if step % every == 0:
            seen.append(megabytes())
            print(f"step {step:6}: {seen[-1]:7.1f} MiB resident", flush=True)
    print(
        f"From step {every} to step {args.steps} resident memory grew by "
        f"{seen[-1] - seen[0]:.1f} MiB."
    )
