"""The supervised twin: when there is one, what it is, and what is said."""

import dataclasses
import gzip
import json
import os
import signal

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tf_metassl
from tests.helpers import mostly_exhaustive, values
from tests.real_data import real_data
from tf_metassl import config
from tf_metassl.errors import ConfigError, TrainingDivergedError
from tf_metassl.run import callbacks, evaluation, experiment, serving, twin
from tf_metassl.run import stage as stage_lib
from tf_metassl.run.build import build_experiment
from tf_metassl.run.termination import Terminated, Termination
from tools import kill_test

NAMES = ("cat", "dog")


# The comparison.


@pytest.mark.parametrize(
    "num_images, only_run, only_twin, low, high, verdict",
    (
        # (4 - 1) / 22 -+ 1.96 sqrt((5 / 22 - (3 / 22)^2) / 22)
        (20, 3, 0, -0.05452, 0.32725, "undecided"),
        # 22 / 202 -+ 1.96 sqrt((28 / 202 - (22 / 202)^2) / 202)
        (200, 24, 2, 0.05981, 0.15801, "better"),
        (200, 2, 24, -0.15801, -0.05981, "worse"),
        # 0 -+ 1.96 sqrt((2 / 12) / 12)
        (10, 0, 0, -0.23099, 0.23099, "undecided"),
        # 10 / 12 + 1.96 sqrt((12 / 12 - (10 / 12)^2) / 12) is above 1.
        (10, 10, 0, 0.52058, 1.0, "better"),
    ),
)
def test_the_interval_by_hand(
    num_images, only_run, only_twin, low, high, verdict
):
    pairs = twin.Pairs(num_images, only_run, only_twin)
    assert pairs.interval == pytest.approx((low, high), abs=1e-5)
    assert pairs.verdict == verdict


def test_the_images_that_a_difference_needs():
    # 20 (0.190885 / 0.15)^2 = 32.4
    assert twin.Pairs(20, 3, 0).images_needed == 33
    assert twin.Pairs(20, 0, 3).images_needed == 0


def test_the_interval_holds_its_level():
    """Draws without a difference are beyond it about once in twenty times."""
    draws = np.random.default_rng(0).multinomial(
        100, [0.05, 0.05, 0.9], size=4000
    )
    beyond = [twin.Pairs(100, *d[:2]).verdict != "undecided" for d in draws]
    assert 0.02 < np.mean(beyond) < 0.06


def test_images_are_compared_in_pairs():
    run = np.eye(2)[[0, 1, 0, 0, 1]]
    other = np.eye(2)[[0, 0, 1, 1, 0]]
    # Right: yes, yes, no, yes, no; yes, no, yes, no, yes.
    labels = np.array([0, 1, 1, 0, 0])
    assert twin.pairs(run, other, labels) == twin.Pairs(5, 2, 2)


def test_the_shift_of_the_classes_by_hand():
    predictions = np.eye(2)[[1, 1, 1, 0]]
    found = twin.pool(predictions, np.array([0, 1]))
    assert found == twin.Pool(4, 0.25, 1, 0.75, 0.5)


def test_the_selected_share_is_the_last_one():
    rows = [{"selected_share": 0.5}, {"selected_share": 0.25}, {"loss": 1.0}]
    assert twin.selected_share(rows) == 0.25
    assert twin.selected_share(rows[2:]) is None


# What is said.


def said(pairs, pool=None, selected=None):
    return twin.notes(pairs, [3, 1], pool, selected, NAMES)


def test_a_better_run_has_one_sentence():
    (text,) = said(twin.Pairs(200, 24, 2))
    assert text == (
        "The run is better than supervised training: of 200 validation images, "
        "24 are classified correctly by the exported network alone and 2 by "
        "its supervised twin alone, a difference of +11.0 points (95 % "
        "interval +6.0 to +15.8)."
    )


