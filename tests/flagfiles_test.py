"""flags/ is up to date and parses, and its networks and batches exist."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import mostly_exhaustive
from tf_metassl.config import Config
from tf_metassl.contract import DatasetInfo
from tf_metassl.data import options, pipeline, policies, splits, store
from tf_metassl.run.build import Experiment, build_algorithm
from tools import make_flagfiles, settings

FLAGS = pathlib.Path(__file__).parents[1] / "flags/"
RUNS = make_flagfiles.runs()
FLOPS = json.loads((FLAGS / "flops.json").read_text("utf-8"))


def test_the_files_are_up_to_date():
    assert make_flagfiles.drifted(make_flagfiles.files(FLOPS)) == []
    assert set(FLOPS) == {run.network for run in RUNS.values()}


def test_a_file_that_was_edited_removed_or_added_is_found(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(make_flagfiles, "FLAGS", tmp_path)
    texts = {"a": "1\n", "b": "2\n", "c": "3\n"}
    for name, text in (("a", "1\n"), ("b", "edited\n"), ("d", "4\n")):
        (tmp_path / name).write_text(text)
    assert make_flagfiles.drifted(texts) == ["b", "c", "d"]


_PARSE = """
import json, pathlib, sys
from absl import flags
from tf_metassl.run import command_line

command_line.define_flags()
for path in sys.argv[1:]:
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["train", f"--flagfile={path}"])
    print(json.dumps(command_line.from_flags().to_json()))
