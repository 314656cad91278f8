"""The image files that a run on folders or a manifest has used.

Imports no TensorFlow.
"""

import pathlib
from typing import NamedTuple

from tf_metassl.config import Config
from tf_metassl.data import image_files, manifest
from tf_metassl.errors import ConfigError
from tf_metassl.files import AnyPath
from tf_metassl.run import run_directory


class LabeledFile(NamedTuple):
    """A file whose label is known.

    Attributes:
        path: of the file.
        label: name of its class.
        split: `train`, `validation` or `test`.
    """

    path: pathlib.Path
    label: str
    split: str


def labeled(run_dir: AnyPath) -> list[LabeledFile]:
    """The labeled training images of a run, and what it is measured on.

    Validation images are those of `--validation_dir` or of the manifest: what
    was held out of the labeled ones can be held out again.

    Args:
        run_dir: folder of the run.

    Raises:
        ConfigError: if the run is none, was not trained on files, or they are
            not where they were.
    """
    run_dir = pathlib.Path(run_dir).expanduser()
    config = run_directory.load_config(run_dir)
    if config.dataset not in ("folder", "csv"):
        raise ConfigError(
            f"--with_labeled: the run in {run_dir} was trained on "
            f"--dataset={config.dataset}, which has no files. Leave it out."
        )
    class_names, files = _files(config)
    trained = _trained(run_dir)
    found = []
    for file in files:
        split = file.split
        if split == "train" and file.name not in trained:
            continue
        if file.label >= 0:
            label = class_names[file.label]
            found.append(LabeledFile(file.path, label, split))
    if len([file for file in found if file.split == "train"]) < len(trained):
        raise ConfigError(
            f"--with_labeled: not all labeled images of the run in {run_dir} "
            "are where they were."
        )
    return sorted(found, key=lambda file: file.split != "train")


def _files(config: Config) -> tuple[list[str], list[image_files.ImageFile]]:
    """The classes and files of a run, with its test images."""
    try:
        if config.dataset == "csv":
            found = manifest.in_manifest(
                pathlib.Path(config.manifest),
                config.missing_labels,
                config.group_by,
            )
        else:
            config, _ = image_files.recognized(config)
            found = image_files.in_folders(config)
    except ValueError as error:
        raise ConfigError(f"--with_labeled: {error}") from error
    class_names, files, _ = found
    if not any(file.split == "test" for file in files):
        files = image_files.hold_out(files, config.test_fraction)
    return class_names, files


def _trained(run_dir: pathlib.Path) -> set[str]:
    """The names of the images whose labels the run has learned."""
    path = run_dir / "labeled_ids.txt"
    try:
        lines = path.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise ConfigError(f"--with_labeled: {path}: {error}") from error
    return {line.split("\t")[2] for line in lines if line[:1] != "#"}