def test_harm_is_said_with_what_was_measured():
    pool = twin.Pool(400, 0.25, 1, 0.75, 0.5)
    first, labels, shift, selected = said(twin.Pairs(200, 2, 24), pool, 0.05)
    assert first.startswith("The unlabeled images have done harm: of 200")
    assert "-11.0 points" in first and "--algo=supervised" in first
    assert labels == (
        "4 labeled images of 2 classes; the fewest, 1, are of class dog."
    )
    assert "differ by 25.0 % of 400 unlabeled images" in shift
    assert "dog: 75.0 % of the pseudo-labels, 50.0 % of the labels" in shift
    assert "That is much" in shift
    assert "5.0 % of the pseudo-labels were selected. So few" in selected


def test_what_is_not_much_is_not_called_so():
    pool = twin.Pool(400, 0.0, 0, 0.5, 0.5)
    *_, shift, selected = said(twin.Pairs(20, 0, 9), pool, 0.9)
    assert shift.endswith("differ by 0.0 % of 400 unlabeled images.")
    assert selected.endswith("90.0 % of the pseudo-labels were selected.")


def test_too_few_images_are_said():
    first, width, _ = said(twin.Pairs(20, 3, 0))
    assert first.startswith("The run is not shown to be better than supervised")
    assert width == (
        "With 20 validation images the interval is 38.2 points wide. About 33 "
        "would show this difference: raise --num_validation, or compare runs "
        "with several seeds."
    )
    _, width, _ = said(twin.Pairs(20, 0, 0))
    assert width.endswith("points wide.")


# When there is a twin.


@pytest.fixture(scope="module")
def fixmatch():
    """A function of settings that returns an `Experiment` of FixMatch."""
    run = build_experiment(config.resolve({"algo": "fixmatch"}))

    def with_settings(**given):
        settings = config.resolve({"algo": "fixmatch", **given})
        return dataclasses.replace(run, config=settings)

    return with_settings


def test_the_share_of_images_by_hand(fixmatch):
    # 64 labeled images, and 2 or 7 times as many unlabeled ones in two views.
    assert twin.share_of_images(fixmatch()) == pytest.approx(1 / 5)
    run = fixmatch(unlabeled_batch_ratio=7)
    assert twin.share_of_images(run) == pytest.approx(1 / 15)


AUTO = {"num_steps": 2000, "unlabeled_batch_ratio": 7}


@pytest.mark.parametrize(
    "given, wanted",
    (
        (AUTO, True),
        ({**AUTO, "num_steps": 1999}, False),
        ({**AUTO, "unlabeled_batch_ratio": 4}, False),
        ({**AUTO, "supervised_twin": "off"}, False),
        ({"algo": "supervised", "num_steps": 2000}, False),
        ({}, False),
        ({"supervised_twin": "on"}, True),
    ),
)
def test_which_runs_have_a_twin(fixmatch, given, wanted):
    run = fixmatch(**given)
    assert twin.wanted(run) == wanted == bool(twin.line(run))


def test_a_twin_of_a_supervised_run_is_refused():
    given = {"algo": "supervised", "supervised_twin": "on"}
    with pytest.raises(ConfigError, match="not use unlabeled images"):
        config.resolve(given)


def test_the_plan_says_what_the_twin_costs(fixmatch):
    run = fixmatch(supervised_twin="on")
    assert twin.line(run) == (
        "supervised, on the labels alone: 600 steps of 64 images, at most "
        "20.0 % of the cost of the run"
    )
    none = dataclasses.replace(run.splits, validation=np.zeros(0, np.int64))
    assert twin.line(dataclasses.replace(run, splits=none)) == (
        "none: there are no validation images to compare it on"
    )


def test_the_time_of_the_twin_is_its_share(fixmatch):
    run = twin.limited(fixmatch(time_budget_minutes=10.0))
    assert run.config.time_budget_minutes == pytest.approx(2.0)


