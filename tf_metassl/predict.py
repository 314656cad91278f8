"""python -m tf_metassl.predict --model=RUN --images=FOLDER: classifies files.

--model is the folder of a run or of one of its exports; --images a file, a
folder or a pattern, and may be given several times. --out gets a row per file,
in their order: path, class, probability, confidence (the probability after
calibration on the validation images), the next classes, and what is wrong with
files that cannot be read.
"""

import pathlib
import time
from collections.abc import Sequence

from absl import flags

from tf_metassl.data import spelling
from tf_metassl.run import command_line


def predict(
    model: str,
    images: Sequence[str],
    out: str,
    *,
    top: int = 3,
    batch_size: int = 64,
    trust_model_code: bool = False,
    network: str = "",
) -> dict[str, int]:
    """Classifies picture files and writes a CSV file.

    Args:
        model: folder of a finished run, or of an export of this program.
        images: files, folders and patterns, see `pictures.find`.
        out: the file to write.
        top: how many classes a row has, the most probable ones first.
        batch_size: pictures that the network sees at a time.
        trust_model_code: whether code may be run that the run names as its
            network.
        network: the name of that code, which trusts it as well.

    Returns:
        Class -> number of files; files that cannot be read are not counted.

    Raises:
        ConfigError: if `model` is neither.
        UserError: if there are no such files, or `out` cannot be written.
    """
    # TensorFlow is imported here, after every flag has been checked.
    from tf_metassl.data import pictures
    from tf_metassl.run import predictions

    paths = pictures.find(images)
    found = predictions.load(
        model, trust_model_code=trust_model_code, network=network
    )
    return predictions.write(found, paths, out, top, batch_size)


_FLAGS = (
    *("model", "images", "out", "top", "batch_size"),
    *("trust_model_code", "network"),
)


def main(_):
    """Writes the predictions and prints how many there are of each class."""
    values = command_line.values_of(*_FLAGS)
    start = time.monotonic()
    counts = predict(**values)
    seconds = time.monotonic() - start
    for name, count in counts.items():
        print(f"{count:8,}  {spelling.one_line(name)}")
    total = sum(counts.values())
    print(
        f"{pathlib.Path(values['out']).expanduser()}: {total:,} images in "
        f"{seconds:.1f} s, {total / seconds:,.0f} images/s"
    )


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    flags.DEFINE_string("model", None, "Folder of a finished run or an export.")
    flags.DEFINE_multi_string(
        "images", None, "A file, a folder or a pattern; may be repeated."
    )
    flags.DEFINE_string("out", "predictions.csv", "The CSV file to write.")
    flags.DEFINE_integer("top", 3, "Classes per file.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 64, "Images at a time.", lower_bound=1)
    command_line.define_trust("network")
    flags.mark_flags_as_required(["model", "images"])
    command_line.run(main, command_line.help_on(__doc__, *_FLAGS), argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
