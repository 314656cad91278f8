"""python -m tf_metassl.evaluate --run_dir=...: a run's final table again."""

from absl import flags

from tf_metassl import commands, config


def main(_):
    """Restores every stage of the run and evaluates its networks."""
    settings, run_dir, _ = config.run_from_flags()
    # TensorFlow is imported here, after every flag has been looked at.
    from tf_metassl import experiment, report

    commands.quieten()
    built = experiment.build(settings, run_dir)
    rows = []
    for stage, algorithm in experiment.restored_stages(built, run_dir):
        rows.extend(experiment.final_metrics(built, algorithm, stage.name))
    print(report.table(rows))


if __name__ == "__main__":
    config.define_run_flags()
    flags.adopt_module_key_flags(config)
    commands.run(main)
