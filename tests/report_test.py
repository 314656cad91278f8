"""The plan, the final table and the figures, by hand-computed numbers."""

import io
import json
import types

import numpy as np
import pytest

from tests.helpers import NUM_CLASSES, tiny_algorithm
from tf_metassl import config
from tf_metassl.run import report
from tf_metassl.run.build import build_experiment
from tf_metassl.run.resume import ResumeState


def row(network, stage="train", deployed=False, **values):
    """A row of the final table; all other numbers are 0.5."""
    names = [
        f"{split}_{name}"
        for split in ("validation", "test")
        for name in ("accuracy", "macro_f1")
    ]
    return {
        "stage": stage,
        "network": network,
        "deployed": deployed,
        **dict.fromkeys(names, 0.5),
        **values,
    }


def test_the_plan_says_what_is_going_to_happen():
    settings = {
        "algo": "meta_semi",
        "batch_size": 16,
        "num_steps": 75,
        "evaluate_every": 25,
        "time_budget_minutes": 1.5,
        "patience": 1,
    }
    plan = report.plan(build_experiment(config.resolve(settings)))
    lines = plan.splitlines()
    assert lines[0] == "method:    meta_semi"
    assert lines[1] == (
        "images:    digits 8x8x1, 10 classes: 30 labeled (inside the "
        "unlabeled pool), 1200 unlabeled, 200 validation, 397 test"
    )
    # 75 steps of 16 and 32 images on 30 and 1200.
    assert "labeled:   16 images a step, 40.0 passes" in lines
    assert "unlabeled: 32 images a step, 2.0 passes" in lines
    assert (
        "steps:     75 or 1.5 minutes or --patience=1, evaluated every 25; "
        "reported: last"
    ) in lines
    assert lines[-1] == "devices:   auto: 1 x CPU, float32"


def test_the_plan_shows_the_lengths_that_follow_the_run():
    def lengths(algo, **given):
        return report._lengths(config.resolve({"algo": algo, **given}))

    found = lengths("meta_pseudo_labels", num_steps=6000, evaluate_every=600)
    assert found == ["finetune_steps 1000, uda_ramp_steps 2000"]
    assert lengths("supervised") == []
    # What has no effect is no length of the run.
    assert lengths("uda") == []
    assert lengths("noisy_student") == ["round_steps 600"]
    _, warning = lengths("noisy_student", round_steps=20)
    assert "--round_steps=20, less than a tenth of --num_steps=600" in warning


def test_the_plan_without_validation_images_says_so():
    settings = {"algo": "supervised", "num_validation": 0}
    plan = report.plan(build_experiment(config.resolve(settings)))
    assert " 0 validation, 397 test" in plan
    assert "No image is held out for validation" in plan


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_averages_of_batch_norm_are_no_parameters(ema_decay):
    algorithm = tiny_algorithm("supervised", ema_decay=ema_decay)
    # Four 3x3 kernels of one channel, scales and shifts, a dense layer.
    count = 4 * 9 + 2 * 4 + 4 * NUM_CLASSES + NUM_CLASSES
    expected = [f"student {count} parameters"]
    if ema_decay:
        expected.append(f"ema {count} parameters")
    assert report.networks(algorithm) == ", ".join(expected)


def test_the_table_names_networks_stages_and_the_export():
    rows = [
        row("student", test_accuracy=0.12344),
        row("ema", deployed=True),
        row("student", "finetune", deployed=True, validation_macro_f1=1.0),
    ]
    assert report.table(rows).splitlines() == [
        "| network | validation accuracy | validation macro-F1 "
        "| test accuracy | test macro-F1 |",
        "| --- | --: | --: | --: | --: |",
        "| student | 0.5000 | 0.5000 | 0.1234 | 0.5000 |",
        "| ema | 0.5000 | 0.5000 | 0.5000 | 0.5000 |",
        "| student, after finetune (exported) "
        "| 0.5000 | 1.0000 | 0.5000 | 0.5000 |",
    ]


