"""python -m tf_metassl.evaluate --run_dir=...: prints a run's final table.

--labeled_dir=DIR or --manifest=FILE evaluates on other images, with precision,
recall and F1 of each class that they have. --median_of=20 follows MixMatch's
protocol: the median over the last 20 checkpoints, which the run has to keep by
--keep_checkpoints=20.
"""

import dataclasses
import json
import os
import sys

from absl import flags

from tf_metassl import files
from tf_metassl.errors import ConfigError
from tf_metassl.run import command_line


def evaluate(
    model,
    *,
    labeled_dir="",
    manifest="",
    batch_size=64,
    trust_model_code=False,
    network="",
):
    """Measures a classifier on labeled picture files.

    Args:
        model: folder of a finished run, or of an export of this program.
        labeled_dir: folder with a sub-folder for each class.
        manifest: a CSV file, see `--manifest`; in place of `labeled_dir`.
        batch_size: pictures that the network sees at a time.
        trust_model_code: whether code may be run that the run names as its
            network.
        network: the name of that code, which trusts it as well.

    Returns:
        A `Measurement`, whose `to_json` is what the command writes.

    Raises:
        ConfigError: if the run or the images cannot be used.
    """
    # TensorFlow is imported here, after every flag has been checked.
    from tf_metassl.run import measurement, predictions

    names, labeled = measurement.labeled_files(labeled_dir, manifest)
    found = predictions.load(
        model, trust_model_code=trust_model_code, network=network
    )
    return measurement.measure(found, names, labeled, batch_size)


def main(_):
    """Evaluates the networks of every stage, or the exported one elsewhere."""
    names = ("labeled_dir", "manifest", "run_dir", "trust_model_code", "model")
    values = command_line.values_of(*names)
    if values["labeled_dir"] or values["manifest"]:
        if flags.FLAGS.median_of:
            raise ConfigError(
                "--median_of evaluates on the run's own images: leave it out, "
                "or --labeled_dir and --manifest."
            )
        if flags.FLAGS.real_labels:
            raise ConfigError(
                "--real_labels are those of the run's own test images: leave "
                "it out, or --labeled_dir and --manifest."
            )
        network = values.pop("model")
        found = evaluate(values.pop("run_dir"), network=network, **values)
        for path, problem in found.problems:
            print(f"{path}: {problem}", file=sys.stderr)
        result, text = found.to_json(), found.table()
    else:
        result, text = _own_images()
    if out := flags.FLAGS.out:
        files.write_text(os.path.expanduser(out), json.dumps(result, indent=2))
    print(text)


def _own_images():
    """Restores every stage of the run and evaluates its networks.

    Returns:
        The rows of the final table, and its text.
    """
    settings, run_dir = command_line.run_from_flags()
    if path := os.path.expanduser(flags.FLAGS.real_labels):
        settings = dataclasses.replace(settings, real_labels=path)
    from tf_metassl.run import evaluation, report, stage
    from tf_metassl.run.build import build_experiment

    command_line.quieten()
    experiment = build_experiment(settings, run_dir)
    rows = []
    for done, algorithm in stage.restored_stages(experiment, run_dir):
        if count := flags.FLAGS.median_of:
            rows += evaluation.median_metrics(
                experiment, algorithm, done.name, run_dir, count
            )
        else:
            rows += evaluation.final_metrics(experiment, algorithm, done.name)
    return rows, report.table(rows)


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    command_line.define_run_flags()
    flags.DEFINE_string(
        "labeled_dir",
        "",
        "Evaluate the exported network on these images, in one sub-folder per "
        "class. Empty = on the run's own images.",
    )
    flags.DEFINE_string(
        "manifest", "", "As --labeled_dir, for the images of a CSV file."
    )
    flags.DEFINE_string(
        "real_labels",
        "",
        "JSON file with a list of classes for each test image of the run, such "
        "as that of ImageNet-ReaL. Empty = the run's own, if it has one.",
    )
    flags.DEFINE_integer(
        "median_of",
        0,
        "Evaluate this many of the last checkpoints of each stage and print "
        "the median. 0 = the checkpoint that is reported.",
        lower_bound=0,
    )
    flags.DEFINE_string("out", "", "Also write the result to this JSON file.")
    help_on = command_line.help_on(
        __doc__,
        *("run_dir", "labeled_dir", "manifest", "median_of", "out"),
        "real_labels",
        *("trust_model_code", "model"),
    )
    command_line.run(main, help_on, argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
