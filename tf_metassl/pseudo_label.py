"""python -m tf_metassl.pseudo_label --run_dir=RUN --images=DIR: labels files.

Writes a manifest, --out: the class of every image whose calibrated confidence
is at least --min_confidence, the others without a label. Correct it and train
on it with --manifest. The columns confidence, predicted and student_agrees help
to decide what to look at.
"""

from collections.abc import Sequence

from absl import flags

from tf_metassl.data import spelling
from tf_metassl.run import command_line


def pseudo_label(
    run_dir: str,
    images: Sequence[str],
    out: str,
    *,
    min_confidence: float = 0.95,
    per_class: int = 0,
    with_labeled: bool = False,
    copy_to: str = "",
    batch_size: int = 64,
    trust_model_code: bool = False,
    network: str = "",
) -> dict[str, dict[str, int]]:
    """Labels picture files by a trained classifier and writes a manifest.

    Args:
        run_dir: folder of a finished run, or of an export.
        images: files, folders and patterns, see `pictures.find`.
        out: the manifest to write.
        min_confidence: least calibrated confidence of a label.
        per_class: largest number of labels per class; 0: no bound.
        with_labeled: whether the manifest begins with the run's own labeled,
            validation and test images, see `run_images.labeled`.
        copy_to: folder into which labeled files are copied by class; empty:
            they are not.
        batch_size: pictures that the network sees at a time.
        trust_model_code: whether code may be run that the run names as its
            network.
        network: the name of that code, which trusts it as well.

    Returns:
        Class -> `labeled`, `unlabeled` -> number of files.

    Raises:
        ConfigError: if `run_dir` is neither, or has no labeled images that can
            be named.
        UserError: if there are no such files, or one cannot be written.
    """
    # TensorFlow is imported here, after every flag has been checked.
    from tf_metassl.data import pictures
    from tf_metassl.run import predictions, run_images

    paths = pictures.find(images)
    labeled = run_images.labeled(run_dir) if with_labeled else ()
    found = predictions.load(
        run_dir, trust_model_code=trust_model_code, network=network
    )
    return predictions.write_labels(
        found,
        paths,
        out,
        min_confidence=min_confidence,
        per_class=per_class,
        labeled=labeled,
        copy_to=copy_to,
        batch_size=batch_size,
    )


_FLAGS = (
    *("run_dir", "images", "out", "min_confidence", "per_class"),
    *("with_labeled", "copy_to", "batch_size", "trust_model_code", "network"),
)


def main(_):
    """Writes the manifest and prints the numbers of each class."""
    values = command_line.values_of(*_FLAGS)
    counts = pseudo_label(**values)
    print(f"{'labeled':>8}  {'not':>8}  class")
    for name, of in counts.items():
        name = spelling.one_line(name)
        print(f"{of['labeled']:8,}  {of['unlabeled']:8,}  {name}")
    print(values["out"])


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    flags.DEFINE_string(
        "run_dir", None, "Folder of a finished run or an export."
    )
    flags.DEFINE_multi_string(
        "images", None, "A file, a folder or a pattern; may be repeated."
    )
    flags.DEFINE_string("out", "labels.csv", "The manifest to write.")
    flags.DEFINE_float(
        "min_confidence",
        0.95,
        "Least calibrated confidence of a label.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer(
        "per_class", 0, "Most labels per class. 0 = no bound.", lower_bound=0
    )
    flags.DEFINE_boolean(
        "with_labeled",
        False,
        "Begin with the run's own labeled, validation and test images and "
        "their true labels.",
    )
    flags.DEFINE_string(
        "copy_to",
        "",
        "Folder into which labeled files are copied, one sub-folder per class. "
        "Empty = nothing is copied.",
    )
    flags.DEFINE_integer("batch_size", 64, "Images at a time.", lower_bound=1)
    command_line.define_trust("network")
    flags.mark_flags_as_required(["run_dir", "images"])
    command_line.run(main, command_line.help_on(__doc__, *_FLAGS), argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