def test_the_table_has_a_column_for_the_five_likeliest():
    values = {"validation_top_5_accuracy": 0.25, "test_top_5_accuracy": 0.75}
    table = report.table([row("ema", deployed=True, **values)])
    assert "| validation accuracy | validation top-5 |" in table
    assert table.splitlines()[-1] == (
        "| ema (exported) | 0.5000 | 0.2500 | 0.5000 | 0.5000 | 0.7500 "
        "| 0.5000 |"
    )


RECOVERY = {
    "stage": "train",
    "what": "The loss became nan",
    "at": 5,
    "back_to": 3,
}


def test_a_recovery_is_one_sentence():
    assert report.recovery(RECOVERY) == (
        "The loss became nan at step 5 of train: the run went back to step 3 "
        "and continued with other batches."
    )


@pytest.mark.parametrize(
    "patience, step, said", ((0, 40, 0), (3, 40, 0), (2, 40, 1), (2, 100, 0))
)
def test_a_stage_that_ended_early(patience, step, said):
    state = ResumeState(
        step=step, best_validation=0.75, evaluations_without_gain=2
    )
    stage = types.SimpleNamespace(name="train", num_steps=100)
    events = report.stage_events(stage, state, patience)
    assert (
        events
        == [
            "The stage train ended at step 40 of 100: in 2 evaluations in "
            "succession the validation accuracy was not above 0.7500, the "
            "highest before (--patience)."
        ][:said]
    )


def test_time_that_is_left_over():
    settings = types.SimpleNamespace(time_budget_minutes=2.5)
    stage = types.SimpleNamespace(name="finetune", num_steps=40)
    assert report.unused_time(settings, stage) == (
        "The 40 steps of finetune took less than --time_budget_minutes=2.5. "
        "Raise the number of steps for a comparison at equal time."
    )


METRICS = [
    {"step": 3, "split": "train", "loss": 2.0, "selected_share": 0.5},
    {"step": 3, "split": "validation", "ema_accuracy": 0.25},
    {"step": 6, "split": "train", "loss": 1.0, "selected_share": 0.75},
    {"step": 6, "split": "validation", "ema_accuracy": 0.5},
]


def test_learning_curves_are_the_rows():
    figure = report.learning_curve(METRICS)
    drawn = {
        line.get_label(): [list(values) for values in line.get_data()]
        for axes in figure.axes
        for line in axes.get_lines()
    }
    assert drawn == {
        "loss": [[3, 6], [2.0, 1.0]],
        "selected_share": [[3, 6], [0.5, 0.75]],
        "ema_accuracy": [[3, 6], [0.25, 0.5]],
    }


def test_learning_curves_without_validation(recwarn):
    rows = [{"step": 3, "split": "train", "loss": 2.0}]
    figure = report.learning_curve(rows)
    assert not figure.axes[1].get_lines() and not recwarn.list


def test_the_confusion_matrix_shows_shares_and_counts():
    counts = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    (axes,) = report.confusion_matrix(counts, ["a", "b", "c"]).axes
    np.testing.assert_allclose(
        axes.images[0].get_array(),
        [[0.75, 0.25, 0], [0, 0, 0], [0.5, 0, 0.5]],
    )
    # Position (predicted, true) -> count and whether it is on a dark field.
    texts = {
        text.get_position(): (text.get_text(), text.get_color())
        for text in axes.texts
    }
    assert texts == {
        (0, 0): ("3", "white"),
        (1, 0): ("1", "black"),
        (0, 2): ("1", "black"),
        (2, 2): ("1", "black"),
    }
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["a", "b", "c"]


def test_long_and_odd_names_fit_beside_the_figure(recwarn):
    names = ["x" * 250 + "1", "x" * 250 + "2", "a\nb"]
    report.confusion_matrix(np.eye(3), ["W" * 99] * 3).savefig(io.BytesIO())
    figure = report.confusion_matrix(np.eye(3), names)
    figure.savefig(io.BytesIO())
    (axes,) = figure.axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["x" * 12 + "…" + "x" * 10 + n for n in "12"] + ["a\\nb"]
    # The layout has room for the matrix.
    assert axes.get_position().width > 0.3
    assert not recwarn.list


