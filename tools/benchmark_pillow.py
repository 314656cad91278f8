"""RandAugment with Pillow, for tools/benchmark.py to compare with.

A policy is the dict of a RandAugment policy of `tf_metassl.data.policies`, as
`dataclasses.asdict` makes it. Operations, magnitudes and probabilities are the
same as there.
"""

import multiprocessing
import random
import time

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def images_per_second(policy, images, seconds, cores):
    """How many images Pillow augments in a second, one process per core.

    Args:
        policy: a dict, see above.
        images: `[N, H, W, 3]` uint8.
        seconds: how long to measure.
        cores: number of processes.
    """
    # A fresh interpreter: a fork would not have TensorFlow's threads.
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(cores), context.Queue()
    workers = [
        context.Process(
            target=_work,
            args=(policy, images, seconds, seed, barrier, counts),
        )
        for seed in range(cores)
    ]
    for worker in workers:
        worker.start()
    total = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total / seconds


def _work(policy, images, seconds, seed, barrier, counts):
    """Puts the number of images augmented in `seconds` on a queue."""
    random.seed(seed)
    result = np.empty_like(images[:100])
    operations = _geometry(policy) | _color(policy)
    barrier.wait()
    count, stop = 0, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        for row in range(len(result)):
            image = images[(count + row) % len(images)]
            result[row] = _augment(image, policy, operations)
        count += len(result)
    counts.put(count)


def _augment(pixels, policy, operations):
    """Applies a policy to the pixels `[H, W, 3]` of one image."""
    image = Image.fromarray(pixels)
    probability = random.uniform(*policy["apply_probability"])
    for _ in range(policy["num_ops"]):
        operation = operations[random.choice(policy["ops"])]
        if random.random() < probability:
            image = operation(image, random.randint(*policy["magnitude"]))
    half = int(image.width * policy["final_cutout"] / 2)
    if half:
        image = _cutout(image, half, policy)
    return np.asarray(image)


def _cutout(image, half, policy):
    """Fills a square of twice `half`, clipped at the edges of the image."""
    image = image.copy()
    y, x = random.randrange(image.height), random.randrange(image.width)
    box = (
        *(max(x - half, 0), max(y - half, 0)),
        *(min(x + half, image.width), min(y + half, image.height)),
    )
    image.paste(_fill(policy), box)
    return image


def _fill(policy):
    return (policy["fill_value"],) * 3


def _geometry(policy):
    """Operations that move pixels, name -> function of image and magnitude."""
    fill = _fill(policy)
    step = policy["translate"] / 10

    def sign():
        return random.choice((-1, 1))

    def affine(image, coefficients):
        mode = Image.Transform.AFFINE
        return image.transform(image.size, mode, coefficients, fillcolor=fill)

    return {
        "rotate": lambda image, m: image.rotate(sign() * 3 * m, fillcolor=fill),
        "shear_x": lambda image, m: affine(
            image, (1, sign() * 0.03 * m, 0, 0, 1, 0)
        ),
        "shear_y": lambda image, m: affine(
            image, (1, 0, 0, sign() * 0.03 * m, 1, 0)
        ),
        "translate_x": lambda image, m: affine(
            image, (1, 0, sign() * m * step, 0, 1, 0)
        ),
        "translate_y": lambda image, m: affine(
            image, (1, 0, 0, 0, 1, sign() * m * step)
        ),
        "cutout": lambda image, m: _cutout(
            image, int(m * policy["cutout"] / 10), policy
        ),
    }


def _color(policy):
    """Operations that change values, name -> function of image, magnitude."""
    kept = policy["tones"] == "kept"

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
        "posterize": posterize,
        "solarize": solarize,
        "color": enhance(ImageEnhance.Color),
        "contrast": enhance(ImageEnhance.Contrast),
        "brightness": enhance(ImageEnhance.Brightness),
        "sharpness": enhance(ImageEnhance.Sharpness),
    }
