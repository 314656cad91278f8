"""Sets of labels: what counts, and files that are refused."""

import json

import pytest

from tf_metassl.errors import ConfigError
from tf_metassl.run import real_labels


def test_precision_by_hand():
    labels = [[3], [1, 2], [], [0], [5, 9]]
    predicted = [3, 2, 7, 1, 9]
    assert real_labels.precision(labels, predicted) == 0.75


@pytest.mark.parametrize(
    "content, message",
    [
        ("[[1], [2]", "cannot be read"),
        ("{}", "each of 2 test images, got no list"),
        ("[[1]]", "each of 2 test images, got 1"),
        (
            "[[1], [10]]",
            r"entry 1 is \[10\]; expected a list of classes in 0...9",
        ),
        ("[[1], 2]", "entry 1 is 2"),
        ("[[1], [true]]", "entry 1 is"),
        ("[[], []]", "no image has a label"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "real.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"--real_labels=.*{message}"):
        real_labels.read(str(path), 2, 10)
    with pytest.raises(ConfigError, match="missing.json cannot be read"):
        real_labels.read(str(tmp_path / "missing.json"), 2, 10)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "real.json"
    path.write_text(json.dumps([[1, 2], []]))
    assert real_labels.read(str(path), 2, 10) == [[1, 2], []]
