"""python -m tf_metassl.export --run_dir=...: writes a run as a SavedModel."""

import pathlib

from absl import flags

from tf_metassl.run import command_line


def main(_):
    """Exports the deployable network of the run's last stage."""
    settings, run_dir = command_line.run_from_flags()
    output = flags.FLAGS.output or run_dir / "export" / "1"
    folder = pathlib.Path(output).expanduser()
    # TensorFlow is imported here, after every flag has been checked.
    from tf_metassl.run import serving, stage
    from tf_metassl.run.build import build_experiment, build_without_images
    from tf_metassl.run.calibration import Calibration

    command_line.quieten()
    experiment = build_without_images(settings, run_dir)
    experiment = experiment or build_experiment(settings, run_dir)
    *_, (_, algorithm) = stage.restored_stages(experiment, run_dir)
    serving.export_run(experiment, algorithm, folder, Calibration.load(run_dir))
    print(folder)


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    command_line.define_run_flags()
    flags.DEFINE_string(
        "output",
        "",
        "Where to write the export; servers expect a number as the last part. "
        "A folder that holds anything but an export is not replaced. Empty = "
        "export/1 in the run's folder.",
    )
    help_on = command_line.help_on(
        __doc__, "run_dir", "output", "trust_model_code", "model"
    )
    command_line.run(main, help_on, argv)


if __name__ == "__main__":
    run_command()