def test_large_confusion_matrices_have_no_numbers():
    (axes,) = report.confusion_matrix(np.eye(31), ["a"] * 31).axes
    assert not axes.texts and len(axes.get_yticklabels()) == 31


def test_the_report_holds_plan_table_and_recoveries(tmp_path):
    rows = [row("student", deployed=True)]
    written, errors = report.write(
        tmp_path,
        plan="method:    supervised\nimages:    digits",
        results=rows,
        events=[report.recovery(RECOVERY)],
        rows=METRICS,
        confusion=np.eye(2),
        class_names=["a", "b"],
    )
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# supervised\n\n```\nmethod:    supervised\n")
    assert report.table(rows) in text
    assert f"- {report.recovery(RECOVERY)}\n" in text
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    for name in ("learning_curve.png", "confusion_matrix.png"):
        assert f"({name})" in text
        assert (tmp_path / name).stat().st_size > 0
    assert f"report:      {tmp_path / 'report.md'}" in written
    assert errors == []
    assert "were evaluated once" in text and "no test images" not in text


def write_report(folder, **changes):
    given = {
        "plan": "method:    supervised",
        "results": [row("student", deployed=True)],
        "events": [],
        "rows": METRICS,
        "confusion": np.eye(2),
        "class_names": ["a", "b"],
    }
    _, errors = report.write(folder, **{**given, **changes})
    return (folder / "report.md").read_text(), errors


def test_a_figure_that_fails_does_not_keep_the_report(tmp_path, monkeypatch):
    def fail(rows):
        raise RuntimeError("no such font")

    monkeypatch.setattr(report, "learning_curve", fail)
    text, errors = write_report(tmp_path)
    assert errors == ["learning_curve.png: RuntimeError: no such font"]
    assert "# supervised" in text
    assert (tmp_path / "confusion_matrix.png").exists()
    assert (tmp_path / "results.json").exists()


def test_what_was_done_with_the_test_images_is_said(tmp_path):
    text, _ = write_report(tmp_path, evaluations=3)
    assert "evaluated 3 times with different results" in text
    assert "evaluated once" not in text


@pytest.mark.parametrize(
    "confusion, said",
    (
        ([[0, 3], [0, 2]], True),
        ([[1, 2], [0, 2]], False),
        # The only class that there is.
        ([[0, 0], [0, 2]], False),
        ([[0, 0], [0, 0]], False),
    ),
)
def test_a_network_that_knows_one_class(tmp_path, confusion, said):
    text, _ = write_report(tmp_path, confusion=np.array(confusion))
    assert ("network says b of every test image" in text) == said


def test_absent_classes_and_collapses_are_said(tmp_path):
    rows = [
        {"step": step, "split": "train", "loss": 1.0, "selected_share": share}
        for step, share in ((10, 0.0), (20, 0.5), (30, 0.0))
    ] + METRICS
    text, _ = write_report(
        tmp_path, rows=rows, confusion=np.array([[3, 0], [0, 0]])
    )
    assert "1 of 2 classes have no test images" in text and ": b." in text
    assert "- Step 30: 0.00% of the pseudo-labels are selected" in text
    assert "it was at 2 of" in text


@pytest.mark.parametrize(
    "unlabeled, copies, expected",
    (
        ([5, 6], [], " (outside the unlabeled pool)"),
        ([0, 1, 5], [], " (inside the unlabeled pool)"),
        ([0, 5], [], " (1 of them inside the unlabeled pool)"),
        # The same pictures as other files.
        ([5, 6], [[0, 5], [1, 6]], " (inside the unlabeled pool)"),
        ([], [], ""),
    ),
)
def test_where_the_labeled_images_are_is_counted(unlabeled, copies, expected):
    rows = types.SimpleNamespace(labeled=[0, 1], unlabeled=unlabeled)
    found = {("labeled", "unlabeled"): copies} if copies else {}
    assert report._inside(rows, found) == expected


def test_names_are_no_formulas(tmp_path):
    names = ["$\\frac{1$", "price: 3$ or 5$"]
    _, errors = write_report(tmp_path, class_names=names)
    assert errors == []
