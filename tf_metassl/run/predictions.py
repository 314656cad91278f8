"""Predictions of picture files, and labels made of them, as CSV files."""

import collections
import csv
import filecmp
import io
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from tf_metassl import files
from tf_metassl.data import patience, spelling
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.files import AnyPath
from tf_metassl.run import classifier, run_directory
from tf_metassl.run.classifier import Classifier, Prediction
from tf_metassl.run.run_images import LabeledFile


def load(
    model: AnyPath, *, trust_model_code: bool = False, network: str = ""
) -> Classifier:
    """The classifier of a run or of an export.

    Args:
        model: its folder.
        trust_model_code: see `run_directory.check_trust`.
        network: see `run_directory.check_trust`.

    Raises:
        ConfigError: if it is neither, or its code is not trusted.
    """
    folder = pathlib.Path(model).expanduser()
    if (folder / "saved_model.pb").is_file():
        return classifier.from_saved_model(folder)
    if not run_directory.is_run(folder):
        raise ConfigError(
            f"{folder} is neither the folder of a run, which has config.json, "
            "nor an export, which has saved_model.pb."
        )
    config = run_directory.load_config(folder)
    run_directory.check_trust(config, folder, trust_model_code, network)
    return classifier.from_run(run_directory.on_this_machine(config), folder)


def write(
    found: Classifier,
    paths: Sequence[pathlib.Path],
    out: AnyPath,
    top: int = 3,
    batch_size: int = 64,
) -> dict[str, int]:
    """Writes a row per file, in order.

    Args:
        found: a `Classifier`.
        paths: of the picture files.
        out: the CSV file. It appears when it is complete.
        top: classes per row.
        batch_size: pictures at a time.

    Returns:
        Class -> number of files.

    Raises:
        UserError: if the file cannot be written.
    """
    top = min(top, len(found.class_names))
    further = [
        name
        for k in range(2, top + 1)
        for name in (f"class_{k}", f"probability_{k}")
    ]
    heading = ["path", "class", "probability", "confidence", *further]
    counts: collections.Counter = collections.Counter()
    rows = []
    for p in found.predict(paths, batch_size):
        rows.append([str(p.path), *_columns(p, found, top), p.problem])
        if not p.problem:
            counts[found.class_names[p.probs.argmax()]] += 1
    _write_csv(out, [*heading, "problem"], rows)
    if unread := len(paths) - counts.total():
        patience.say(
            f"{unread:,} of {len(paths):,} files cannot be used: the column "
            "problem says why."
        )
    return {name: counts[name] for name in found.class_names}


def _columns(p: Prediction, found: Classifier, top: int) -> list[str]:
    """The columns between path and problem."""
    if p.problem:
        return [""] * (1 + 2 * top)
    first, *others = np.argsort(-p.probs, kind="stable")[:top]
    columns = [
        found.class_names[first],
        f"{p.probs[first]:.6f}",
        f"{p.calibrated[first]:.6f}",
    ]
    for k in others:
        columns += [found.class_names[k], f"{p.probs[k]:.6f}"]
    return columns


def _write_csv(
    out: AnyPath, heading: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    # A name that is not UTF-8 is shown escaped.
    writer.writerows([spelling.text(value) for value in row] for row in rows)
    path = pathlib.Path(out).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text.getvalue())
    except OSError as error:
        raise UserError(f"--out={path} cannot be written: {error}") from error


def write_labels(
    found: Classifier,
    paths: Sequence[pathlib.Path],
    out: AnyPath,
    *,
    min_confidence: float,
    per_class: int = 0,
    labeled: Sequence[LabeledFile] = (),
    copy_to: AnyPath = "",
    batch_size: int = 64,
) -> dict[str, dict[str, int]]:
    """Writes a manifest of pictures and their pseudo-labels.

    It can be corrected by hand and trained on with `--manifest`. Pictures that
    get no label stay in it as unlabeled ones; files that cannot be read are
    left out.

    Args:
        found: a `Classifier`.
        paths: of the picture files.
        out: the CSV file, with the columns path, label, split, confidence,
            predicted, student_agrees.
        min_confidence: a picture gets a label if its calibrated confidence is
            at least this.
        per_class: largest number of labels per class, the most confident ones;
            0: no bound.
        labeled: files that are put before them, and are not labeled again.
        copy_to: folder into which pictures with a label are copied, one
            sub-folder per class; empty: nothing is copied.
        batch_size: pictures at a time.

    Returns:
        Class -> `labeled`, `unlabeled` -> number of pictures predicted to be
        of it.

    Raises:
        UserError: if a file cannot be written or copied.
    """
    out = pathlib.Path(out).expanduser()
    given = {file.path.resolve() for file in labeled}
    paths = [path for path in paths if path.resolve() not in given]
    read = [p for p in found.predict(paths, batch_size) if not p.problem]
    chosen = _chosen(read, min_confidence, per_class)
    rows = [
        [_relative(file.path, out.parent), file.label, file.split, "", "", ""]
        for file in labeled
    ]
    counts = {
        name: {"labeled": 0, "unlabeled": 0} for name in found.class_names
    }
    for number, p in enumerate(read):
        name, confidence = _best(p, found)
        label = name if number in chosen else ""
        counts[name]["labeled" if label else "unlabeled"] += 1
        agrees = {None: "", True: "yes", False: "no"}[p.agrees]
        place = _relative(p.path, out.parent)
        rows.append([place, label, "train", f"{confidence:.6f}", name, agrees])
        if label and copy_to:
            _copy(p.path, pathlib.Path(copy_to).expanduser() / name)
    heading = ["path", "label", "split", "confidence", "predicted"]
    _write_csv(out, [*heading, "student_agrees"], rows)
    return counts


def _best(p: Prediction, found: Classifier) -> tuple[str, float]:
    best = int(p.calibrated.argmax())
    return found.class_names[best], float(p.calibrated[best])


def _chosen(
    read: Sequence[Prediction], min_confidence: float, per_class: int
) -> set[int]:
    """The numbers of the predictions that become labels."""
    by_class = collections.defaultdict(list)
    for number, p in enumerate(read):
        confidence = float(p.calibrated.max())
        if confidence >= min_confidence:
            best = int(p.calibrated.argmax())
            by_class[best].append((-confidence, number))
    return {
        number
        for members in by_class.values()
        for _, number in sorted(members)[: per_class or None]
    }


def _relative(path: pathlib.Path, folder: pathlib.Path) -> str:
    """The path as a manifest in `folder` names it."""
    path = path.absolute()
    try:
        return os.path.relpath(path, folder.absolute())
    except ValueError:  # Another drive.
        return str(path)


def _copy(path: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies a file into a folder, under another name if it is taken."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target, number = folder / path.name, 1
        while target.exists():
            if filecmp.cmp(target, path, shallow=False):
                return
            number += 1
            target = folder / f"{path.stem}-{number}{path.suffix}"
        files.write_bytes(target, path.read_bytes())
    except OSError as error:
        raise UserError(f"--copy_to={folder.parent}: {error}") from error
