"""Rows of metrics: appended, cut off, written again."""

import pytest

from tf_metassl.errors import WriteError
from tf_metassl.run.metrics_file import MetricsFile, writing


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_rows_come_back_in_order(path):
    file = MetricsFile(path)
    assert file.rows() == []
    file.write(3, "train", {"loss": 0.5})
    file.write(3, "validation", {"student_accuracy": 0.25})
    assert path.read_text() == (
        '{"step": 3, "split": "train", "loss": 0.5}\n'
        '{"step": 3, "split": "validation", "student_accuracy": 0.25}\n'
    )
    assert [row["split"] for row in file.rows()] == ["train", "validation"]


def test_a_row_that_a_crash_cut_off_is_left_out(path):
    file = MetricsFile(path)
    file.write(3, "train", {"loss": 0.5})
    path.write_text(path.read_text() + '{"step": 6, "spl')
    assert file.rows() == [{"step": 3, "split": "train", "loss": 0.5}]
    file.truncate(6)
    assert path.read_text() == '{"step": 3, "split": "train", "loss": 0.5}\n'


def test_truncating_removes_later_steps_only(path):
    file = MetricsFile(path)
    for step in (3, 6, 9):
        file.write(step, "train", {})
        file.write(step, "validation", {})
    file.truncate(6)
    assert [row["step"] for row in file.rows()] == [3, 3, 6, 6]
    file.truncate(0)
    assert path.read_text() == ""


def test_a_file_that_cannot_be_written_ends_in_one_message(tmp_path):
    with pytest.raises(WriteError, match="metrics cannot be written: .*dir"):
        MetricsFile(tmp_path / "no_dir" / "metrics").write(1, "train", {})
    with pytest.raises(WriteError, match="run the same command again"):
        with writing("The log"):
            raise OSError(28, "No space left on device")
