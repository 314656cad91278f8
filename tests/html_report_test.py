"""The page of a run: its numbers, and names and values that are unusual."""

import re

import numpy as np
import pytest

from tf_metassl.run import html_report
from tf_metassl.run.calibration import Calibration, reliability
from tf_metassl.run.panels import Confidence, Mistake, Panels, Pool, PoolClass

RESULTS = [
    {
        "stage": "train",
        "network": "ema",
        "deployed": True,
        "validation_accuracy": 0.5,
        "test_accuracy": 0.75,
    }
]
ROWS = [
    {"step": 10, "split": "train", "loss": 2.0, "selected_share": 0.25},
    {"step": 20, "split": "train", "loss": 1.0, "selected_share": 0.5},
    {"step": 20, "split": "validation", "ema_accuracy": 0.5},
]


def page(**changes):
    given = {
        "plan": "method:    fixmatch\nimages:    four",
        "results": RESULTS,
        "notes": ["The test images were evaluated once."],
        "rows": ROWS,
        "confusion": np.array([[2.0, 0.0], [1.0, 1.0]]),
        "class_names": ["cat", "dog"],
        "calibration": Calibration(2.0, 100, 0.2, 0.1),
        "provenance": {"tensorflow": "2.21.0"},
    }
    return html_report.render(**{**given, **changes})


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_wilson_by_hand():
    # 9 of 10: (0.9 + 0.19207) / 1.38415 -+ 1.96 sqrt(0.009 + 0.0096) / 1.38415
    low, high = html_report.wilson_interval(9, 10)
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    low, high = html_report.wilson_interval(0, 20)
    assert low == pytest.approx(0) and 0 < high < 0.17
    assert html_report.wilson_interval(0, 0) == (0.0, 1.0)


def test_the_page_has_the_numbers():
    text = text_of(page())
    assert "75.0 % of 4 test images are classified correctly" in text
    assert "95 % interval 30.1 to 95.4 %" in text
    # Precision, recall, F1 and number of images.
    assert "cat 0.667 1.000 0.800 2" in text
    assert "dog 1.000 0.500 0.667 2" in text
    assert "dog cat 1 50.0 %" in text
    assert "cat 2 dog 1 1" in text  # The confusion matrix.
    assert "ema (exported) 0.5000 0.7500" in text
    assert "temperature 2, fitted on 100 validation images" in text
    assert "The test images were evaluated once." in text
    assert "tensorflow 2.21.0" in text


def test_the_same_run_writes_the_same_bytes_and_needs_nothing_else():
    assert page() == page()
    assert not re.search(r"https?://|src=|<script|<link|@import", page())


def test_a_curve_goes_through_its_values():
    loss, accuracy, selected = html_report.charts(ROWS)
    assert [line.name for line in loss.lines] == ["loss"]
    assert (loss.low, loss.high, loss.last_step) == (0.0, 2.0, 20)
    width, height = html_report._WIDTH, html_report._HEIGHT
    assert loss.lines[0].points == (
        f"{width / 2:.1f},0.0 {width:.1f},{height / 2:.1f}"
    )
    assert accuracy.high == selected.high == 1.0
    assert selected.lines[0].last == 0.5


def test_values_that_are_not_finite_and_runs_without_metrics():
    nan = [{"step": 5, "split": "train", "loss": float("nan")}]
    assert html_report.charts(nan) == html_report.charts([]) == []
    assert "Training" not in text_of(page(rows=nan))
    # A divergence that was recovered leaves the other values.
    html = page(rows=[*ROWS, *nan, {**nan[0], "loss": float("inf")}])
    assert "loss 1" in text_of(html) and not re.search("nan|inf[^o]", html)


def test_names_are_no_markup_and_may_be_long():
    names = ["<script>alert(1)</script>", "x" * 60 + "\n$y$ & z"]
    html = page(class_names=names)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "x" * 60 + r"\n$y$ &amp; z" in html


def test_many_classes_and_classes_without_images():
    confusion = np.zeros((81, 81), int)
    confusion[0, 0], confusion[1, 0] = 3, 2
    names = [f"class {k}" for k in range(81)]
    html = page(confusion=confusion, class_names=names)
    text = text_of(html)
    assert "79 of 81 classes have no test images" in text
    assert "class 21, ..." in text and "class 22" not in text
    assert "class 1 class 0 2 100.0 %" in text
    # Drawn, with the names of each cell in its tooltip.
    assert re.findall(r'<rect x="(.)" y="(.)".*fill-opacity="(.*?)"', html) == [
        ("0", "0", "1.00"),
        ("0", "1", "1.00"),
    ]
    assert "class 1, predicted class 0: 2" in text
    assert "<svg" not in page(
        confusion=np.eye(201), class_names=[f"{k}" for k in range(201)], rows=[]
    )


