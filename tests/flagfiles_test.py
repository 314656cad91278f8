"""flags/ agrees with its table, parses, and its networks and batches exist."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from tools import make_flagfiles, settings

FLAGS = pathlib.Path(__file__).parents[1] / "flags/"
RUNS = make_flagfiles.runs()
FLOPS = json.loads((FLAGS / "flops.json").read_text("utf-8"))


def test_the_files_are_what_the_table_says():
    assert make_flagfiles.drifted(make_flagfiles.files(FLOPS)) == []
    assert set(FLOPS) == {run.network for run in RUNS.values()}


def test_a_file_that_was_edited_lost_or_added_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(make_flagfiles, "FLAGS", tmp_path)
    texts = {"a": "1\n", "b": "2\n", "c": "3\n"}
    for name, text in (("a", "1\n"), ("b", "edited\n"), ("d", "4\n")):
        (tmp_path / name).write_text(text)
    assert make_flagfiles.drifted(texts) == ["b", "c", "d"]


_PARSE = """
import json, pathlib, sys
from absl import flags
from tf_metassl import config

config.define_flags()
for path in sys.argv[1:]:
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["train", f"--flagfile={path}"])
    print(json.dumps(config.from_flags().to_json()))
assert not {"tensorflow", "keras"} & set(sys.modules)
"""


def test_the_command_line_reads_what_the_table_means():
    paths = [str(FLAGS / path) for path in RUNS]
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, *paths],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for run, line in zip(RUNS.values(), lines, strict=True):
        assert json.loads(line) == run.config.to_json()


def test_every_setting_says_where_it_comes_from():
    for path, run in RUNS.items():
        text = (FLAGS / path).read_text("utf-8")
        for name, setting in run.cells[0].settings.items():
            before = text[: text.index(f"--{name}=")]
            places = {s: before.rfind(f"# {s}."[:40]) for s in settings.SOURCES}
            last = max(places, key=places.get)
            assert last == setting.source, (path, name)


def test_every_number_stands_in_its_file_and_in_the_index():
    index = (FLAGS / "README.md").read_text("utf-8")
    for cell in settings.cells():
        text = " ".join((FLAGS / cell.path).read_text("utf-8").split())
        text = text.replace(" # ", " ")
        assert f"{cell.table}, {cell.row}: {cell.number}" in text
        assert f"| {cell.number} | [{cell.path}]" in index


def test_one_path_has_one_meaning(monkeypatch):
    (first, *_) = settings.cells()
    changed = settings.ours(seed=7)
    other = first._replace(settings=first.settings | changed)
    monkeypatch.setattr(settings, "cells", lambda: [first, other])
    with pytest.raises(ValueError, match="has two meanings"):
        make_flagfiles.runs()


@pytest.mark.parametrize(
    "path, operations, peak",
    [
        # Three passes per labeled image, and no other images.
        ("supervised/cifar10_1000_cnn13.flags", 50_000 * 128 * 3, 156e12),
        # 300 passes over 45,000 images in batches of 100 + 100.
        ("pi_model/cifar10_1000_cnn13.flags", 135_000 * 900, 156e12),
        (
            "meta_pseudo_labels/cifar10_4000_wrn.flags",
            300_000 * 128 * (6 + 7 * 12),
            312e12,
        ),
    ],
)
def test_hours_are_operations_by_speed(path, operations, peak):
    run = RUNS[path]
    hours = operations * 1e9 / (0.3 * peak) / 3600
    assert make_flagfiles.hours(run, 1e9) == pytest.approx(hours)


def test_the_rounds_of_noisy_student_count():
    run = RUNS["noisy_student/imagenet_and_jft_resnet_50.flags"]
    each = run.config.num_steps
    assert make_flagfiles.num_steps(run) == (4 * each, 3 * each)


@pytest.mark.timeout(600)
def test_the_networks_exist_and_have_these_costs():
    assert make_flagfiles.flops_by_network(FLOPS) == FLOPS


@pytest.mark.parametrize("algo", sorted({r.config.algo for r in RUNS.values()}))
def test_the_first_batch_has_the_images_that_the_estimate_counts(algo):
    from tf_metassl import experiment
    from tf_metassl.contract import DatasetInfo

    built = {}
    for path, run in RUNS.items():
        if run.config.algo != algo:
            continue
        # What a method wants to see does not depend on the network.
        knobs = run.config.hyperparameters
        choices = tuple(
            getattr(knobs, field.name)
            for field in dataclasses.fields(knobs)
            if field.metadata["choices"]
        )
        if choices not in built:
            info = DatasetInfo("digits", tuple("abc"), (8, 8, 1))
            small = dataclasses.replace(
                run.config, model="digits_cnn", dropout=0.0
            )
            built[choices] = experiment.build_algorithm(
                small, info, num_images=16
            )
        views = built[choices].views
        labeled, unlabeled = make_flagfiles.images_per_step(run)
        assert views.labeled
        assert labeled == run.config.batch_size
        if algo != "noisy_student":  # Whose teacher sees none at first.
            assert bool(views.unlabeled) == bool(unlabeled), path
