"""python -m tf_metassl.export --run_dir=...: a SavedModel that serves."""

import pathlib

from absl import flags

from tf_metassl import commands, config


def main(_):
    """Exports what the run's last stage deploys."""
    run_dir = pathlib.Path(flags.FLAGS.run_dir)
    settings = config.load(run_dir)
    # TensorFlow is imported here, after every flag has been looked at.
    from tf_metassl import experiment, serving

    commands.quieten()
    built = experiment.build(settings)
    *_, (_, algorithm) = experiment.restored_stages(built, run_dir)
    folder = pathlib.Path(flags.FLAGS.output or run_dir / "export" / "1")
    serving.export_saved_model(
        algorithm.deployable_model,
        built.source.info.class_names,
        folder,
        examples=built.images("validation").images[:16],
    )
    print(folder)


if __name__ == "__main__":
    flags.DEFINE_string("run_dir", None, "Folder of a finished run.")
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write; servers expect a number as its last part. Empty = "
        "export/1 in the run's folder.",
    )
    flags.mark_flag_as_required("run_dir")
    commands.run(main)
