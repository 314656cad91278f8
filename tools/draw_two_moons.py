"""Trains methods on two moons and draws their decision boundaries.

    python tools/draw_two_moons.py --out=results/two_moons.png

All methods get the same 6 labeled and 2,000 unlabeled points, the same seed and
the defaults of the dataset. Meta Pseudo Labels is trained with and without UDA,
the consistency loss of its teacher on noisy points, to show the part of each in
the result.
"""

import contextlib
import json
import pathlib
import sys
import tempfile

import matplotlib.colors
import matplotlib.figure
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from tf_metassl import config as config_lib

# Title -> settings.
METHODS = {
    "Supervised": {"algo": "supervised"},
    "Pseudo-Label": {"algo": "pseudo_label"},
    "Meta-Semi": {"algo": "meta_semi"},
    "Meta Pseudo Labels\nwithout UDA": {
        "algo": "meta_pseudo_labels",
        "uda_weight": 0.0,
    },
    "Meta Pseudo Labels": {"algo": "meta_pseudo_labels"},
}
_COLORS = ("#2f6db5", "#d9722e")
# All points with coordinates from 0 to 255.
_Y, _X = np.mgrid[:256, :256]
GRID = np.stack([_X, _Y], axis=-1).reshape(-1, 1, 1, 2).astype(np.uint8)


def train(run_dir, **given):
    """Trains one method.

    Args:
        run_dir: folder of the run.
        **given: settings that differ from the defaults.

    Returns:
        `(probability, accuracy)`: the probability of class 1 at row y and
        column x, `[256, 256]`, and the test accuracy of the exported network.
    """
    import tensorflow as tf

    from tf_metassl.run import command_line, experiment

    command_line.quieten()
    config = config_lib.resolve(
        {"dataset": "two_moons", "run_dir": str(run_dir), "verbose": 0, **given}
    )
    with contextlib.redirect_stdout(None):
        experiment.train(config)
    loaded = tf.saved_model.load(str(run_dir / "export" / "1"))
    served = loaded.signatures["serving_default"](image=tf.constant(GRID))
    rows = json.loads((run_dir / "results.json").read_text())
    deployed = [row for row in rows if row["deployed"]][-1]
    probability = served["probabilities"].numpy()[:, 1].reshape(256, 256)
    return probability, deployed["test_accuracy"]


def points(split_seed):
    """The training points and the rows of the labeled ones.

    Returns:
        `[N, 2]` uint8, `[N]` labels, `[6]` rows.
    """
    from tf_metassl.data import sources, splits

    config = config_lib.resolve(
        {"dataset": "two_moons", "split_seed": split_seed}
    )
    train = sources.load("two_moons").train
    rows = splits.split(
        train.labels,
        num_labeled=config.num_labeled,
        num_validation=config.num_validation,
        split_seed=config.split_seed,
        labeled_inside=config.labeled_inside_unlabeled,
        label_split=config.label_split,
    )
    return train.images[:, 0, 0], train.labels, rows.labeled


def draw(learned, places, labels, labeled):
    """Draws the decision regions side by side.

    Args:
        learned: title -> what `train` returned.
        places: `[N, 2]` points.
        labels: `[N]`.
        labeled: rows of the labeled points.

    Returns:
        A matplotlib figure.
    """
    figure = matplotlib.figure.Figure((14, 3), layout="constrained")
    shade = matplotlib.colors.LinearSegmentedColormap.from_list(
        "classes", [_COLORS[0], "white", _COLORS[1]]
    )
    colors = np.array(_COLORS)
    panels = figure.subplots(1, len(learned), sharex=True, sharey=True)
    for axes, (title, (probability, accuracy)) in zip(
        panels, learned.items(), strict=True
    ):
        axes.imshow(
            probability,
            cmap=shade,
            vmin=0,
            vmax=1,
            alpha=0.45,
            origin="lower",
            interpolation="bilinear",
        )
        axes.scatter(*places.T, 2, colors[labels], alpha=0.35, linewidths=0)
        # There is no boundary if one class is predicted everywhere.
        if probability.min() < 0.5 < probability.max():
            axes.contour(probability, [0.5], colors="black", linewidths=1.4)
        axes.scatter(
            *places[labeled].T,
            150,
            colors[labels[labeled]],
            marker="*",
            edgecolors="black",
            zorder=3,
        )
        axes.set(xlim=(10, 245), ylim=(50, 205), xticks=[], yticks=[])
        axes.set_title(title)
        axes.set_xlabel(f"{100 * accuracy:.1f} % of the test points")
    return figure


def main(_):
    """Trains all methods and writes the picture."""
    values = flags.FLAGS
    given = {"seed": values.seed, "split_seed": values.seed}
    if values.num_steps:
        given["num_steps"] = values.num_steps
    learned = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, settings in METHODS.items():
            run_dir = pathlib.Path(folder) / str(len(learned))
            learned[title] = train(run_dir, **settings, **given)
    figure = draw(learned, *points(values.seed))
    out = pathlib.Path(values.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    for title, (_, accuracy) in learned.items():
        print(f"{title.replace(chr(10), ' ')}: {accuracy:.4f}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "two_moons.png", "File to write.")
    flags.DEFINE_integer("seed", 0, "Seed of weights, batches and splits.")
    flags.DEFINE_integer("num_steps", 0, "Training steps. 0 = the default.")
    app.run(main)
