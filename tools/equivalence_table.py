"""Compares one device with replicas, workers, XLA and bfloat16.

    python tools/equivalence_table.py --out=results

Trains every method for 20 steps on digits with the same global batches: on one
device, on two replicas, on two workers (two processes on the loopback network),
compiled with XLA, and with 20 steps per call, all in double precision; and on
one device in float32 and in bfloat16. All variables (parameters, averages,
batch norm, optimizer slots) and the losses are compared with those of one
device. Writes a line per method to OUT/equivalence.jsonl and the table to
OUT/equivalence.md.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import kill_workers  # noqa: E402

NUM_STEPS = 20  # Of the table.
# Variant -> settings that differ from one device in double precision.
LOCAL = {
    "one device": {},
    "2 replicas": {"strategy": "mirrored", "num_replicas": 2},
    "XLA": {"jit_compile": True},
    "20 steps per call": {"steps_per_execution": 20},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "mixed_bfloat16"},
}
WORKERS = "2 workers"
# Variant -> the variant that it is compared with.
BASES = {
    "2 replicas": "one device",
    WORKERS: "one device",
    "XLA": "one device",
    "20 steps per call": "one device",
    "bfloat16": "float32",
}
# Largest difference of a variable that counts as equal, relative to the largest
# absolute value in the variable or to 1; for bfloat16, of the mean loss.
TOLERANCE = 1e-5
BFLOAT16_TOLERANCE = 0.1
# Its example weights are proportional to the meta gradient, so that rounding
# changes them. The first three mean losses agree within 0.3 %.
BFLOAT16_EXCEPTIONS = {"learning_to_reweight": 0.5}


def train(algo, variant, strategy=None, num_steps=NUM_STEPS):
    """Trains one method.

    Args:
        algo: its name.
        variant: a key of `LOCAL`, or `WORKERS`.
        strategy: a `tf.distribute.Strategy`; None makes the one of the
            settings.
        num_steps: number of training steps.

    Returns:
        `(arrays, strategy)`: name -> NumPy array, for `compare`.
    """
    import keras
    import numpy as np

    from tf_metassl import config as config_lib
    from tf_metassl.run import evaluation
    from tf_metassl.run.build import build_experiment

    changes = {"precision": "float64", **LOCAL.get(variant, {})}
    keras.config.set_floatx(
        "float64" if changes["precision"] == "float64" else "float32"
    )
    settings = config_lib.resolve(
        {
            "algo": algo,
            "num_steps": num_steps,
            "evaluate_every": num_steps,
            "batch_size": 16,
            "eval_batch_size": 64,
        }
    )
    # `resolve` would refuse double precision, which users cannot set.
    settings = dataclasses.replace(settings, **changes)
    built = build_experiment(settings, strategy=strategy)
    algorithm = built.algorithm
    algorithm.prepare(functools.partial(evaluation.predict, built))
    losses = []
    algorithm.fit(
        built.training_data(algorithm, 0),
        steps_per_epoch=num_steps,
        shuffle=False,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda _, logs: losses.append(
                    float(logs["loss"])
                )
            )
        ],
        verbose=0,
    )
    arrays = {
        f"variable {number}": value.value.numpy()
        for number, value in enumerate(algorithm.state_variables)
    }
    # Each is the mean over all steps so far.
    arrays["losses"] = np.array(losses)
    evaluation.evaluate(built, algorithm, "test")
    for role in algorithm.evaluated_networks:
        arrays[f"confusion {role}"] = algorithm.confusion(role)
    return arrays, built.strategy


def compare(arrays, base):
    """The differences between two results of `train`.

    Returns:
        A JSON-ready dict: `variables`, the largest difference of a variable,
        relative to the largest absolute value in the variable or to 1,
        whichever is larger; `loss`, the relative difference of the mean loss;
        `confusion`, the number of test images with another prediction.
    """
    import numpy as np

    differences = [
        float(np.max(np.abs(arrays[name] - value), initial=0.0))
        / max(1.0, float(np.max(np.abs(value), initial=0.0)))
        for name, value in base.items()
        if name.startswith("variable")
        and np.issubdtype(value.dtype, np.floating)
    ]
    loss, expected = arrays["losses"][-1], base["losses"][-1]
    moved = [
        np.abs(arrays[name] - value).sum() / 2
        for name, value in base.items()
        if name.startswith("confusion")
    ]
    return {
        "variables": max(differences),
        "loss": float(abs(loss - expected) / abs(expected)),
        "confusion": int(max(moved)),
    }


def train_all(algos, variants, folder, num_steps):
    """Trains in this process and writes `<algo> <variant>.npz` to `folder`."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tf_metassl.run import distribution

    if WORKERS in variants:
        strategies = {
            WORKERS: distribution.make_strategy("multi_worker"),
        }
    else:
        # Shared by all methods: collectives are numbered per process.
        two = distribution.make_strategy("mirrored", 2)
        one = tf.distribute.get_strategy()
        strategies = {
            variant: two if settings.get("strategy") else one
            for variant, settings in LOCAL.items()
        }
    for algo in algos:
        for variant in variants:
            arrays, strategy = train(
                algo, variant, strategies[variant], num_steps
            )
            if distribution.is_chief(strategy):
                np.savez(
                    pathlib.Path(folder) / f"{algo} {variant}.npz", **arrays
                )
            keras.backend.clear_session()


