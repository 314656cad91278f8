"""Writes the golden files that the image operations are compared with.

`tests/golden/tfa_image_ops.npz` comes from tensorflow-addons, which needs an
environment of its own (Python 3.11, about a minute to install):

    python3.11 -m venv .venv-tfa
    .venv-tfa/bin/pip install -r requirements-tfa.txt
    .venv-tfa/bin/python tools/make_golden_images.py --oracle=tfa

`tests/golden/pillow_image_ops.npz` comes from Pillow and is written in the
ordinary environment:

    python tools/make_golden_images.py --oracle=pillow

Each file holds the input images (`rgb`, `rgb_2`, `gray`), for every case
`<case>/<images>` the output and `<case>/<parameter>` the parameters, one value
per image, and `versions`, a JSON text. The files have no time stamps: the same
versions write the same bytes.
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform

import numpy as np

ANGLES = (0.0, 0.3, -0.3, 0.8378, 1.5707964, -2.6)
SHEARS = (0.0, 0.3, -0.3, 0.48, 0.51, -0.09)
SHIFTS_X = (0.0, 4.0, -3.0, 6.4, -0.5, 1.7)
SHIFTS_Y = (0.0, -2.0, 5.0, -6.4, 0.5, 2.3)
FACTORS = (0.0, 0.1, 0.64, 1.0, 1.9, 2.98)
HALF_WIDTHS = (0, 1, 2, 3, 5, 30)
BITS = (1, 2, 4, 6, 7, 8)
THRESHOLDS = (0, 1, 102, 128, 255, 256)
MARGINS = (0.0, 0.04, 0.1, 0.13, 0.2, 0.25)


def make_images(height, width, channels, seed):
    """Returns six hard cases, `[6, height, width, channels]` uint8.

    Noise, ramps, low contrast, constant, checkerboard, skewed histogram.
    """
    rng = np.random.default_rng(seed)
    shape = (height, width, channels)
    y, x, c = np.indices(shape)
    images = [
        rng.integers(0, 256, shape),
        (y * 7 + x * 5 + c * 60) % 256,
        rng.integers(100, 140, shape),
        np.full(shape, 77) + c,
        np.where((y // 3 + x // 2) % 2 == 0, 20 + c, 235 - c),
        np.minimum(255, rng.exponential(20.0, shape)),
    ]
    return np.stack(images).astype(np.uint8)


def inputs():
    """Returns the input images by name."""
    return {
        "rgb": make_images(24, 20, 3, seed=1),
        "rgb_2": make_images(24, 20, 3, seed=2)[::-1],
        "gray": make_images(8, 8, 1, seed=3),
    }


def tfa_cases(images):
    """Returns outputs and parameters of tensorflow-addons' operations."""
    import tensorflow as tf
    import tensorflow_addons.image as tfa

    def each(function, batch, *parameters):
        rows = [
            tf.cast(function(*row), tf.uint8).numpy()
            for row in zip(batch, *parameters, strict=True)
        ]
        return np.stack(rows)

    shifts = np.stack([SHIFTS_X, SHIFTS_Y], axis=1).astype(np.float32)
    centers = {
        name: np.array(
            [(i * 5 % batch.shape[1], i * 3 % batch.shape[2]) for i in range(6)]
        ).astype(np.int32)
        for name, batch in images.items()
    }
    cases = {
        "rotate/angle": np.float32(ANGLES),
        "shear/level": np.float32(SHEARS),
        "translate/shift": shifts,
        "sharpness/factor": np.float32(FACTORS),
        "cutout/half_width": np.int32(HALF_WIDTHS),
        "blend/factor": np.float32(FACTORS),
    }
    for name in ("rgb", "gray"):
        batch = images[name]
        for mode in ("nearest", "bilinear"):
            cases[f"rotate_{mode}/{name}"] = tfa.rotate(
                batch, ANGLES, interpolation=mode, fill_value=128.0
            ).numpy()
        cases[f"translate/{name}"] = tfa.translate(
            batch, shifts, fill_value=128.0
        ).numpy()
        cases[f"equalize/{name}"] = tfa.equalize(batch).numpy()
        cases[f"sharpness/{name}"] = each(tfa.sharpness, batch, FACTORS)
        cases[f"cutout/center_{name}"] = centers[name]
        cases[f"cutout/{name}"] = each(
            lambda image, half, center: tfa.cutout(
                image[None], (2 * half, 2 * half), center, 128
            )[0],
            batch,
            HALF_WIDTHS,
            centers[name],
        )
    gray_fill = [128] * 3
    for name, function in (("shear_x", tfa.shear_x), ("shear_y", tfa.shear_y)):
        cases[f"{name}/rgb"] = each(
            lambda image, level, function=function: function(
                image, level, gray_fill
            ),
            images["rgb"],
            SHEARS,
        )
    cases["blend/rgb"] = each(
        tfa.blend, images["rgb"], images["rgb_2"], FACTORS
    )
    return cases


