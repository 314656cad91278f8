"""Measures the speed of parts of the product, in ratios from one run.

    python tools/benchmark.py data

prints images/s of RandAugment with two operations and a cutout on 32 x 32
images: ours in tf.data, the same policy written with Pillow in one process per
core, and `keras.layers.RandAugment` mapped per image (which draws from fewer
operations and has no cutout). Then how many times faster the views of a UDA
step are made than a WRN-28-2 step consumes them.

    python tools/benchmark.py data_memory

prints the memory of the process while it makes the batches of many steps.

    python tools/benchmark.py memory --out=results

measures how much the resident memory of a fresh process grows during training
steps, with and without recomputed activations and with micro-batches, and
writes OUT/memory.md.
"""

import argparse
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import random
import subprocess
import sys
import time

import numpy as np

SIDE = 32
NUM_IMAGES = 10_000


def make_images(num_images, seed=0):
    """Returns blurred noise, `[num_images, 32, 32, 3]` uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (num_images, SIDE // 4, SIDE // 4, 3))
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    noise = rng.integers(-20, 21, large.shape)
    return np.clip(large + noise, 0, 255).astype(np.uint8)


def images_per_second(dataset, seconds):
    """Reads batches for `seconds` after a warm-up of a third of it."""
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
    raise ValueError("The dataset ended before the time did.")


def ours(policy, batch_size, seconds):
    """Images/s of `tf_metassl.data.rand_augment` in tf.data."""
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
    """Images/s of `keras.layers.RandAugment` mapped per image."""
    import keras
    import tensorflow as tf

    layer = keras.layers.RandAugment((0, 255), num_ops=policy.num_ops)
    images = tf.data.Dataset.from_tensor_slices(make_images(1000)).repeat()
    dataset = images.map(layer, tf.data.AUTOTUNE).batch(batch_size)
    return images_per_second(dataset.prefetch(2), seconds)


def _pillow_operations(policy):
    """Returns name -> function of a Pillow image and a magnitude."""
    from PIL import Image, ImageEnhance, ImageOps

    fill = (policy["fill_value"],) * 3
    kept = policy["tones"] == "kept"

    def sign():
        return random.choice((-1, 1))

    def affine(image, coefficients):
        mode = Image.Transform.AFFINE
        return image.transform(image.size, mode, coefficients, fillcolor=fill)

    def shear_x(image, m):
        return affine(image, (1, sign() * 0.03 * m, 0, 0, 1, 0))

    def shear_y(image, m):
        return affine(image, (1, 0, 0, sign() * 0.03 * m, 1, 0))

    def translate_x(image, m):
        return affine(
            image, (1, 0, sign() * m * policy["translate"] / 10, 0, 1, 0)
        )

    def translate_y(image, m):
        return affine(
            image, (1, 0, 0, 0, 1, sign() * m * policy["translate"] / 10)
        )

    def posterize(image, m):
        bits = int(0.4 * m) if kept else 4 - int(0.4 * m)
        return ImageOps.posterize(image, min(8, max(1, bits)))

    def solarize(image, m):
        level = int(25.6 * m)
        return ImageOps.solarize(image, level if kept else 256 - level)

    def enhance(kind):
        return lambda image, m: kind(image).enhance(0.18 * m + 0.1)

    return {
        "identity": lambda image, m: image,
        "autocontrast": lambda image, m: ImageOps.autocontrast(image),
        "equalize": lambda image, m: ImageOps.equalize(image),
        "invert": lambda image, m: ImageOps.invert(image),
        "rotate": lambda image, m: image.rotate(sign() * 3 * m, fillcolor=fill),
        "posterize": posterize,
        "solarize": solarize,
        "color": enhance(ImageEnhance.Color),
        "contrast": enhance(ImageEnhance.Contrast),
        "brightness": enhance(ImageEnhance.Brightness),
        "sharpness": enhance(ImageEnhance.Sharpness),
        "shear_x": shear_x,
        "shear_y": shear_y,
        "translate_x": translate_x,
        "translate_y": translate_y,
        "cutout": lambda image, m: _pillow_cutout(
            image.copy(), int(m * policy["cutout"] / 10), fill
        ),
    }


def _pillow_cutout(image, half, fill):
    y, x = random.randrange(SIDE), random.randrange(SIDE)
    box = (max(x - half, 0), max(y - half, 0), x + half, y + half)
    image.paste(fill, tuple(min(edge, SIDE) for edge in box))
    return image


def _pillow_worker(policy, seconds, seed, barrier, counts):
    """Puts the number of images augmented in `seconds` on the queue."""
    from PIL import Image

    random.seed(seed)
    images = make_images(1000, seed)
    result = np.empty_like(images)
    operations = _pillow_operations(policy)
    half = int(SIDE * policy["final_cutout"] / 2)
    fill = (policy["fill_value"],) * 3
    barrier.wait()
    count, stop = 0, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        for row in range(100):
            image = Image.fromarray(images[(count + row) % len(images)])
            probability = random.uniform(*policy["apply_probability"])
            for _ in range(policy["num_ops"]):
                operation = operations[random.choice(policy["ops"])]
                if random.random() < probability:
                    magnitude = random.randint(*policy["magnitude"])
                    image = operation(image, magnitude)
            if half:
                image = _pillow_cutout(image.copy(), half, fill)
            result[row] = np.asarray(image)
        count += 100
    counts.put(count)


def pillow(policy, cores, seconds):
    """Images/s of the same policy in Pillow, one process per core."""
    # A fresh interpreter, since TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(cores), context.Queue()
    arguments = (dataclasses.asdict(policy), seconds)
    workers = [
        context.Process(
            target=_pillow_worker, args=(*arguments, seed, barrier, counts)
        )
        for seed in range(cores)
    ]
    for worker in workers:
        worker.start()
    total = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total / seconds


def run_data(args):
    """Prints the speed of RandAugment, ours against Pillow and Keras."""
    available = sorted(os.sched_getaffinity(0))
    cores = args.cores or len(available)
    os.sched_setaffinity(0, available[:cores])
    from tf_metassl.data import policies

    policy = policies.STRONG_POLICIES[args.policy]
    contestants = {
        "ours": functools.partial(ours, batch_size=args.batch_size),
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
    """How many UDA batches of 64 + 448 images are made in a second."""
    batches = uda_batches(64, 448).map(lambda b: b["unlabeled"]["strong"])
    return images_per_second(batches, seconds) / 448


def seconds_per_step_of_network():
    """What WRN-28-2 takes to learn from 64 weak, 448 weak and 448 strong.

    One forward and backward pass over all of them; the unlabeled weak ones go
    forward only, as in UDA. Optimizer and losses cost little beside it.
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
    """Prints the resident memory every tenth of `--steps` batches."""
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