assert not {"tensorflow", "keras"} & set(sys.modules)
"""


def test_the_command_line_resolves_a_file_to_the_settings_of_the_table():
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


def test_every_setting_names_its_source():
    for path, run in RUNS.items():
        text = (FLAGS / path).read_text("utf-8")
        for name, setting in run.cells[0].settings.items():
            before = text[: text.index(f"--{name}=")]
            places = {s: before.rfind(f"# {s}."[:40]) for s in settings.SOURCES}
            last = max(places, key=places.get)
            assert last == setting.source, (path, name)


def test_every_number_is_in_its_file_and_in_the_index():
    index = (FLAGS / "README.md").read_text("utf-8")
    for cell in settings.cells():
        text = " ".join((FLAGS / cell.path).read_text("utf-8").split())
        text = text.replace(" # ", " ")
        assert f"{cell.table}, {cell.row}: {cell.number}" in text
        assert f"| {cell.number} | [{cell.path}]" in index


def test_cells_with_one_path_have_the_same_settings(monkeypatch):
    (first, *_) = settings.cells()
    changed = settings.ours(seed=7)
    other = first._replace(settings=first.settings | changed)
    monkeypatch.setattr(settings, "cells", lambda: [first, other])
    with pytest.raises(ValueError, match="have different settings"):
        make_flagfiles.runs()


def test_a_file_sets_every_flag_without_a_plain_default():
    """Else "All other flags have the defaults" would be wrong."""
    plain = {f.name: f for f in dataclasses.fields(Config) if f.metadata}
    # Follows from the length of the run.
    del plain["evaluate_every"]
    for path, run in RUNS.items():
        said = run.cells[0].settings
        fields = dataclasses.fields(run.config.hyperparameters)
        assert {field.name for field in fields} <= said.keys(), path
        for name, field in plain.items():
            if name not in said and name != "algo":
                assert getattr(run.config, name) == field.default, (path, name)


@pytest.mark.parametrize(
    "path, name, value",
    [
        # 100, where the code divides the labeled loss by all 128 images.
        (
            "fast_swa/cifar100_10000_cnn13",
            "unlabeled_loss_weight",
            100 * 128 / 31,
        ),
        (
            "fast_swa/cifar10_4000_cnn13",
            "unlabeled_loss_weight",
            100 * 100 / 50,
        ),
        # Five passes over 45,000 images, 50 in a step.
        (
            "fast_swa/cifar10_4000_cnn13",
            "unlabeled_ramp_steps",
            5 * 45_000 / 50,
        ),
        # 3.5 where pixels span 0 to 1.
        ("vat/svhn_1000_cnn13", "vat_epsilon", 2 * 3.5),
        ("mean_teacher/cifar10_4000_wrn", "unlabeled_ramp_steps", 0.4 * 2**20),
        # The code's rates are per 256 images.
        (
            "meta_pseudo_labels/imagenet_10pct_resnet_50",
            "learning_rate",
            4 * 0.1,
        ),
        (
            "meta_pseudo_labels/imagenet_10pct_resnet_50",
            "teacher_learning_rate",
            0.6,
        ),
        (
            "meta_pseudo_labels/imagenet_and_jft_resnet_50",
            "learning_rate",
            16 * 0.1,
        ),
        (
            "meta_pseudo_labels/imagenet_and_jft_resnet_50",
            "teacher_learning_rate",
            16 * 0.15,
        ),
    ],
)
def test_numbers_are_converted_to_our_units(path, name, value):
    given = RUNS[f"{path}.flags"].cells[0].settings[name].value
    assert given == pytest.approx(value, rel=0.001)


@pytest.mark.parametrize(
    "path, per_labeled, per_unlabeled",
    [
        ("sntg/cifar10_1000_cnn13.flags", 3, 3),  # On Temporal Ensembling.
        ("sntg/svhn_500_cnn13.flags", 3, 6),  # On the Pi-model.
        ("vat/cifar10_1000_cnn13.flags", 3, 7),
        ("vat/cifar10_4000_wrn.flags", 3, 9),  # With entropy.
        ("meta_pseudo_labels/cifar10_4000_wrn_regularizer.flags", 12, 0),
        ("noisy_student/imagenet_and_jft_efficientnet_l2_sam.flags", 6, 6),
        ("remixmatch/cifar10_4000_wrn.flags", 4, 34),  # Eight strong views.
    ],
)
def test_passes_follow_from_the_hyperparameters(
    path, per_labeled, per_unlabeled
):
    assert make_flagfiles.passes(RUNS[path]) == (per_labeled, per_unlabeled)


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


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_the_networks_exist_and_have_these_costs():
    assert make_flagfiles.flops_by_network(FLOPS) == FLOPS


def source_of(run):
    """A source of 16 images of noise with the shape and classes of a run."""
    task, config = run.cells[0].task, run.config
    channels = 1 if config.dataset == "digits" else 3
    size = task.image_size
    assert config.image_size in (0, size)
    stored = size
    if config.dataset.startswith("imagenet") or config.stored_size:
        stored = options.stored_size(config, size, 8 / 7)
    pixels = np.random.default_rng(0).integers(
        0, 256, (16, stored, stored, channels), np.uint8
    )
    images = store.Images(pixels, np.arange(16, dtype=np.int32) % 2)
    names = tuple(map(str, range(task.classes)))
    info = DatasetInfo(config.dataset, names, (size, size, channels))
    return store.Source(info, images, images, "flip_crop", "fixmatch")


def first_batch(run, algorithm):
    """The image shape of a run and its training data."""
    source = source_of(run)
    rows = splits.Splits(np.arange(4), np.arange(16), np.arange(4, 8))
    built = Experiment(run.config, None, source, rows, algorithm)
    dataset = pipeline.training_dataset(
        source,
        built.pools(algorithm),
        views=algorithm.views,
        augmentation=built.augmentation,
        seed=0,
    )
    return source.info.image_shape, dataset


@pytest.mark.slow
@pytest.mark.parametrize(
    "algo",
    mostly_exhaustive(
        sorted({r.config.algo for r in RUNS.values()}),
        ["fixmatch", "meta_pseudo_labels", "meta_semi", "simclr"],
    ),
)
def test_the_first_batch_has_the_shape_that_the_file_asks_for(algo):
    built, seen, kinds = {}, set(), set()
    for path, run in RUNS.items():
        if run.config.algo != algo:
            continue
        # The views of a method do not depend on the network.
        hp = run.config.hyperparameters
        choices = tuple(
            getattr(hp, field.name)
            for field in dataclasses.fields(hp)
            if field.metadata["choices"]
        )
        if choices not in built:
            info = DatasetInfo("digits", tuple("abc"), (8, 8, 1))
            small = dataclasses.replace(
                run.config, model="digits_cnn", dropout=0.0
            )
            built[choices] = build_algorithm(small, info, num_images=16)
        algorithm = built[choices]
        labeled, unlabeled = make_flagfiles.images_per_step(run)
        # Their first stage uses none.
        if algo in ("noisy_student", "billion_scale"):
            unlabeled = 0
        task, config = run.cells[0].task, run.config
        # Crops with and without flips have equal shapes.
        weak = policies.WEAK_POLICIES.get(config.weak_augmentation)
        kind = (algorithm.views, type(weak), config.strong_augmentation)
        key = (kind, task.image_size, labeled, unlabeled)
        if key in seen:
            continue
        seen.add(key)
        shape, dataset = first_batch(run, algorithm)
        spec = dataset.element_spec
        assert spec.keys() == {"labeled", *["unlabeled"] * bool(unlabeled)}
        for group, size in (("labeled", labeled), ("unlabeled", unlabeled)):
            for view in getattr(algorithm.views, group):
                assert spec[group][view].shape == (size, *shape), (path, view)
                assert spec[group][view].dtype == np.uint8
        assert spec["labeled"]["label"].shape == (labeled,)
        # Draw a batch of each kind, unless the images are large.
        if kind not in kinds and task.image_size <= 96:
            kinds.add(kind)
            batch = next(iter(dataset))
            view = algorithm.views.labeled[0]
            assert batch["labeled"][view].numpy().std() > 0
