"""python -m tf_metassl.evaluate --run_dir=...: a run's final table again."""

from absl import flags

from tf_metassl import commands, config


def main(_):
    """Restores every stage of the run and evaluates its networks."""
    run_dir = flags.FLAGS.run_dir
    settings = config.load(run_dir)
    # TensorFlow is imported here, after every flag has been looked at.
    from tf_metassl import experiment, report

    commands.quieten()
    built = experiment.build(settings)
    rows = []
    for stage, algorithm in experiment.restored_stages(built, run_dir):
        rows.extend(experiment.final_metrics(built, algorithm, stage.name))
    print(report.table(rows))


if __name__ == "__main__":
    flags.DEFINE_string("run_dir", None, "Folder of a finished run.")
    flags.mark_flag_as_required("run_dir")
    commands.run(main)
