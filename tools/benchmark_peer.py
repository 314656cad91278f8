"""Steps beside the same ones in PyTorch, for `tools/benchmark.py peer`."""

import json
import pathlib
import subprocess
import tempfile

import numpy as np

from tools import benchmark_timing, step_worker

WORKER = pathlib.Path(__file__).with_name("peer_torch.py")
SIZE, SHAPE, MODEL = 64, (32, 32, 3), "wrn_16_1"
# Name of the step there -> method, settings and labeled images here.
STEPS = {
    "plain": ("supervised", {}, 3 * SIZE),
    "meta_semi, forward_mode": (
        "meta_semi",
        {"meta_gradient": "forward_mode"},
        SIZE,
    ),
    "meta_semi, nested_tape": (
        "meta_semi",
        {"meta_gradient": "nested_tape"},
        SIZE,
    ),
    **{
        f"meta_pseudo_labels, {form}": (
            "meta_pseudo_labels",
            {"feedback": form},
            SIZE,
        )
        for form in ("taylor", "per_example", "exact_soft")
    },
}


class Peer:
    """A process with PyTorch.

    Args:
        python: its interpreter.
    """

    def __init__(self, python):
        self._process = subprocess.Popen(
            [python, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request):
        """The answer to a request, see tools/peer_torch.py."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process with PyTorch has ended, see above.")
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def data(network, batch):
    """What the peer gets: parameters and a batch, name -> array.

    Args:
        network: the student, untrained.
        batch: a training batch of Meta-Semi or Meta Pseudo Labels.
    """
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    arrays = {"labeled": labeled["weak"], "label": labeled["label"]}
    arrays["unlabeled"] = unlabeled["weak"]
    for name in ("clean", "strong"):
        arrays[name] = unlabeled.get(name, unlabeled["weak"])
    arrays["draw"] = unlabeled["label_draw"]
    for name, group in batch.items():
        arrays[f"{name}_weight"] = group["mix_weight"]
        arrays[f"{name}_partner"] = group["mix_partner"]
    values = {
        "param": network.trainable_variables,
        "average": [w for w in network.weights if "moving" in w.path],
    }
    for kind, variables in values.items():
        for index, variable in enumerate(variables):
            arrays[f"{kind}_{index}"] = variable.value
    return {name: np.asarray(value) for name, value in arrays.items()}


def selected(algorithm, batch):
    """What a step selects, an integer array, and takes the step.

    The examples with weight 1 of Meta-Semi; the classes that Meta Pseudo Labels
    samples.
    """
    import tensorflow as tf

    from tf_metassl.meta import example_weights
    from tf_metassl.ops import pseudo_labels

    found = []

    def noted(function, kept):
        def wrapped(*args, **options):
            result = function(*args, **options)
            found.append(kept(result).numpy())
            return result

        return wrapped

    rules, sampled = example_weights.RULES, pseudo_labels.sampled
    indicator = rules["indicator"]
    rules["indicator"] = noted(indicator, lambda weight: weight)
    pseudo_labels.sampled = noted(sampled, lambda rows: tf.argmax(rows, 1))
    try:
        algorithm.training_step(batch)
    finally:
        rules["indicator"], pseudo_labels.sampled = indicator, sampled
    return found[0].astype(int)


def compared(name, python, repeats):
    """A step here and there: times and the share of equal selections.

    Args:
        name: a key of `STEPS`.
        python: the interpreter with PyTorch.
        repeats: how often each is timed.

    Returns:
        `(times, share)`: name -> `[repeats, 2]` array, and the share, None for
        a step that selects nothing.
    """
    algo, settings, size = STEPS[name]
    ours = step_worker.parts(algo, settings, MODEL, SHAPE, size)
    batch = next(ours.iterator)
    if algo == "supervised":
        # The plain step of the peer needs images, whichever.
        others = step_worker.parts("meta_semi", {}, MODEL, SHAPE, SIZE)
        batch = next(others.iterator)
    arrays = data(ours.algorithm.student, batch)
    peers = {"contiguous": Peer(python), "channels_last": Peer(python)}
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "data.npz")
            np.savez(path, **arrays)
            for kind, peer in peers.items():
                peer.ask(data=path, channels_last=kind == "channels_last")
        share = None
        if algo != "supervised" and settings.get("feedback") != "exact_soft":
            if algo == "meta_pseudo_labels":  # Both begin with one network.
                ours.algorithm.teacher.set_weights(
                    ours.algorithm.student.get_weights()
                )
            there = peers["contiguous"].ask(selected=name)
            here = selected(ours.algorithm, batch)
            share = float(np.mean(here == np.array(there)))
        times = {"ours": []} | {kind: [] for kind in peers}
        for repeat in range(repeats + 1):
            times["ours"].append(step_worker.timed(ours.step, 2))
            for kind, peer in peers.items():
                times[kind].append(peer.ask(run=name, times=2))
            if not repeat:  # It compiles.
                times = {kind: [] for kind in times}
    finally:
        for peer in peers.values():
            peer.close()
    return {kind: np.array(v) for kind, v in times.items()}, share


def run_peer(args):
    """Prints and writes the times of steps here and in PyTorch."""
    benchmark_timing.one_core()
    version = subprocess.run(
        [args.python, "-c", "import torch; print(torch.__version__)"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.strip()
    rows = []
    for name in STEPS:
        found, share = compared(name, args.python, args.repeats)
        cells = [name, benchmark_timing.milliseconds(found["ours"])]
        for kind in ("contiguous", "channels_last"):
            cells.append(benchmark_timing.ratios(found["ours"], found[kind])[0])
        cells.append("" if share is None else f"{100 * share:.1f} %")
        rows.append(cells)
        print(cells, flush=True)
    head = ["step", "ms", "ours / PyTorch", "ours / channels_last", "equal"]
    lines = [
        "# Steps beside PyTorch",
        "",
        "Made by `python tools/benchmark.py peer`: training steps, CPU time "
        f"relative to the same steps written in PyTorch {version} "
        f"(`tools/peer_torch.py`), {MODEL} on images of 32 x 32 x 3, {SIZE} "
        f"labeled and {2 * SIZE} unlabeled ones; plain: a supervised step on "
        f"{3 * SIZE}. The steps there keep no moving averages of batch norm "
        "and no metrics. equal: the share of the unlabeled images that both "
        "select, or give the same class, at the first parameters. "
        f"{benchmark_timing.setting()}",
        "",
        *benchmark_timing.table(head, rows),
    ]
    benchmark_timing.publish(lines, args.out, "peer.md")
