"""Exports every registered network in every format and measures the files.

    pip install -r requirements-export.txt
    python tools/export_formats.py --out=results

Networks start from random weights. Each file is compared with its network as
`tf-metassl export` does; ONNX files are read by OpenVINO, too, if it is
installed. Each network has a process of its own, because conversions do not
give all of their memory back. A network that is in OUT/formats.jsonl is not
measured again; the table is OUT/formats.md.
"""

import importlib.util
import json
import pathlib
import platform
import subprocess
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
    size = max(min(found.image_size, LARGEST), found.smallest)
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


def record(name, shape, parameters, written, difference):
    """What is kept of a network, a dict."""
    return {
        "network": name,
        "images": list(shape),
        "parameters": parameters,
        "files": {
            file.name: {
                "megabytes": file.size / 1e6,
                "milliseconds": [1000 * s for s in file.seconds.values()],
            }
            for file in written
        },
        "openvino": difference,
    }


def row(found):
    """A line of the table, of a `record`."""
    cells = [
        found["network"],
        " x ".join(map(str, found["images"])),
        f"{found['parameters']:,}",
    ]
    for name in formats.NAMES:
        file = found["files"].get(name)
        if file is None:
            cells += ["", ""]
            continue
        one, many = file["milliseconds"]
        cells += [f"{file['megabytes']:.3g}", f"{one:.3g}, {many:.3g}"]
    difference = found["openvino"]
    cells.append("" if difference is None else f"{difference:.0e}")
    return f"| {' | '.join(cells)} |\n"


def page(records, missing):
    """The page, a text.

    Args:
        records: of the networks that have been measured.
        missing: names of those that have not.
    """
    return (
        "# Exported networks\n\n"
        "Made by `python tools/export_formats.py`. Networks for ten classes, "
        f"at no more than {LARGEST} pixels unless they need more, with random "
        "weights; each file "
        "gave the probabilities of its network to 1e-4. MB, and ms for 1 and "
        "for 32 images at a time: medians of 9 on a CPU "
        f"({platform.machine()}, two cores, with other work beside; "
        f"TensorFlow {tf.__version__}). OpenVINO reads the ONNX file; the last "
        "column is the largest difference of a probability there.\n\n"
        f"Not measured: {', '.join(missing) or 'none'}. ONNX and LiteRT files "
        "hold at most 2 GiB, about 530 million parameters, and conversions "
        "take many times the memory of a network: 14 GB for "
        "efficientnet_b7.\n\n"
        "| network | images | parameters |"
        + "".join(f" {n}, MB | ms |" for n in formats.NAMES)
        + " OpenVINO |\n| --- | --- | --: |"
        + " --: | --: |" * len(formats.NAMES)
        + " --: |\n"
        + "".join(map(row, records))
    )


def append(path, name):
    """Measures a network and appends its record to a file."""
    with tempfile.TemporaryDirectory() as folder:
        found = record(name, *measured(name, pathlib.Path(folder)))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")


def main(_):
    """Measures what is missing, network by network, and writes the page."""
    out = pathlib.Path(flags.FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "formats.jsonl"
    if flags.FLAGS.network:
        append(path, flags.FLAGS.network)
        return
    names = [n for n in models.NETWORKS if n != "two_moons_mlp"]
    names += FURTHER
    found = {}
    if path.is_file():
        lines = path.read_text("utf-8").splitlines()
        found = {r["network"]: r for r in map(json.loads, lines)}
    for name in names:
        if name in found or name in flags.FLAGS.without:
            continue
        command = [sys.executable, __file__, f"--out={out}"]
        subprocess.run([*command, f"--network={name}"], check=True)
        found[name] = json.loads(path.read_text("utf-8").splitlines()[-1])
        print(row(found[name]), end="", flush=True)
    records = [found[name] for name in names if name in found]
    missing = [name for name in names if name not in found]
    (out / "formats.md").write_text(page(records, missing), "utf-8")


if __name__ == "__main__":
    flags.DEFINE_string("out", "results", "Folder of the page.")
    flags.DEFINE_string("network", "", "Measure this one and end.")
    flags.DEFINE_list("without", [], "Networks to leave out.")
    app.run(main)