@pytest.mark.parametrize("algo", ("meta_pseudo_labels", "remixmatch"))
def test_the_twin_begins_as_the_run_does(algo):
    given = {"algo": algo, "batch_size": 8, "ema_decay": 0.9}
    run = build_experiment(config.resolve(given))
    before = values(run.algorithm.student)
    stage = twin.stage(run)
    other = stage_lib.build_stage(run, stage)
    for one, two in zip(before, values(other.student), strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.deployable_model is other.ema

    def first_rows(name, algorithm):
        found = stage_lib.StageRun(
            run, algorithm, dataclasses.replace(stage, name=name), None, None
        )
        return next(iter(found.training_data(0)))["labeled"]["index"].numpy()

    rows = first_rows("train", run.algorithm)
    np.testing.assert_array_equal(rows, first_rows(stage.name, other))


# Runs.


SETTINGS = {
    "algo": "fixmatch",
    "num_steps": 6,
    "evaluate_every": 3,
    "batch_size": 8,
    "num_validation": 50,
    "verbose": 0,
}


@pytest.fixture
def no_export(monkeypatch):
    monkeypatch.setattr(serving, "export_saved_model", lambda *_, **__: None)


def train(run_dir, **given):
    settings = {**SETTINGS, "run_dir": str(run_dir), **given}
    with Termination() as termination:
        experiment.train(config.resolve(settings), termination)
    return run_dir


def computed(run_dir):
    """What a run has computed, and what its twin has, name -> bytes each."""
    run, other = {}, {}
    for name, data in kill_test.computed(run_dir).items():
        of_twin = name.startswith(os.path.join("checkpoints", twin.NAME))
        (other if of_twin else run)[name] = data
    for name in ("twin.json", "twin/metrics.jsonl"):
        if (run_dir / name).exists():
            other[name] = (run_dir / name).read_bytes()
    return run, other


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    "selection", mostly_exhaustive(("last", "best_validation"), ["last"])
)
def test_a_twin_changes_nothing_and_can_be_killed(
    tmp_path, monkeypatch, selection
):
    given = {"selection": selection, "supervised_twin": "on"}
    run, other = computed(train(tmp_path / "with", **given))
    alone, none = computed(
        train(tmp_path / "alone", **given | {"supervised_twin": "off"})
    )
    assert run == alone and other and not none

    seen, original = [], callbacks.Recorder.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        if self._run.stage.name == twin.NAME:
            seen.append(self.model.finished_steps)
            if seen == [1, 2, 3, 4]:
                os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch, logs)

    monkeypatch.setattr(
        callbacks.Recorder, "on_train_batch_end", on_train_batch_end
    )
    with pytest.raises(Terminated, match="143") as stopped:
        train(tmp_path / "killed", **given)
    assert os.path.join("twin", "step-00000004") in stopped.value.message
    assert not (tmp_path / "killed" / "twin.json").exists()
    assert computed(train(tmp_path / "killed", **given)) == (run, other)
    # The steps before the kill are not repeated.
    assert seen == [1, 2, 3, 4, 5, 6]
    # A finished run gets its twin without being trained again, and loses it.
    train(tmp_path / "alone", **given)
    assert computed(tmp_path / "alone") == (run, other)
    train(tmp_path / "alone", **given | {"supervised_twin": "off"})
    assert not (tmp_path / "alone" / "twin.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_a_run_says_what_its_twin_is(tmp_path, capsys):
    run_dir = train(tmp_path / "run", supervised_twin="on")
    found = json.loads((run_dir / "twin.json").read_text())
    (row,) = (
        line
        for line in (run_dir / "report.md").read_text().splitlines()
        if "supervised twin |" in line
    )
    accuracy = f"{found['validation_accuracy']:.4f}"
    # No result on the test images.
    assert row.split(" | ")[1] == accuracy and row.endswith("|  |  |")
    page = (run_dir / "report.html").read_text()
    assert f"<td>supervised twin</td>\n<td>{accuracy}</td><td></td>" in page
    evidence = f"{found['only_run']} are classified correctly by the exported"
    printed = capsys.readouterr().out
    assert evidence in page and evidence in printed
    last = json.loads((run_dir / "results.json").read_text())[-1]
    assert last["network"] == "ema"
    # The counts are those of the accuracies.
    assert found["difference"] == pytest.approx(
        last["validation_accuracy"] - found["validation_accuracy"], abs=1e-6
    )
    assert not any("test" in name for name in found)


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_the_twin_is_a_supervised_run(tmp_path):
    run_dir = train(tmp_path / "run", supervised_twin="on")
    other = train(tmp_path / "other", algo="supervised")
    assert (run_dir / "twin" / "metrics.jsonl").read_text() == (
        (other / "metrics.jsonl").read_text()
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_without_validation_images_nothing_is_compared(tmp_path):
    given = {"num_validation": 0, "supervised_twin": "on"}
    run_dir = train(tmp_path / "run", **given)
    assert twin.NOT_COMPARED in (run_dir / "report.md").read_text()
    assert not (run_dir / "twin.json").exists()
    assert not (run_dir / "checkpoints" / twin.NAME).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_a_twin_that_diverges_does_not_cost_the_run(tmp_path, monkeypatch):
    original = stage_lib.run_stage

    def run_stage(run):
        if run.stage.name == twin.NAME:
            raise TrainingDivergedError("The loss became nan", 3)
        return original(run)

    monkeypatch.setattr(stage_lib, "run_stage", run_stage)
    run_dir = train(tmp_path / "run", supervised_twin="on")
    text = (run_dir / "report.md").read_text()
    assert "- The supervised twin was not trained: The loss became nan" in text
    assert (run_dir / "results.json").exists()


def test_the_test_images_are_not_evaluated(monkeypatch):
    seen = []

    def evaluate(experiment, algorithm, split, networks):
        seen.append((split, networks))
        return {"ema_accuracy": 0.5}

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(evaluation, "deployable_role", lambda _: "ema")
    found = evaluation.deployable_metrics(None, None, "validation")
    assert found == {"validation_accuracy": 0.5}
    assert seen == [("validation", ("ema",))]


def fashion():
    """1200 pictures of clothes `[1200, 8, 8, 1]`."""
    path = real_data("fashion_mnist/train-images-idx3-ubyte.gz")
    with gzip.open(path) as file:
        pixels = np.frombuffer(file.read(16 + 1200 * 784), np.uint8)[16:]
    pixels = pixels.reshape(-1, 28, 28)[:, 2:26, 2:26]
    pixels = pixels.reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4))
    return pixels.astype(np.uint8)[..., None]


