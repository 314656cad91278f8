"""Looks at the images and labels of a training before it is started."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Sequence

from tf_metassl import files
from tf_metassl.config import Config
from tf_metassl.data import features, folder, spelling
from tf_metassl.data.store import Source
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.files import AnyPath
from tf_metassl.run import audit_page, build, findings, inventory
from tf_metassl.run.findings import Findings
from tf_metassl.run.inventory import SPLITS, Inventory

# Datasets of which files may be unusable.
_WITH_FILES = ("folder", "csv", "tfrecord")

PAGE = "audit.html"


def audit(
    config: Config,
    out: AnyPath,
    *,
    describe: features.Features = features.features,
    source: Source | None = None,
) -> dict:
    """Looks at the images that a training would use, and writes what it finds.

    Args:
        config: a `Config`, whose data settings are used. All files that cannot
            be used are left out and listed, however many they are.
        out: folder to write; files of an earlier audit in it are replaced.
        describe: images `[N, H, W, C]` uint8 -> `[N, F]` numbers, by which
            labels and unlabeled images are judged.
        source: a `Source` in memory; None to load the one that `config` names.

    Returns:
        The contents of `audit.json`.

    Raises:
        ConfigError: if the images cannot be used or split as configured.
        UserError: if the folder cannot be written.
    """
    out = pathlib.Path(out).expanduser()
    config = dataclasses.replace(config, max_bad_fraction=1.0)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(out, error) from error
    try:
        config, source, rows = build.load_data(config, out, source)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    items = inventory.of_source(config, source, rows)
    bad = _bad_files(out) if config.dataset in _WITH_FILES else []
    found = findings.find(items, describe, bad)
    summary = audit_page.summary(found)
    text = json.dumps(summary, indent=1, ensure_ascii=False)
    try:
        for name, table in _tables(items, found).items():
            _write_csv(out / name, table)
        files.write_text(out / "audit.json", text + "\n")
        files.write_text(out / PAGE, audit_page.render(found, items))
    except OSError as error:
        raise _cannot_write(out, error) from error
    return summary


def _cannot_write(out: pathlib.Path, error: OSError) -> UserError:
    return UserError(
        f"--out={out}: expected a folder that can be written, got "
        f"{error.strerror or error}. Name another folder."
    )


def _bad_files(out: pathlib.Path) -> list[tuple[str, str]]:
    """The files that cannot be used and why, as loading has listed them."""
    with open(out / folder.BAD_IMAGES, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return [(path, reason) for path, reason in rows[1:]]


def _tables(items: Inventory, found: Findings) -> dict[str, list]:
    """The CSV files: name -> rows, the first one being the heading."""
    image = ("split", "row", "path", "label")

    def columns(number: int) -> tuple:
        return (
            SPLITS[items.split[number]],
            items.row[number],
            items.path(number),
            items.class_name(items.label[number]),
        )

    of_second = tuple(f"{name}_2" for name in image)
    pairs = [("kind", "equal_pixels", "similarity", *image, *of_second)]
    for copy in found.copies:
        equal, value = "yes" if copy.exact else "no", f"{copy.similarity:.4f}"
        both = (*columns(copy.first), *columns(copy.second))
        pairs.append((copy.kind, equal, value, *both))
    doubts = [
        (*image, "probability", "predicted", "probability_2", "confident")
    ]
    for doubt in found.doubts:
        doubts.append(
            (
                *columns(doubt.number),
                f"{doubt.probability:.4f}",
                items.class_name(doubt.predicted),
                f"{doubt.best:.4f}",
                "yes" if doubt.confident else "no",
            )
        )
    strangers = [(*image[:3], "score")]
    for stranger in found.strangers:
        row = columns(stranger.number)[:3]
        strangers.append((*row, f"{stranger.score:.4f}"))
    of_splits = ("labeled", "validation", "test")
    classes = [("class", *of_splits)]
    for k, name in enumerate(found.class_names):
        numbers = (found.counts[SPLITS.index(s), k] for s in of_splits)
        classes.append((name, *numbers))
    return {
        "duplicates.csv": pairs,
        "suspicious_labels.csv": doubts,
        "far_from_classes.csv": strangers,
        "classes.csv": classes,
    }


def _write_csv(path: pathlib.Path, rows: Iterable[Sequence]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    # A name that is not UTF-8 is shown escaped.
    writer.writerows(
        [spelling.for_spreadsheet(spelling.text(str(cell))) for cell in row]
        for row in rows
    )
    files.write_text(path, text.getvalue())
