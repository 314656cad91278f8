"""What the benchmarks of times share: taking turns, and their tables."""

import datetime
import os
import pathlib
import platform

import numpy as np

from tools import step_worker


def one_core():
    """Restricts TensorFlow to one core: CPU seconds are those of the work."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    # A second thread lets the input pipeline end while nothing is computed.
    tf.config.threading.set_inter_op_parallelism_threads(2)


def alternate(functions, repeats=7, seconds=0.5):
    """Times functions that take turns, so that all see the machine's load.

    Args:
        functions: name -> function without arguments.
        repeats: how often each is timed.
        seconds: how long, about, each time.

    Returns:
        Name -> `[repeats, 2]` array, CPU seconds and seconds of a call.
    """
    times = {}
    for name, function in functions.items():
        function()  # Traces and compiles.
        _, wall = step_worker.timed(function, 1)
        times[name] = max(round(seconds / max(wall, 1e-9)), 1)
    found = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            found[name].append(step_worker.timed(function, times[name]))
    return {name: np.array(values) for name, values in found.items()}


def percentiles(values):
    """`median (10 ... 90 percentile)` of several ratios, a string."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} ... {high:.2f})"


def ratios(times, base):
    """Two cells: CPU time and time, relative to `base`.

    Args:
        times: `[repeats, 2]` array.
        base: the same of what it is compared with.
    """
    return [percentiles(times[:, k] / base[:, k]) for k in (0, 1)]


def milliseconds(times):
    """A cell: the median CPU time of a call."""
    return f"{1000 * np.median(times[:, 0]):,.1f}"


def setting():
    """Where and when something is measured, a sentence."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    device = "one core of a CPU"
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = details.get("device_name", "a GPU")
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"
    return (
        f"Measured on {datetime.date.today()} on {device} "
        f"({platform.machine()}) with TensorFlow {tf.__version__}, oneDNN "
        f"{'on' if onednn else 'off'}, float32 unless said otherwise. What is "
        "compared takes turns in one run; ratios are the median (10th ... 90th "
        "percentile)."
    )


def table(head, rows):
    """The lines of a table in Markdown; the first column is text."""
    return [
        "| " + " | ".join(head) + " |",
        "| --- |" + " --: |" * (len(head) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def publish(lines, out, name):
    """Prints lines and, with a folder `out`, writes them to `out/name`."""
    text = "\n".join(lines) + "\n"
    print(text, end="", flush=True)
    if out:
        (pathlib.Path(out) / name).write_text(text)
