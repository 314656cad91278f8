"""Exports every registered network in every format and measures the files.

    pip install -r requirements-export.txt
    python tools/export_formats.py --out=results

Networks start from random weights. Each file is compared with its network as
`tf-metassl export` does; ONNX files are read by OpenVINO, too, if it is
installed. Writes OUT/formats.md.
"""

import importlib.util
import pathlib
import platform
import sys
import tempfile

import numpy as np
import tensorflow as tf
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_metassl import models  # noqa: E402
from tf_metassl.run import formats, serving  # noqa: E402

CLASSES = tuple(f"class {i}" for i in range(10))
FURTHER = ("wrn_28_2",)
# At 600 pixels, one image takes seconds on two cores.
LARGEST = 64


def measured(name, folder):
    """Exports a network: its shape, parameters and the `Written` files."""
    found = models.find(name)
    size = min(found.image_size, LARGEST)
    shape = (8, 8, 1) if name == "digits_cnn" else (size, size, 3)
    network = models.build(name, shape, len(CLASSES))
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    target = folder / "1"
    serving.export_saved_model(network, CLASSES, target, examples=images)
    exported = formats.Exported(network, CLASSES, 1.0, target)
    written = formats.export(formats.NAMES, exported, images, target)
    difference = None
    if importlib.util.find_spec("openvino"):
        predict = load_openvino(target.with_name("1.onnx"))
        expected = exported.answers(tf.constant(images))["probabilities"]
        difference = float(np.abs(predict(images) - expected).max())
    return shape, network.count_params(), written, difference


def load_openvino(path):
    """An ONNX file as a function of arrays, by OpenVINO in full precision."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: model(images)["probabilities"]


def row(name, shape, parameters, written, difference):
    """A line of the table."""
    cells = [name, " x ".join(map(str, shape)), f"{parameters:,}"]
    for file in written:
        one, many = (1000 * s for s in file.seconds.values())
        cells += [f"{file.size / 1e6:.3g}", f"{one:.3g}, {many:.3g}"]
    cells.append("" if difference is None else f"{difference:.0e}")
    return f"| {' | '.join(cells)} |\n"


def main(_):
    """Writes the page, network by network."""
    names = [n for n in models.NETWORKS if n not in flags.FLAGS.without]
    names = [n for n in names if n != "two_moons_mlp"] + list(FURTHER)
    page = (
        "# Exported networks\n\n"
        "Made by `python tools/export_formats.py`. Networks for ten classes, "
        f"at no more than {LARGEST} pixels, with random weights; each file "
        "gave the probabilities of its network to 1e-4. MB, and ms for 1 and "
        "for 32 images at a time: medians of 9 on a CPU "
        f"({platform.machine()}, "
        f"TensorFlow {tf.__version__}). OpenVINO reads the ONNX file; the last "
        "column is the largest difference of a probability there.\n\n"
        f"Left out: {', '.join(flags.FLAGS.without) or 'none'}.\n\n"
        "| network | images | parameters |"
        + "".join(f" {n}, MB | ms |" for n in formats.NAMES)
        + " OpenVINO |\n| --- | --- | --: |"
        + " --: | --: |" * len(formats.NAMES)
        + " --: |\n"
    )
    path = pathlib.Path(flags.FLAGS.out) / "formats.md"
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            line = row(name, *measured(name, pathlib.Path(folder)))
        print(line, end="", flush=True)
        page += line
        path.write_text(page)


if __name__ == "__main__":
    flags.DEFINE_string("out", "results", "Folder of the page.")
    flags.DEFINE_list("without", [], "Networks to leave out.")
    app.run(main)