# Way -> flags. The first one is what the others are compared with.
MEMORY_WAYS = {
    "supervised": {
        "all activations kept": {},
        "--remat": {"remat": True},
        "--gradient_accumulation_steps=4": {"gradient_accumulation_steps": 4},
        "both": {"remat": True, "gradient_accumulation_steps": 4},
    },
    "meta_semi": {
        "all activations kept": {},
        "--remat": {"remat": True},
        "--meta_gradient=forward_mode": {"meta_gradient": "forward_mode"},
        "forward_mode and --remat": {
            "meta_gradient": "forward_mode",
            "remat": True,
        },
    },
    "meta_pseudo_labels": {
        "all activations kept": {},
        "--remat": {"remat": True},
    },
}


def step_memory(algo, settings, model, batch_size, num_steps):
    """Grows this process by `num_steps` steps on random images.

    Returns:
        `(bytes, seconds)`: by how much the largest resident size has grown
        since the networks were built, and what a step takes after the first.
    """
    import resource

    import tensorflow as tf

    from tf_metassl import config as config_lib
    from tf_metassl.contract import DatasetInfo
    from tf_metassl.data import pipeline, store
    from tf_metassl.run.build import build_algorithm

    def largest_size():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    settings = config_lib.resolve(
        {"algo": algo, "model": model, "batch_size": batch_size, **settings}
    )
    info = DatasetInfo("noise", tuple("0123456789"), (SIDE, SIDE, 3))
    images = store.Images(
        make_images(1024), np.arange(1024, dtype=np.int32) % 10
    )
    source = store.Source(info, images, images, "flip_crop", "mpl")
    algorithm = build_algorithm(settings, info, 1, len(images))
    rows = np.arange(len(images))
    pools = [
        pipeline.Pool(name, rows, size, views)
        for name, size, views in (
            ("labeled", batch_size, algorithm.views.labeled),
            ("unlabeled", 2 * batch_size, algorithm.views.unlabeled),
        )
        if views
    ]
    data = pipeline.training_dataset(
        source,
        pools,
        views=algorithm.views,
        augmentation=pipeline.Augmentation(source.weak_policy, "mpl"),
        seed=0,
    )
    # One batch again and again: reading is not what is measured.
    batch = next(iter(data))
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    step = algorithm.make_train_function()
    before = largest_size()
    step(iterator)
    started = time.perf_counter()
    for _ in range(num_steps - 1):
        step(iterator)
    seconds = (time.perf_counter() - started) / (num_steps - 1)
    return largest_size() - before, seconds


