"""Walks from photographs to predictions and writes the walk as a page.

    python tools/walk_photos.py --data=DIR --out=docs/photos.md

DIR has the folders train, validation and test, each with one sub-folder of
images per class. The commands of the page are run in a temporary folder, in
which DIR is called `photos`; their output stands below them, shortened.
"""

import csv
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import typing

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
_CONSOLE = "from tf_metassl.run.command_line import main; main()"

# Tests run the blocks of pages that are not marked so.
_NOT_RUN = "<!-- not run: trains for minutes -->"
_SERVE = """\
import pathlib
import tensorflow as tf

serve = tf.saved_model.load("model/1").signatures["image_bytes"]
files = sorted(pathlib.Path("photos/test").rglob("*.jpg"))[::120]
served = serve(image_bytes=tf.constant([f.read_bytes() for f in files]))
for file, name, confidence in zip(
    files, served["class_name"].numpy(), served["confidence"].numpy()
):
    print(file.parent.name, name.decode(), round(float(confidence), 2))
"""


class Step(typing.NamedTuple):
    """A part of the page.

    Attributes:
        text: what is done and why, in Markdown.
        command: a shell command or Python code; empty for text alone.
        kept: regular expression of the lines of output that are shown; empty
            for all.
    """

    text: str
    command: str = ""
    kept: str = ""


def steps(settings):
    """The walk.

    Args:
        settings: flags of both trainings.
    """
    return [
        Step(
            "# From photographs to predictions\n\n"
            "This page was written by `tools/walk_photos.py`, which ran every "
            "command on 3,781 photos of clothes in ten classes (clothing-"
            "dataset-small, CC0), whose shorter side has 96 pixels. A small "
            "network, 32 pixels and few steps keep it to minutes on two CPU "
            "cores; for accuracy, leave `--model`, `--image_size` and "
            "`--num_steps` at larger values.\n\n"
            "## Train\n\n"
            "30 labels a class; the other training photos are used without "
            "their labels."
        ),
        Step(
            "",
            "tf-metassl train --algo=fixmatch --labeled_dir=photos/train "
            "--validation_dir=photos/validation --test_dir=photos/test "
            f"--num_labeled=300 {settings} --num_steps=600 --run_dir=first "
            "--verbose=0",
            r"^(method|images|network|\|)",
        ),
        Step(
            "## Evaluate\n\nOn any folder of the same classes; here on the "
            "test photos, once more.",
            "tf-metassl evaluate --run_dir=first --labeled_dir=photos/test",
        ),
        Step(
            "## Label\n\nThe classifier labels the training photos of which "
            "it is sure. The manifest begins with the 300 true labels and has "
            "the validation and test photos, too.",
            "tf-metassl pseudo_label --run_dir=first --images=photos/train "
            "--min_confidence=0.8 --with_labeled --out=labels.csv",
        ),
        Step(
            "## Correct\n\nA person corrects wrong rows in a spreadsheet or "
            "an editor. Here the folders of the photos tell the classes of "
            "two of them:",
            "correct",
        ),
        Step(
            "## Train again",
            "tf-metassl train --algo=fixmatch --manifest=labels.csv "
            f"{settings} --num_steps=600 --run_dir=second --verbose=0",
            r"^(method|images|network|\|)",
        ),
        Step(
            "## Predict",
            "tf-metassl predict --model=second --images=photos/test "
            "--out=predictions.csv",
        ),
        Step("", "head -3 predictions.csv"),
        Step(
            "## Export and serve\n\nThe export takes the bytes of files; it "
            "needs TensorFlow alone.",
            "tf-metassl export --run_dir=second --output=model/1",
        ),
        Step("", _SERVE),
    ]


def correct(manifest):
    """Gives two wrong labels of a manifest their folder's name.

    Args:
        manifest: path of the file.

    Returns:
        Text about the rows.
    """
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    lines = []
    for row in rows[1:]:
        true = pathlib.PurePath(row[0]).parent.name
        if row[4] and row[1] and row[1] != true and len(lines) < 2:
            lines.append(f"{row[0]}: {row[1]} -> {true}")
            row[1] = true
    with manifest.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return "\n".join(lines)


def run(step, folder):
    """Runs a step in a folder and returns its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    if step.command == "correct":
        return correct(folder / "labels.csv")
    if step.command.startswith("import"):
        words = [sys.executable, "-c", step.command]
    else:
        words = shlex.split(step.command)
        if words[0] == "tf-metassl":
            words = [sys.executable, "-c", _CONSOLE, *words[1:]]
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{step.command}\n{done.stdout}{done.stderr}")
    lines = done.stdout.splitlines()
    if step.kept:
        lines = [line for line in lines if re.match(step.kept, line)]
    return "\n".join(line[:96].rstrip() for line in lines)


def wrapped(text):
    """A paragraph in lines of up to 80 characters."""
    return textwrap.fill(text, 80, break_on_hyphens=False)


def block(language, text):
    """A fenced block."""
    return f"```{language}\n{text.rstrip()}\n```"


def page(data, settings):
    """Runs the walk and returns the page.

    Args:
        data: folder of the photos, a `pathlib.Path`.
        settings: flags of both trainings.
    """
    parts = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "photos").symlink_to(data.resolve())
        for step in steps(settings):
            if step.text:
                parts += [wrapped(text) for text in step.text.split("\n\n")]
            if not step.command:
                continue
            output = run(step, folder)
            if step.command.startswith("import"):
                parts.append(f"{_NOT_RUN}\n{block('python', step.command)}")
            elif step.command != "correct":
                shown = textwrap.wrap(
                    step.command,
                    76,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
                shown = " \\\n  ".join(shown)
                parts.append(f"{_NOT_RUN}\n{block('sh', shown)}")
            parts.append(block("text", output))
    return "\n\n".join(parts) + "\n"


def main(_):
    """Writes the page."""
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(pathlib.Path(values.data), values.settings), "utf-8")


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "Folder of the photos.")
    flags.DEFINE_string("out", "docs/photos.md", "The page to write.")
    flags.DEFINE_string(
        "settings",
        "--image_size=32 --model=strided_cnn",
        "Flags of both trainings.",
    )
    flags.mark_flag_as_required("data")
    app.run(main)
