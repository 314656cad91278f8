"""Checkpoints are whole or skipped, and never silently replaced."""

import collections
import json
import types

import numpy as np
import pytest

from tests.helpers import run, tiny_algorithm, tiny_batch, tiny_network
from tf_metassl import files
from tf_metassl.errors import CheckpointError
from tf_metassl.run import checkpoints


@pytest.fixture
def algorithm():
    return tiny_algorithm("supervised")


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def data_file(checkpoint):
    return next(checkpoint.glob("variables.data-*"))


def test_old_ones_are_removed_and_the_state_comes_back(algorithm, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, algorithm, step, {"best": step / 10}, keep=2)
    checkpoints.save(tmp_path, algorithm, 2, {}, name="best")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best", "step-00000002", "step-00000003"]
    newest = checkpoints.newest_whole(tmp_path)
    assert checkpoints.restore(newest, algorithm) == {"best": 0.3, "step": 3}


def test_a_checkpoint_of_the_same_name_is_replaced(algorithm, tmp_path):
    for step in (5, 7):
        path = checkpoints.save(tmp_path, algorithm, step, {}, name="best")
    assert checkpoints.restore(path, algorithm)["step"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize(
    "harm",
    ("flip", "truncate", "remove", "no checksums", "{}", "[]", "a file less"),
)
def test_a_damaged_one_is_skipped(algorithm, tmp_path, harm):
    whole = checkpoints.save(tmp_path, algorithm, 1, {})
    newest = checkpoints.save(tmp_path, algorithm, 2, {})
    file = data_file(newest)
    if harm == "flip":
        flip_byte(file)
    elif harm == "truncate":
        file.write_bytes(file.read_bytes()[:100])
    elif harm == "remove":
        file.unlink()
    elif harm == "no checksums":
        (newest / "checksums.json").write_text("{")
    elif harm in ("{}", "[]"):
        (newest / "checksums.json").write_text(harm)
    elif harm == "a file less":
        sums = json.loads((newest / "checksums.json").read_text())
        del sums["variables.index"]
        (newest / "checksums.json").write_text(json.dumps(sums))
    assert checkpoints.damage(newest)
    assert checkpoints.newest_whole(tmp_path).path == whole
    with pytest.raises(CheckpointError, match="Cannot restore"):
        checkpoints.restore(newest, algorithm)


def test_none_whole_is_an_error_and_none_at_all_is_a_start(algorithm, tmp_path):
    assert checkpoints.newest_whole(tmp_path) is None
    flip_byte(data_file(checkpoints.save(tmp_path, algorithm, 1, {})))
    with pytest.raises(CheckpointError, match="None of the 1"):
        checkpoints.newest_whole(tmp_path)


def test_a_save_that_fails_leaves_the_last_one_intact(
    algorithm, tmp_path, monkeypatch
):
    good = checkpoints.save(tmp_path, algorithm, 1, {})

    def full_disk(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save(tmp_path, algorithm, 2, {})
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save(tmp_path, algorithm, 1, {})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [good]
    assert checkpoints.newest_whole(tmp_path).path == good
    checkpoints.save(tmp_path, algorithm, 3, {})


def test_one_that_was_being_replaced_gets_its_name_back(algorithm, tmp_path):
    whole = checkpoints.save(tmp_path, algorithm, 1, {})
    # Killed between the two renames, and during another save.
    whole.rename(tmp_path / ".step-00000001.replaced")
    (tmp_path / ".step-00000002.aside").mkdir()
    checkpoints.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]
    # Killed after the second.
    (tmp_path / ".step-00000001.replaced").mkdir()
    checkpoints.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]
    assert checkpoints.damage(whole) is None


def test_a_damaged_later_one_takes_no_place(algorithm, tmp_path):
    for step in (1, 2, 4):
        checkpoints.save(tmp_path, algorithm, step, {}, keep=3)
    flip_byte(data_file(tmp_path / "step-00000004"))
    checkpoints.save(tmp_path, algorithm, 3, {}, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_found(algorithm, value):
    assert checkpoints.all_finite(algorithm)
    momentum = algorithm.student_optimizer.variables[-1]
    momentum.assign(momentum.value + value)
    assert not checkpoints.all_finite(algorithm)


def test_another_network_is_refused(algorithm, tmp_path):
    path = checkpoints.save(tmp_path, algorithm, 1, {})
    other = tiny_algorithm(
        "supervised", network=lambda role: tiny_network(role, filters=5)
    )
    with pytest.raises(CheckpointError, match="another network"):
        checkpoints.restore(path, other)


def test_every_file_is_hashed_once_until_it_is_restored(
    algorithm, tmp_path, monkeypatch
):
    path = checkpoints.save(tmp_path, algorithm, 1, {})
    count = collections.Counter()
    real = files.sha256
    monkeypatch.setattr(
        files, "sha256", lambda path: count.update([path.name]) or real(path)
    )
    names = {p.name for p in path.iterdir()} - {"checksums.json"}
    checkpoints.restore(checkpoints.newest_whole(tmp_path), algorithm)
    assert count == dict.fromkeys(names, 1)
    # A path that nobody has checked is checked.
    checkpoints.restore(path, algorithm)
    assert count == dict.fromkeys(names, 2)


def test_without_counts_moving_averages_go_on_as_they_were(tmp_path):
    saved = tiny_algorithm("supervised")
    run(saved, tiny_batch())

    def without_counts(algorithm):
        variables = algorithm.state_variables
        return [v for v in variables if v.name != "num_updates"]

    older = types.SimpleNamespace(state_variables=without_counts(saved))
    path = checkpoints.save(tmp_path, older, 1, {})
    restored = tiny_algorithm("supervised")
    checkpoints.restore(path, restored)
    for a, b in zip(
        older.state_variables, without_counts(restored), strict=True
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    counts = [v for v in restored.state_variables if v.name == "num_updates"]
    assert len(counts) == 2 and all(float(v) == 1e9 for v in counts)