def stripes():
    """1200 waves of random directions, widths and phases."""
    rng = np.random.default_rng(0)
    shape = (1200, 1, 1)
    angle, phase = rng.uniform(0, np.pi, shape), rng.uniform(0, 6.28, shape)
    rows, columns = np.mgrid[:8, :8]
    place = np.cos(angle) * rows + np.sin(angle) * columns
    waves = np.sin(rng.uniform(0.5, 2.0, shape) * place + phase)
    return (127.5 * (1 + waves)).astype(np.uint8)[..., None]


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    "foreign", mostly_exhaustive((fashion, stripes), [stripes])
)
def test_foreign_images_raise_the_alarm(tmp_path, foreign):
    digits = load_digits()
    images = (digits.images * 255 / 16).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    labeled = np.concatenate(
        [order[digits.target[order] == k][:3] for k in range(10)]
    )
    rest = order[~np.isin(order, labeled)]
    parts = {
        "labeled": labeled,
        "validation": rest[:200],
        "test": rest[200:300],
    }
    fitted = tf_metassl.fit(
        "fixmatch",
        unlabeled=foreign(),
        **{k: (images[v], digits.target[v]) for k, v in parts.items()},
        model="digits_cnn",
        num_steps=100,
        learning_rate=0.1,
        weak_augmentation="affine",
        strong_augmentation="affine_digits",
        supervised_twin="on",
        run_dir=str(tmp_path / "run"),
    )
    found = json.loads((fitted.run_dir / "twin.json").read_text())
    assert found["verdict"] != "better"
    alarm = twin.notes(
        twin.Pairs(
            *(found[k] for k in ("num_images", "only_run", "only_twin"))
        ),
        [3] * 10,
        twin.Pool(**found["pseudo_labels"]),
        found["selected_share"],
        fitted.class_names,
    )
    page = (fitted.run_dir / "report.html").read_text()
    for sentence in alarm:
        assert f"- {sentence}\n" in fitted.report and sentence in page
