"""python -m tf_metassl.evaluate --run_dir=...: prints a run's final table.

--median_of=20 follows MixMatch's protocol: the median over the last 20
checkpoints, which the run has to keep by --keep_checkpoints=20.
"""

import json
import os

from absl import flags

from tf_metassl import files
from tf_metassl.run import command_line


def main(_):
    """Restores every stage of the run and evaluates its networks."""
    settings, run_dir = command_line.run_from_flags()
    # TensorFlow is imported here, after every flag has been checked.
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
    if out := flags.FLAGS.out:
        files.write_text(os.path.expanduser(out), json.dumps(rows, indent=2))
    print(report.table(rows))


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    command_line.define_run_flags()
    flags.DEFINE_integer(
        "median_of",
        0,
        "Evaluate this many of the last checkpoints of each stage and print "
        "the median. 0 = the checkpoint that is reported.",
        lower_bound=0,
    )
    flags.DEFINE_string("out", "", "Also write the table to this JSON file.")
    help_on = command_line.help_on(
        __doc__, "run_dir", "median_of", "out", "trust_model_code", "model"
    )
    command_line.run(main, help_on, argv)


if __name__ == "__main__":
    run_command()
