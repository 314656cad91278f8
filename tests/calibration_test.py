"""The temperature of confidences."""

import json

import numpy as np
import pytest

from tf_metassl.run import calibration
from tf_metassl.run.calibration import Calibration


def test_the_error_by_hand():
    """Bins (0.4, 0.467] and (0.867, 0.933], of 15."""
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # 0.9 twice, one right; 0.55 and 0.6 in (0.533, 0.6], both right.
    expected = abs(1 - 1.8) / 4 + abs(2 - 1.15) / 4
    found = calibration.calibration_error(probs, labels)
    assert found == pytest.approx(expected)
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration.calibration_error(sure, np.array([0, 1])) == 0.0
    assert calibration.calibration_error(sure, np.array([1, 0])) == 1.0


def test_the_bins_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.4, 0.6]])
    found = calibration.reliability(probs, np.array([0, 1, 1, 1]))
    assert np.flatnonzero(found.count).tolist() == [8, 13]
    assert found.count[[8, 13]].tolist() == [2, 2]
    np.testing.assert_allclose(found.confidence[[8, 13]], [0.575, 0.9])
    np.testing.assert_allclose(found.accuracy[[8, 13]], [1.0, 0.5])
    assert found.error == pytest.approx((0.425 + 0.4) / 2)
    # A confidence on an edge is in the lower bin; 1 is in the last one.
    edges = np.array([[1.0, 0.0], [0.6, 0.4]])
    count = calibration.reliability(edges, np.array([0, 0])).count
    assert np.flatnonzero(count).tolist() == [8, 14]
    nothing = calibration.reliability(np.zeros((0, 2)), np.zeros(0, int))
    assert nothing.error == 0.0


@pytest.mark.parametrize("temperature", (0.4, 1.0, 3.0))
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    gumbel = rng.gumbel(size=logits.shape)
    labels = (logits / temperature + gumbel).argmax(1)
    found = calibration.fit(logits, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.num_images == 20_000
    assert found.error_after < 0.02
    if temperature != 1.0:
        assert found.error_before > 5 * found.error_after
    np.testing.assert_array_equal(
        found.probabilities(logits).argmax(1), logits.argmax(1)
    )


def test_without_images_nothing_is_changed():
    found = calibration.fit(np.zeros((0, 3)), np.zeros(0, int))
    assert found == Calibration(temperature=1.0, num_images=0)


def test_a_perfect_network_stays_finite():
    logits = np.eye(4) * 50
    found = calibration.fit(logits, np.arange(4))
    assert 0.05 <= found.temperature <= 20


@pytest.mark.parametrize("content", (None, "{", "[]", '{"other": 1}'))
def test_a_run_without_a_whole_file_has_no_temperature(content, tmp_path):
    saved = Calibration(2.5, 10, 0.2, 0.1)
    saved.save(tmp_path)
    assert Calibration.load(tmp_path) == saved
    path = tmp_path / "calibration.json"
    assert json.loads(path.read_text())["temperature"] == 2.5
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert Calibration.load(tmp_path) == Calibration()