def test_names_of_sixty_letters_are_short_beside_the_matrix():
    names = ["x" * 59 + "1", "x" * 59 + "2"]
    html = page(class_names=names)
    short = "x" * 12 + "…" + "x" * 10
    for n, name in enumerate(names, 1):
        assert f'<th title="{name}">{short}{n}</th>' in html
        assert f'<td title="{name}">{short}{n}</td>' in html


def test_a_network_that_has_collapsed():
    text = text_of(page(confusion=np.array([[0, 3], [0, 2]])))
    # No precision: nothing is predicted to be a cat.
    assert "cat &ndash; 0.000 0.000 3" in text
    assert "dog 0.400 1.000 0.571 2" in text
    assert "A class without a precision is predicted for no test image" in text
    assert "nan" not in text


def test_a_curve_of_one_evaluation_is_a_point():
    (loss,) = html_report.charts(ROWS[:1])[:1]
    assert loss.lines[0].end == (f"{html_report._WIDTH:.1f}", "0.0")
    assert page(rows=ROWS[:1]).count("<circle") == 2


def test_a_run_without_validation_or_mistakes():
    html = page(calibration=Calibration(), confusion=np.array([[2, 0], [0, 2]]))
    text = text_of(html)
    assert "there were no validation images" in text
    assert "None on the test images." in text


def panels(**changes):
    """Panels of three images, one of them a mistake."""
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    labels = np.array([0, 1, 1])
    mistake = Mistake(np.zeros((4, 4, 1), np.uint8), "d" * 60, "<b>", 0.875)
    given = {
        "confidence": Confidence(
            "test", reliability(probs, labels), reliability(probs, labels)
        ),
        "mistakes": [mistake],
        "pool": Pool(
            np.array([0.5, 1.0]),
            [PoolClass("cat", 2, 1, 1), PoolClass("dog", 0, 0, 0)],
            np.array([0, 2, 1, 0]),
            ["Of the pool."],
            ["Of selection."],
        ),
        "limits": ["One limit.", "Another <limit>."],
    }
    return Panels(**{**given, **changes})


def test_what_the_network_says_of_images():
    html = page(panels=panels())
    assert html == page(panels=panels())
    text = text_of(html)
    # (0.1 + 0.8 + 0.3) / 3, each image in a bin of its own.
    assert (
        "On the 3 test images the expected calibration error is 40.0 % without "
        "and 40.0 % with the temperature." in text
    )
    assert "1 of 3 images, confidence 80.0%, accuracy 0.0%" in text
    assert html.count('fill="#fff"><title>') == 6  # Bins of few images.
    assert f"true: {'d' * 12}…{'d' * 11}<br>predicted: &lt;b&gt;<br>" in html
    assert "87.5 %" in text
    assert f'title="{"d" * 60}, predicted &lt;b&gt;"' in html
    assert html.count('<img src="data:image/png;base64,') == 1
    assert "Of the pool. Of selection." in text
    assert "cat 2 100.0 % 1 1.000 dog 0 0.0 % 0 &ndash;" in text
    assert "0.25 to 0.50: 2" in text
    assert "Limits One limit. Another &lt;limit&gt;." in text
    assert not re.search(r"https?://|<script|<link|@import|nan", html)


def test_panels_that_a_run_does_not_have():
    for text in map(text_of, (page(), page(panels=Panels()))):
        for title in ("Predictions by class", "confident mistakes", "Limits"):
            assert title not in text
        assert "Reliability" not in text
    on_validation = panels().confidence
    on_validation = Confidence("validation", on_validation.before, None)
    text = text_of(page(panels=panels(confidence=on_validation)))
    assert (
        "On the 3 validation images, on which the temperature was fitted, the "
        "expected calibration error is 40.0 %. It is the mean" in text
    )


def test_a_curve_of_reliability_leaves_out_bins_of_few_images():
    probs = np.repeat([[0.8, 0.2], [0.5, 0.5]], [10, 9], axis=0)
    found = reliability(probs, np.repeat([0, 1], [15, 4]))
    (curve,) = html_report.reliability_curves(Confidence("test", found, None))
    side = html_report._SQUARE
    assert curve.points == f"{0.8 * side:.1f},0.0"
    assert [enough for _, _, enough, _ in curve.bins] == [False, True]