def run_variants(algos, variants, folder, num_steps=NUM_STEPS):
    """Runs `train_all` in a new process, or in two for two workers.

    Raises:
        RuntimeError: if a process fails; its output is shown.
    """
    command = [
        sys.executable,
        __file__,
        f"--algos={','.join(algos)}",
        f"--variants={','.join(variants)}",
        f"--folder={folder}",
        f"--num_steps={num_steps}",
    ]
    if WORKERS not in variants:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return
    logs = folder / "logs"
    with kill_workers.workers(command, logs) as processes:
        codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}\n{kill_workers.logs(logs)}")


def load(folder, algo, variant):
    """Reads what `train_all` has written."""
    import numpy as np

    with np.load(pathlib.Path(folder) / f"{algo} {variant}.npz") as file:
        return dict(file)


def markdown(results):
    """The table in Markdown.

    Args:
        results: method -> variant -> what `compare` returned.
    """
    lines = [
        "# One device compared with replicas, workers, XLA and bfloat16",
        "",
        f"Made by `python tools/equivalence_table.py`: {NUM_STEPS} steps on "
        "digits with the same global batches; for methods with several stages, "
        "of the first stage. The numbers are the largest difference of any "
        "variable (parameters, averages, batch norm, optimizer slots) from "
        "training on one device in double precision, relative to the largest "
        "absolute value in the variable or to 1, whichever is larger. For "
        "bfloat16 the number is the relative difference of the mean loss from "
        "float32. The predictions for all test images are equal unless a cell "
        "says how many differ.",
        "",
        "| method | " + " | ".join(BASES) + " |",
        "| --- |" + " --: |" * len(BASES),
    ]
    for algo, result in results.items():
        cells = []
        for variant in BASES:
            measure = "loss" if variant == "bfloat16" else "variables"
            cell = f"{result[variant][measure]:.1e}"
            if variant != "bfloat16" and result[variant]["confusion"]:
                cell += f" ({result[variant]['confusion']} predictions)"
            cells.append(cell)
        lines.append(f"| {algo} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"The tolerance is {TOLERANCE:.0e}, for bfloat16 {BFLOAT16_TOLERANCE} "
        "and "
        + ", ".join(f"{v} for {k}" for k, v in BFLOAT16_EXCEPTIONS.items())
        + ". The example weights of that method are proportional to the meta "
        "gradient, so that rounding changes them and the following steps.",
        "",
    ]
    return "\n".join(lines)


def too_far(results):
    """The names of the cells outside the tolerance."""
    return [
        f"{algo}, {variant}"
        for algo, result in results.items()
        for variant, found in result.items()
        if (
            found["loss"] > BFLOAT16_EXCEPTIONS.get(algo, BFLOAT16_TOLERANCE)
            if variant == "bfloat16"
            else found["variables"] > TOLERANCE
        )
    ]


def main(_):
    """Trains, compares and writes the table."""
    from tf_metassl.algorithms import ALGORITHMS

    values = flags.FLAGS
    algos = values.algos or list(ALGORITHMS)
    if values.folder:
        train_all(algos, values.variants, values.folder, values.num_steps)
        return
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    record = out / "equivalence.jsonl"
    results = {}
    if values.algos and record.exists():
        for line in record.read_text().splitlines():
            results |= json.loads(line)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for algo in algos:
            run_variants([algo], list(LOCAL), folder)
            run_variants([algo], [WORKERS], folder)
            results[algo] = {
                variant: compare(
                    load(folder, algo, variant), load(folder, algo, base)
                )
                for variant, base in BASES.items()
            }
            print(algo, results[algo], flush=True)
            record.write_text(
                "".join(json.dumps({k: v}) + "\n" for k, v in results.items())
            )
            (out / "equivalence.md").write_text(markdown(results))
    if far := too_far(results):
        sys.exit(f"Outside the tolerance: {'; '.join(far)}")


if __name__ == "__main__":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    flags.DEFINE_list(
        "algos",
        [],
        "Methods to measure and to add to the table in --out. Empty = all, in "
        "a new table.",
    )
    flags.DEFINE_string("out", "results", "Folder for the table.")
    flags.DEFINE_list("variants", list(LOCAL), "For internal use.")
    flags.DEFINE_string("folder", "", "For internal use.")
    flags.DEFINE_integer("num_steps", NUM_STEPS, "For internal use.")
    app.run(main)
