"""The lock and the contract of a run directory."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from tf_metassl import config
from tf_metassl.data import sources, splits
from tf_metassl.errors import ConfigError
from tf_metassl.run import run_directory

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(100)
"""


def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(
    tmp_path,
):
    run_dir = tmp_path / "run"
    with run_directory.locked(run_dir):
        (run_dir / "config.json").touch()
        with pytest.raises(ConfigError, match="written by process"):
            with run_directory.locked(run_dir):
                pass
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, run_dir / ".lock"], stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match="another --run_dir"):
        with run_directory.locked(run_dir):
            pass
    other.kill()
    other.communicate()
    with run_directory.locked(run_dir):
        pass


def test_a_folder_made_for_the_lock_alone_does_not_stay(tmp_path):
    with run_directory.locked(tmp_path / "run"):
        assert (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run_dir(tmp_path):
    """The contract of a run on digits."""
    settings = config.resolve({})
    run_directory.save(settings, tmp_path, fingerprint())
    return tmp_path


def fingerprint(change=lambda source: source, split_seed=0):
    source = change(sources.load("digits"))
    rows = splits.split(
        source.train.labels,
        num_labeled=30,
        num_validation=200,
        split_seed=split_seed,
        labeled_inside=True,
    )
    return run_directory.data_fingerprint(source, rows)


def test_the_same_run_is_accepted(run_dir):
    settings = config.resolve({"verbose": 0})
    run_directory.check_settings(settings, run_dir)
    run_directory.check_data(settings, run_dir, fingerprint())


def test_settings_and_versions_are_compared_field_by_field(run_dir, capsys):
    path = run_dir / "provenance.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps({**made, "keras": "3.0.0"}))
    given = {"seed": 4, "mixup_alpha": 0.5}
    with pytest.raises(ConfigError) as refused:
        run_directory.check_settings(config.resolve(given), run_dir)
    text = str(refused.value)
    assert "seed: 0 -> 4\n" in text
    assert "mixup_alpha: 1.0 -> 0.5\n" in text
    assert f"keras: '3.0.0' -> {made['keras']!r}\n" in text
    assert "--allow_changed=keras,mixup_alpha,seed" in text

    given["allow_changed"] = "seed,keras"
    with pytest.raises(ConfigError) as refused:
        run_directory.check_settings(config.resolve(given), run_dir)
    assert "mixup_alpha: 1.0 -> 0.5" in str(refused.value)
    assert "seed: 0 -> 4" not in str(refused.value)

    given["allow_changed"] = "seed, keras, mixup_alpha"
    run_directory.check_settings(config.resolve(given), run_dir)
    assert "Changed since the run was started: seed: 0 -> 4" in (
        capsys.readouterr().out
    )


def other_pixel(source):
    pixels = source.train.images
    pixels[17, 3, 3, 0] ^= 1
    images = dataclasses.replace(source.train, pixels=pixels)
    return dataclasses.replace(source, train=images)


def other_label(source):
    labels = source.test.labels.copy()
    labels[5] = (labels[5] + 1) % 10
    images = dataclasses.replace(source.test, labels=labels)
    return dataclasses.replace(source, test=images)


def other_order(source):
    order = np.roll(np.arange(len(source.test)), 1)
    return dataclasses.replace(source, test=source.test.take(order))


@pytest.mark.parametrize(
    "change, name",
    [
        (other_pixel, "train_images"),
        (other_label, "test_images"),
        (other_order, "test_images"),
    ],
)
def test_other_images_are_refused_by_name(run_dir, change, name):
    now = fingerprint(change)
    with pytest.raises(ConfigError, match=rf"{name}: '\w+' -> '\w+'"):
        run_directory.check_data(config.resolve({}), run_dir, now)
    allowed = config.resolve({"allow_changed": name})
    run_directory.check_data(allowed, run_dir, now)


def test_other_splits_are_refused_by_name(run_dir):
    now = fingerprint(split_seed=1)
    with pytest.raises(ConfigError, match="splits: "):
        run_directory.check_data(config.resolve({}), run_dir, now)


def test_a_process_killed_before_its_contract_leaves_a_fresh_folder(tmp_path):
    for name in ("bad_images.csv", ".lock", ".config.json"):
        (tmp_path / name).touch()
    run_directory.check_settings(config.resolve({}), tmp_path)
    # Between the two files.
    config.save(config.resolve({}), tmp_path)
    run_directory.check_settings(config.resolve({}), tmp_path)
    run_directory.check_data(config.resolve({}), tmp_path, fingerprint())
