"""python -m tf_metassl.evaluate --run_dir=...: a run's final table again.

With --median_of=20, the table is that of MixMatch's protocol: the median over
the last 20 checkpoints, which --keep_checkpoints=20 has to keep.
"""

import json
import pathlib

from absl import flags

from tf_metassl import config
from tf_metassl.run import command_line


def main(_):
    """Restores every stage of the run and evaluates its networks."""
    settings, run_dir, _ = config.run_from_flags()
    # TensorFlow is imported here, after every flag has been looked at.
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
        pathlib.Path(out).write_text(json.dumps(rows, indent=2))
    print(report.table(rows))


if __name__ == "__main__":
    config.define_run_flags()
    flags.DEFINE_integer(
        "median_of",
        0,
        "The median over this many of the last checkpoints of each stage. 0 = "
        "the checkpoint that is reported.",
        lower_bound=0,
    )
    flags.DEFINE_string("out", "", "A JSON file for the table, too.")
    flags.adopt_module_key_flags(config)
    command_line.run(main)
