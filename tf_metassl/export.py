"""python -m tf_metassl.export --run_dir=...: a SavedModel that serves."""

from absl import flags

from tf_metassl import config
from tf_metassl.run import command_line


def main(_):
    """Exports what the run's last stage deploys."""
    settings, run_dir, folder = config.run_from_flags()
    # TensorFlow is imported here, after every flag has been looked at.
    from tf_metassl.run import serving, stage
    from tf_metassl.run.build import build_experiment

    command_line.quieten()
    experiment = build_experiment(settings, run_dir)
    *_, (_, algorithm) = stage.restored_stages(experiment, run_dir)
    serving.export_saved_model(
        algorithm.deployable_model,
        experiment.source.info.class_names,
        folder,
        examples=experiment.examples,
    )
    print(folder)


if __name__ == "__main__":
    config.define_run_flags()
    flags.adopt_module_key_flags(config)
    command_line.run(main)
