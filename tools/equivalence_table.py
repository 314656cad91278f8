"""Trains every method in several ways and compares the results.

    python tools/equivalence_table.py --out=results

Every registered method is trained for 20 steps on digits by one device, by two
replicas, by two workers (two processes on the loopback network), compiled with
XLA, with 20 steps per call, all in double precision and with the same global
batches, and in bfloat16. What is compared with the one device are all
variables (parameters, averages, batch norm, optimizer slots) and the losses.
OUT/equivalence.jsonl has a line per method and OUT/equivalence.md the table.
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
# Way -> settings that differ from those of one device in double precision.
LOCAL = {
    "one device": {},
    "2 replicas": {"strategy": "mirrored", "num_replicas": 2},
    "XLA": {"jit_compile": True},
    "20 steps per call": {"steps_per_execution": 20},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "mixed_bfloat16"},
}
WORKERS = "2 workers"
# The way that each is compared with.
BASES = {
    "2 replicas": "one device",
    WORKERS: "one device",
    "XLA": "one device",
    "20 steps per call": "one device",
    "bfloat16": "float32",
}
# Largest difference of a variable, as a share of the largest value of its kind
# of variable, that counts as equal; for bfloat16, of the mean loss.
TOLERANCE = 1e-5
BFLOAT16_TOLERANCE = 0.1
# Its weights are proportional to the meta gradient. The first three mean losses
# agree within 0.3 %; then rounding has moved the weights, and with them the
# path of the training.
BFLOAT16_EXCEPTIONS = {"learning_to_reweight": 0.5}


def train(algo, way, strategy=None, num_steps=NUM_STEPS):
    """Trains one method.

    Args:
        algo: its name.
        way: a key of `LOCAL`, or `WORKERS`.
        strategy: a `tf.distribute.Strategy` to use; None to make it.
        num_steps: for how long.

    Returns:
        `(arrays, strategy)`: name -> NumPy array, for `compare`.
    """
    import keras
    import numpy as np

    from tf_metassl import config as config_lib
    from tf_metassl.run import evaluation
    from tf_metassl.run.build import build_experiment

    changes = {"precision": "float64", **LOCAL.get(way, {})}
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
    # Not by `resolve`: double precision is no setting for users.
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
    # The mean of all steps until then.
    arrays["losses"] = np.array(losses)
    evaluation.evaluate(built, algorithm, "test")
    for role in algorithm.evaluated_networks:
        arrays[f"confusion {role}"] = algorithm.confusion(role)
    return arrays, built.strategy


def compare(arrays, base):
    """How far two results of `train` are apart.

    Returns:
        A JSON-ready dict: `variables`, the largest difference as a share of
        the largest value of the same variable, or of 1 where that is smaller;
        `loss`, the relative difference of the mean loss; `confusion`, how many
        test images are predicted otherwise.
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


def train_all(algos, ways, folder, num_steps):
    """Trains and writes `<algo> <way>.npz` into `folder`, in this process."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tf_metassl.run import distribution

    if WORKERS in ways:
        strategies = {
            WORKERS: distribution.make_strategy("multi_worker"),
        }
    else:
        # One each for all methods: collectives are numbered per process.
        two = distribution.make_strategy("mirrored", 2)
        one = tf.distribute.get_strategy()
        strategies = {
            way: two if settings.get("strategy") else one
            for way, settings in LOCAL.items()
        }
    for algo in algos:
        for way in ways:
            arrays, strategy = train(algo, way, strategies[way], num_steps)
            if distribution.is_chief(strategy):
                np.savez(pathlib.Path(folder) / f"{algo} {way}.npz", **arrays)
            keras.backend.clear_session()


def run_ways(algos, ways, folder, num_steps=NUM_STEPS):
    """`train_all` in processes of its own: two if it is about two workers.

    Raises:
        RuntimeError: if one fails; its output is shown.
    """
    command = [
        sys.executable,
        __file__,
        f"--algos={','.join(algos)}",
        f"--ways={','.join(ways)}",
        f"--folder={folder}",
        f"--num_steps={num_steps}",
    ]
    if WORKERS not in ways:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return
    logs = folder / "logs"
    with kill_workers.workers(command, logs) as processes:
        codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}\n{kill_workers.logs(logs)}")


def load(folder, algo, way):
    """What `run_ways` has written."""
    import numpy as np

    with np.load(pathlib.Path(folder) / f"{algo} {way}.npz") as file:
        return dict(file)


def markdown(results):
    """The table.

    Args:
        results: method -> way -> what `compare` returned.
    """
    lines = [
        "# The same training in other ways",
        "",
        "Made by `python tools/equivalence_table.py`: "
        f"{NUM_STEPS} steps on digits, the same global batches. Largest "
        "difference from one device of any variable (parameters, averages, "
        "batch norm, optimizer slots), as a share of the largest value of that "
        "variable or of 1, in double precision; for bfloat16 the relative "
        "difference of the mean loss from float32. No test image is predicted "
        "otherwise unless said. Of methods with several stages, the first.",
        "",
        "| method | " + " | ".join(BASES) + " |",
        "| --- |" + " --: |" * len(BASES),
    ]
    for algo, result in results.items():
        cells = []
        for way in BASES:
            measure = "loss" if way == "bfloat16" else "variables"
            cell = f"{result[way][measure]:.1e}"
            if way != "bfloat16" and result[way]["confusion"]:
                cell += f" ({result[way]['confusion']} predictions)"
            cells.append(cell)
        lines.append(f"| {algo} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Allowed: {TOLERANCE:.0e}; for bfloat16 {BFLOAT16_TOLERANCE}, but "
        + ", ".join(f"{v} for {k}" for k, v in BFLOAT16_EXCEPTIONS.items())
        + ", whose weights are proportional to the meta gradient: rounding "
        "moves them, and with them the path of the training.",
        "",
    ]
    return "\n".join(lines)


def too_far(results):
    """Names of the cells that are not within the tolerance."""
    return [
        f"{algo}, {way}"
        for algo, result in results.items()
        for way, found in result.items()
        if (
            found["loss"] > BFLOAT16_EXCEPTIONS.get(algo, BFLOAT16_TOLERANCE)
            if way == "bfloat16"
            else found["variables"] > TOLERANCE
        )
    ]


def main(_):
    """Trains, compares and writes the table."""
    from tf_metassl.algorithms import ALGORITHMS

    values = flags.FLAGS
    algos = values.algos or list(ALGORITHMS)
    if values.folder:
        train_all(algos, values.ways, values.folder, values.num_steps)
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
            run_ways([algo], list(LOCAL), folder)
            run_ways([algo], [WORKERS], folder)
            results[algo] = {
                way: compare(load(folder, algo, way), load(folder, algo, base))
                for way, base in BASES.items()
            }
            print(algo, results[algo], flush=True)
            record.write_text(
                "".join(json.dumps({k: v}) + "\n" for k, v in results.items())
            )
            (out / "equivalence.md").write_text(markdown(results))
    if far := too_far(results):
        sys.exit(f"Not equal: {'; '.join(far)}")


if __name__ == "__main__":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    flags.DEFINE_list(
        "algos",
        [],
        "Methods to add to a table that is there; empty for all, anew.",
    )
    flags.DEFINE_string("out", "results", "Folder for the table.")
    flags.DEFINE_list("ways", list(LOCAL), "For processes of this tool.")
    flags.DEFINE_string("folder", "", "For processes of this tool.")
    flags.DEFINE_integer("num_steps", NUM_STEPS, "For processes of this tool.")
    app.run(main)
