"""A run that version 0.1.0 began is finished by this one, bit by bit.

`golden/old_run.tar.gz` holds, as `run`, the folder of a run of Noisy Student on
two moons that was interrupted at step 71 of 80 of its last stage, between two
evaluations; and, as `expected`, what the same run computed without the
interruption. It was made by version 0.1.0 with TF_NUM_INTRAOP_THREADS=1 and
TF_ENABLE_ONEDNN_OPTS=0 and

    python -m tf_metassl.train --algo=noisy_student --dataset=two_moons \
        --num_steps=80 --num_rounds=2 --round_steps=80 --evaluate_every=16 \
        --confidence_threshold=0 --ema_decay=0.9 --keep_checkpoints=200 \
        --checkpoint_minutes=0.000001 --run_dir=run

and set back by `tools.resume_check.set_back`. It is not to be made again: only
a folder that an old version wrote shows that such folders can be resumed.
"""

import json
import pathlib
import platform
import shutil
import tarfile

import numpy as np
import pytest

from tests.helpers import mostly_exhaustive
from tf_metassl.run import run_directory
from tools import kill_test, resume_check

pytestmark = pytest.mark.slow

FILE = pathlib.Path(__file__).parent / "golden" / "old_run.tar.gz"
STAGE = "round_2"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FILE) as file:
        file.extractall(folder, filter="data")
    return folder


def same_machine(made_on):
    """Whether this CPU computes the same bits as the one in `made_on`."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((s for s in lines if s.startswith("flags")), "").split()
    return platform.machine() == made_on["machine"] and set(
        made_on["instructions"]
    ) == {"avx2", "avx512f", "fma"} & set(flags)


def check_equal(expected, run_dir, exact):
    """Compares the metrics and the variables of the last checkpoint."""
    results = [
        json.loads((folder / "results.json").read_text())
        for folder in (expected, run_dir)
    ]
    # The networks are evaluated in another order, so that texts differ.
    rows = [
        [json.loads(line) for line in resume_check.metrics(folder)]
        for folder in (expected, run_dir)
    ]
    if exact:
        assert results[0] == results[1]
        assert rows[0] == rows[1]
    for old, new in zip(*rows, strict=True):
        assert new == pytest.approx(old, abs=0.02)
    arrays = [
        kill_test.variables(resume_check.last(folder, STAGE))
        for folder in (expected, run_dir)
    ]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        if exact:
            assert arrays[1][name].tobytes() == array.tobytes(), name
        else:
            np.testing.assert_allclose(arrays[1][name], array, 0, 1e-3, name)


@pytest.mark.parametrize("begun", mostly_exhaustive([True, False], [True]))
def test_an_old_run_ends_as_it_would_have(
    unpacked, tmp_path, monkeypatch, begun
):
    """In the last stage, and before it: its batches depend on its name."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    run_dir = pathlib.Path(shutil.copytree(unpacked / "run", tmp_path / "run"))
    if not begun:
        shutil.rmtree(run_dir / "checkpoints" / STAGE)
    recorded = json.loads((run_dir / "provenance.json").read_text())
    changed = [
        name
        for name, version in run_directory.versions().items()
        if recorded.get(name, "0") != version
    ]
    resume_check.resume(run_dir, f"--allow_changed={','.join(changed)}")
    expected = unpacked / "expected"
    made_on = json.loads((expected / "made_on.json").read_text())
    libraries = set(changed) - {"tf_metassl"}
    exact = not libraries and same_machine(made_on)
    check_equal(expected, run_dir, exact)


def test_what_differs_is_named(unpacked, tmp_path):
    expected = unpacked / "expected"
    copy = pathlib.Path(shutil.copytree(expected, tmp_path / "copy"))
    assert resume_check.differences(expected, copy, [STAGE]) == []
    # Lines that the resumed run kept have the old name, new ones the new name.
    lines = (copy / "metrics.jsonl").read_text()
    half = len(lines) // 2
    lines = lines[:half] + lines[half:].replace('"loss"', '"other"')
    (copy / "metrics.jsonl").write_text(lines)
    assert resume_check.differences(expected, copy, [STAGE])
    renames = [("loss", "other")]
    assert resume_check.differences(expected, copy, [STAGE], renames) == []
    last = resume_check.last(copy, STAGE)
    shutil.rmtree(last)
    shutil.copytree(resume_check.last(unpacked / "run", STAGE), last)
    found = resume_check.differences(expected, copy, [STAGE])
    assert found[0] == "metrics.jsonl" and len(found) > 1
    assert all(name.startswith(f"{STAGE}: variables/") for name in found[1:])


def test_a_run_is_set_back_to_a_step(unpacked, tmp_path):
    run_dir = pathlib.Path(shutil.copytree(unpacked / "run", tmp_path / "run"))
    shutil.copy(unpacked / "expected" / "results.json", run_dir)
    shutil.copy(unpacked / "expected" / "metrics.jsonl", run_dir)
    assert resume_check.set_back(run_dir, 75) == [STAGE]
    assert resume_check.last(run_dir, STAGE).name == "step-00000071"
    rows = [json.loads(line) for line in resume_check.metrics(run_dir)]
    # 160 steps of the stages before, and the last evaluation before step 71.
    assert rows[-1]["step"] == 160 + 64
    assert not (run_dir / "results.json").exists()
    shutil.copy(unpacked / "expected" / "results.json", run_dir)
    assert resume_check.set_back(run_dir, 0, 2) == ["round_1", STAGE]
    stages = run_dir / "checkpoints"
    assert [any((stages / n).iterdir()) for n in ("train", "round_1")] == [
        True,
        False,
    ]
    assert [json.loads(line) for line in resume_check.metrics(run_dir)][-1][
        "step"
    ] == 80
