"""python -m tf_metassl.export --run_dir=...: writes a run for other programs.

The SavedModel is for TensorFlow and TensorFlow Serving. --formats adds files
for ONNX Runtime and OpenVINO, for LiteRT on phones, and for Keras.
"""

import pathlib

from absl import flags

from tf_metassl import config
from tf_metassl.run import command_line


def main(_):
    """Exports the deployable network of the run's last stage."""
    settings, run_dir = command_line.run_from_flags()
    names = tuple(dict.fromkeys(flags.FLAGS.formats))
    config.check_formats(names)
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
    fitted = Calibration.load(run_dir)
    written = serving.export_run(experiment, algorithm, folder, fitted, names)
    if not written:
        print(folder)
    for file in written:
        times = ", ".join(
            f"{1000 * seconds:.3g} ms for {count}"
            for count, seconds in file.seconds.items()
        )
        print(f"{file.path}  {file.name}, {file.size / 1e6:.3g} MB, {times}")


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
    flags.DEFINE_list(
        "formats",
        [],
        "What to write: any of saved_model, onnx, litert and keras, with "
        "commas between them. Files have the name of --output and a suffix. "
        "Each is compared with the network and timed, for 1 and for 32 images. "
        "Empty = saved_model, not timed.",
    )
    help_on = command_line.help_on(
        __doc__, "run_dir", "output", "formats", "trust_model_code", "model"
    )
    command_line.run(main, help_on, argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