def pillow_cases(images):
    """Returns outputs and parameters of Pillow's operations."""
    from PIL import Image, ImageEnhance, ImageFilter, ImageOps

    def run(function, batch, *parameters):
        rows = []
        for image, *row in zip(batch, *parameters, strict=True):
            result = function(Image.fromarray(np.squeeze(image)), *row)
            rows.append(np.asarray(result).reshape(image.shape))
        return np.stack(rows)

    def enhance(kind):
        return lambda image, factor: kind(image).enhance(factor)

    plain = {
        "invert": ImageOps.invert,
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "smooth": lambda image: image.filter(ImageFilter.SMOOTH),
        "blur": lambda image: image.filter(ImageFilter.BLUR),
    }

    def rescale(method):
        def cut(image, margin):
            w, h = image.size
            box = (margin * w, margin * h, (1 - margin) * w, (1 - margin) * h)
            return image.crop(box).resize(image.size, method)

        return cut

    with_parameter = {
        "color": (enhance(ImageEnhance.Color), FACTORS),
        "contrast": (enhance(ImageEnhance.Contrast), FACTORS),
        "brightness": (enhance(ImageEnhance.Brightness), FACTORS),
        "sharpness": (enhance(ImageEnhance.Sharpness), FACTORS),
        "posterize": (ImageOps.posterize, BITS),
        "solarize": (ImageOps.solarize, THRESHOLDS),
        **{
            f"rescale_{method.name.lower()}": (rescale(method), MARGINS)
            for method in Image.Resampling
        },
    }
    cases = {}
    for name in ("rgb", "gray"):
        for case, function in plain.items():
            cases[f"{case}/{name}"] = run(function, images[name])
    for case, (function, values) in with_parameter.items():
        # Three rounds, so that every image meets weak and strong values.
        for turn in range(3):
            turned = np.roll(values, 2 * turn)
            cases[f"{case}_{turn}/parameter"] = turned
            for name in ("rgb", "gray"):
                cases[f"{case}_{turn}/{name}"] = run(
                    function, images[name], turned.tolist()
                )
    return cases


ORACLES = {
    "tfa": (tfa_cases, ("tensorflow-cpu", "keras", "tensorflow-addons")),
    "pillow": (pillow_cases, ("pillow",)),
}


def main():
    """Parses the command line and writes one golden file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--oracle", choices=sorted(ORACLES), required=True)
    default = pathlib.Path(__file__).parents[1] / "tests" / "golden"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    args = parser.parse_args()

    make_cases, packages = ORACLES[args.oracle]
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions["numpy"] = np.__version__
    versions["python"] = platform.python_version()
    images = inputs()
    path = args.out / f"{args.oracle}_image_ops.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        versions=np.array(json.dumps(versions, sort_keys=True)),
        **images,
        **make_cases(images),
    )
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB, {versions}")


if __name__ == "__main__":
    main()
