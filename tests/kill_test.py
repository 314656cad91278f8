"""Two kills of a real run; tools/kill_test.py does more of them."""

import numpy as np
import pytest

from tests.helpers import tiny_algorithm
from tf_metassl.run import checkpoints
from tools import kill_exports, kill_test

pytestmark = pytest.mark.slow


def test_a_killed_run_computes_the_same_as_one_without_interruption(tmp_path):
    result = kill_test.survive(
        (
            "--algo=meta_semi",
            "--meta_gradient=forward_mode",
            "--num_steps=60",
            "--evaluate_every=20",
            "--batch_size=16",
        ),
        kills=2,
        folder=tmp_path,
        kinds=["checkpoint", "training"],
    )
    assert result["kills"] == 2
    assert result["compared_items"] > 100
    assert result["different"] == []


def test_a_difference_is_found(tmp_path):
    algorithm = tiny_algorithm("supervised")
    folder = tmp_path / "checkpoints" / "train"
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "results.json").write_text("[]")

    def computed(seconds):
        state = {"wall_clock_seconds": seconds}
        for name in (None, "best"):
            checkpoints.save(folder, algorithm, 2, state, name=name)
        return kill_test.computed(tmp_path)

    before = computed(1)
    # Two files, the state, and twice all variables.
    assert len(before) == 3 + 2 * len(algorithm.state_variables)
    assert kill_test.differences(before, computed(2)) == []
    slot = algorithm.student_optimizer.variables[-1]
    slot.assign(np.nextafter(slot.value.numpy(), np.float32(1)))
    assert len(kill_test.differences(before, computed(1))) == 2
    (tmp_path / "metrics.jsonl").write_text("{} \n")
    assert "metrics.jsonl" in kill_test.differences(before, computed(1))


def test_the_table_adds_up():
    result = {
        "name": "supervised",
        "seed": 0,
        "flags": ["--algo=supervised", "--num_steps=6"],
        "kills": 7,
        "kinds": {"start": 2, "training": 5},
        "while_writing_a_checkpoint": 3,
        "runs": 1,
        "compared_items": 4,
        "compared_bytes": 12345,
        "different": [],
        "seconds": 300,
    }
    again = {**result, "seed": 1, "kinds": {"training": 7}}
    text = kill_test.markdown([result, again, {**result, "name": "other"}])
    row = "| 4 | 12,345 | none "
    assert f"| supervised | 14 | 6 | 2 | 2 {row}| 10 |" in text
    assert f"| other | 7 | 3 | 2 | 1 {row}| 5 |" in text
    again["different"] = ["killed-1/metrics.jsonl"]
    assert "| 12,345 | 1 |" in kill_test.markdown([result, again])


@pytest.mark.exhaustive
def test_a_killed_export_leaves_a_model_and_nothing_else(tmp_path):
    counts = kill_exports.run(1, tmp_path)
    assert counts["kills"] == 1
    assert counts["moments without"] == 0
    assert counts["other probabilities"] == 0
    assert counts["files left"] == 0