def run_memory(args):
    """Prints and writes the memory of a step in every way."""
    if args.settings:
        algo, settings = json.loads(args.settings)
        print(
            json.dumps(
                step_memory(
                    algo, settings, args.model, args.batch_size, args.steps
                )
            )
        )
        return
    lines = [
        "# Memory of a training step",
        "",
        "Made by `python tools/benchmark.py memory --batch_size="
        f"{args.batch_size}`: {args.model}, {SIDE} x {SIDE} x 3, that many "
        "labeled and, where the method uses them, twice as many unlabeled "
        "images, float32, on a CPU, beside other processes. "
        "Growth of the largest resident size of a fresh process after the "
        f"networks are built, over {args.steps} steps.",
        "",
        "| method | way | MiB | share | time |",
        "| --- | --- | --: | --: | --: |",
    ]
    print("\n".join(lines), flush=True)
    for algo in args.algos.split(","):
        base = None
        for way, settings in MEMORY_WAYS[algo].items():
            done = subprocess.run(
                [
                    *(sys.executable, __file__, "memory"),
                    f"--settings={json.dumps([algo, settings])}",
                    f"--model={args.model}",
                    f"--batch_size={args.batch_size}",
                    f"--steps={args.steps}",
                ],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            size, seconds = json.loads(done.stdout.splitlines()[-1])
            base = base or (size, seconds)
            lines.append(
                f"| {algo} | {way} | {size / 2**20:,.0f} "
                f"| {size / base[0]:.2f} | {seconds / base[1]:.2f} |"
            )
            print(lines[-1], flush=True)
    if args.out:
        text = "\n".join(lines) + "\n"
        (pathlib.Path(args.out) / "memory.md").write_text(text)


def main():
    """Parses the command line and runs one benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    data = commands.add_parser("data", help="RandAugment in images/s")
    data.add_argument("--policy", default="uda", help="a RandAugment policy")
    data.add_argument("--batch_size", type=int, default=512)
    data.add_argument("--cores", type=int, help="default: all available")
    data.add_argument("--seconds", type=float, default=3.0)
    data.add_argument("--rounds", type=int, default=3)
    data.set_defaults(run=run_data)
    memory = commands.add_parser("data_memory", help="memory over many steps")
    memory.add_argument("--steps", type=int, default=10_000)
    memory.set_defaults(run=run_data_memory)
    memory = commands.add_parser("memory", help="memory of a step")
    memory.add_argument("--algos", default=",".join(MEMORY_WAYS))
    memory.add_argument("--model", default="wrn_28_2")
    memory.add_argument("--batch_size", type=int, default=256)
    memory.add_argument("--steps", type=int, default=3)
    memory.add_argument("--out", help="folder for memory.md")
    memory.add_argument("--settings", help="for processes of this tool")
    memory.set_defaults(run=run_memory)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    args.run(args)


if __name__ == "__main__":
    main()
