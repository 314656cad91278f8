"""The run directory: its lock, its files, and what a resumed run may change."""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys

import filelock
import numpy as np
import pytest

from tf_metassl import config
from tf_metassl.data import sources, splits
from tf_metassl.errors import ConfigError
from tf_metassl.run import run_directory

HOLD = """
import pathlib, sys
from tf_metassl.run import run_directory

with run_directory.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(run_dir):
    command = [sys.executable, "-c", HOLD, run_dir]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def refusal(run_dir):
    with pytest.raises(ConfigError, match="another --run_dir") as refused:
        with run_directory.locked(run_dir):
            pass
    return str(refused.value)


def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(
    tmp_path,
):
    run_dir = tmp_path / "run"
    with run_directory.locked(run_dir):
        (run_dir / "config.json").touch()
        assert f"written by process {os.getpid()} on" in refusal(run_dir)
    # The lock ends with a process that is killed, and the next one is named.
    for _ in range(2):
        with held_by_another_process(run_dir) as process:
            named = f"process {process.pid} on {platform.node()}. Wait"
            assert f"--run_dir={run_dir} is being written by {named}" in (
                refusal(run_dir)
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
    with run_directory.locked(run_dir):
        pass


def test_a_run_of_an_older_version_is_respected(tmp_path):
    """It locked the same file with flock and wrote its name from byte 0 on."""
    with open(tmp_path / ".lock", "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write("process 12 on host")
        file.flush()
        assert "written by process 12 on host." in refusal(tmp_path)
    with run_directory.locked(tmp_path):
        (tmp_path / "config.json").touch()
        with open(tmp_path / ".lock", "a+", encoding="utf-8") as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has no locks."""

    def refuse(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(filelock, "lock_descriptor", refuse)


def test_without_locks_a_file_keeps_others_away(tmp_path, no_locks):
    path = tmp_path / "run"
    for _ in range(2):
        with run_directory.locked(path):
            (path / "config.json").touch()
            with (
                pytest.raises(ConfigError) as error,
                run_directory.locked(path),
            ):
                pass
            claim = path / ".lock.held"
            assert f"by process {os.getpid()} on {platform.node()}" in str(
                error.value
            )
            assert f"has ended, remove {claim}" in str(error.value)
        assert not claim.exists()


def test_without_locks_a_dead_process_holds_nothing(tmp_path, no_locks):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock.held").write_text(
        f"process {ended.pid} on {platform.node()}"
    )
    with run_directory.locked(path):
        pass
    # It may still run where this process cannot see it.
    (path / ".lock.held").write_text("process 1 on elsewhere")
    with pytest.raises(ConfigError), run_directory.locked(path):
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


def test_other_convolutions_are_refused(run_dir, monkeypatch):
    """Earlier versions, which did not record it, switched oneDNN off."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    with pytest.raises(ConfigError, match="TF_ENABLE_ONEDNN_OPTS: '1' -> '0'"):
        run_directory.check_settings(config.resolve({}), run_dir)
    path = run_dir / "provenance.json"
    recorded = json.loads(path.read_text())
    del recorded["TF_ENABLE_ONEDNN_OPTS"]
    path.write_text(json.dumps(recorded))
    run_directory.check_settings(config.resolve({}), run_dir)


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
    run_directory.save_config(config.resolve({}), tmp_path)
    run_directory.check_settings(config.resolve({}), tmp_path)
    run_directory.check_data(config.resolve({}), tmp_path, fingerprint())


def test_saved_configuration_and_flagfile(tmp_path):
    settings = config.resolve({"algo": "mpl", "run_dir": str(tmp_path)})
    run_directory.save_config(settings, tmp_path)
    assert run_directory.load_config(tmp_path) == settings
    lines = (tmp_path / "run.flags").read_text().splitlines()
    assert "--algo=meta_pseudo_labels" in lines
    assert not any(line.startswith("--run_dir") for line in lines)
    with pytest.raises(ConfigError, match="has no config.json"):
        run_directory.load_config(tmp_path / "nowhere")


def test_a_flagfile_reproduces_the_configuration(tmp_path):
    settings = config.resolve(
        {"algo": "meta_semi", "seed": 5, "jit_compile": True}
    )
    run_directory.save_config(settings, tmp_path)
    code = (
        "from absl import flags; from tf_metassl.run import command_line; "
        "command_line.define_flags(); "
        f"flags.FLAGS(['train', '--flagfile={tmp_path / 'run.flags'}']); "
        "import json; print(json.dumps(command_line.from_flags().to_json()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    again = config.Config.from_json(json.loads(done.stdout))
    assert config.compared(again) == config.compared(settings)


def test_importing_it_imports_no_tensorflow():
    code = (
        "import sys, tf_metassl.run.run_directory;"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_different_results_on_the_test_images_are_counted(tmp_path):
    first, second = [{"test_accuracy": 0.5}], [{"test_accuracy": 0.6}]
    assert run_directory.num_test_results(tmp_path, first) == 1
    # The same command again gives the same numbers.
    assert run_directory.num_test_results(tmp_path, first) == 1
    assert run_directory.num_test_results(tmp_path, second) == 2
    assert run_directory.num_test_results(tmp_path, first) == 2


def test_a_run_of_an_older_version_has_had_its_results(tmp_path):
    earlier = [{"test_accuracy": 0.5}]
    (tmp_path / "results.json").write_text(json.dumps(earlier, indent=2))
    assert run_directory.num_test_results(tmp_path, earlier) == 1
    later = [{"test_accuracy": 0.7}]
    assert run_directory.num_test_results(tmp_path, later) == 2


def test_a_damaged_configuration_is_read_from_the_flagfile(run_dir):
    settings = config.resolve(
        {"algo": "fixmatch", "learning_rate": 0.05, "jit_compile": True}
    )
    run_directory.save_config(settings, run_dir)
    whole = (run_dir / "config.json").read_text()
    for text in (whole[:50], "", "[", "\x00\x00"):
        (run_dir / "config.json").write_text(text)
        found = run_directory.load_config(run_dir)
        assert config.compared(found) == config.compared(settings)
    (run_dir / "run.flags").write_text("--no_such_flag=1\n")
    with pytest.raises(ConfigError, match="run.flags cannot be read"):
        run_directory.load_config(run_dir)


@pytest.mark.parametrize(
    "change, message",
    (
        (lambda values: {}, "it is no configuration of a run"),
        (lambda values: [1], "it is no configuration of a run"),
        (lambda values: {**values, "warp": 9}, "the settings warp, which this"),
        (
            lambda values: {**values, "hyperparameters": {"warp": 9}},
            "the settings warp, which this",
        ),
        (lambda values: {**values, "algo": "x"}, "it is no configuration"),
    ),
)
def test_a_configuration_of_another_program(run_dir, change, message):
    path = run_dir / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ConfigError, match=message) as error:
        run_directory.load_config(run_dir)
    assert str(path) in str(error.value)


def test_a_damaged_provenance_is_written_anew(run_dir):
    path = run_dir / "provenance.json"
    for text in ("", "{", "[1]"):
        path.write_text(text)
        run_directory.check_settings(config.resolve({}), run_dir)
        run_directory.check_data(config.resolve({}), run_dir, fingerprint())
        assert run_directory.batch_seed_version(run_dir) == 3


def test_an_interval_that_nobody_has_set_is_not_asked_for(tmp_path, capsys):
    def check(given, **change):
        run_directory.save_config(config.resolve(given), tmp_path)
        changed = config.resolve({**given, **change})
        run_directory.check_settings(changed, tmp_path)

    check({"num_steps": 100}, num_steps=200, allow_changed="num_steps")
    with pytest.raises(ConfigError, match="evaluate_every: 7 -> 20"):
        check(
            {"num_steps": 100, "evaluate_every": 7},
            **{"num_steps": 200, "evaluate_every": 0},
            allow_changed="num_steps",
        )


@pytest.mark.parametrize("per_call", (1, 30))
def test_a_longer_run_keeps_the_ramps_that_it_began_with(per_call, tmp_path):
    given = {"algo": "mean_teacher", "num_steps": 300}
    begun = config.resolve(given)
    begun = dataclasses.replace(begun, steps_per_execution=per_call)
    assert begun.hyperparameters.unlabeled_ramp_steps == 100
    run_directory.save_config(begun, tmp_path)
    given = {**given, "num_steps": 900, "allow_changed": "num_steps"}
    longer = config.resolve(given)
    assert longer.hyperparameters.unlabeled_ramp_steps == 300
    found = run_directory.with_recorded_defaults(longer, tmp_path)
    assert found.hyperparameters == begun.hyperparameters
    assert found.steps_per_execution == per_call
    run_directory.check_settings(found, tmp_path)
    # A length that is given is compared.
    other = config.resolve({**given, "unlabeled_ramp_steps": 7})
    found = run_directory.with_recorded_defaults(other, tmp_path)
    with pytest.raises(ConfigError, match="unlabeled_ramp_steps: 100 -> 7"):
        run_directory.check_settings(found, tmp_path)


@pytest.mark.parametrize("algo", ("byol", "moco_v2", "pcl"))
def test_a_run_keeps_the_decay_that_was_the_default_before(
    algo, tmp_path, capsys
):
    given = {"algo": algo, "num_steps": 300}
    begun = config.resolve({**given, "target_decay": 0.99})
    run_directory.save_config(begun, tmp_path)
    now = config.resolve(given)
    assert now.hyperparameters.target_decay == 0.9
    found = run_directory.with_recorded_defaults(now, tmp_path)
    assert found.hyperparameters == begun.hyperparameters
    assert "As the run began: --target_decay=0.99" in capsys.readouterr().out
    # One that is given is compared.
    other = config.resolve({**given, "target_decay": 0.95})
    found = run_directory.with_recorded_defaults(other, tmp_path)
    with pytest.raises(ConfigError, match="target_decay: 0.99 -> 0.95"):
        run_directory.check_settings(found, tmp_path)


def finished_run(run_dir, step=300):
    """A run of 300 steps of which `step` are finished."""
    given = {"algo": "mean_teacher", "num_steps": 300, "run_dir": str(run_dir)}
    run_dir.mkdir(exist_ok=True)
    begun = dataclasses.replace(config.resolve(given), steps_per_execution=6)
    run_directory.save_config(begun, run_dir)
    (run_dir / f"checkpoints/train/step-{step:08d}").mkdir(parents=True)
    return given


def test_an_extension_keeps_everything_but_the_number_of_steps(tmp_path):
    given = finished_run(tmp_path)
    begun = dataclasses.replace(config.resolve(given), steps_per_execution=6)

    def extend(steps, **change):
        resolved = config.resolve({**given, "extend_to": steps, **change})
        resolved = run_directory.with_recorded_defaults(resolved, tmp_path)
        found = run_directory.extended(resolved, tmp_path)
        run_directory.check_settings(found, tmp_path)
        return found

    longer = extend(900)
    assert longer == dataclasses.replace(begun, num_steps=900, extend_to=900)
    # Evaluated every 30 steps.
    assert extend(1000).steps_per_execution == 2
    with pytest.raises(ConfigError, match="learning_rate: 0.1 -> 0.2"):
        extend(900, learning_rate=0.2)
    with pytest.raises(ConfigError, match="multiple of --steps_per_execution"):
        extend(1000, steps_per_execution=6)
    with pytest.raises(ConfigError, match="was started with --num_steps=300"):
        extend(900, num_steps=400)
    assert run_directory.extensions(tmp_path) == []
    # Twice, as if the process had been killed in between.
    for _ in range(2):
        run_directory.save(longer, tmp_path, {})
        assert run_directory.extensions(tmp_path) == [(300, 900)]
    assert extend(900) == longer
    with pytest.raises(ConfigError, match="Add --extend_to=900 to resume"):
        run_directory.check_settings(begun, tmp_path)
    with pytest.raises(ConfigError, match="has 900 steps already"):
        extend(600)
    with pytest.raises(ConfigError, match="has finished 300 of 900 steps"):
        extend(1200)
    (tmp_path / "checkpoints/train/step-00000900").mkdir()
    # By the flags of the run, which are those of 900 steps.
    flags = (tmp_path / "run.flags").read_text().splitlines()
    assert not any("extend_to" in line for line in flags)
    again = config.Config.from_flags(flags)
    again = dataclasses.replace(again, run_dir=str(tmp_path), extend_to=1200)
    again = run_directory.extended(again, tmp_path)
    run_directory.check_settings(again, tmp_path)
    run_directory.save(again, tmp_path, {})
    assert run_directory.extensions(tmp_path) == [(300, 900), (900, 1200)]


def test_what_cannot_be_extended(tmp_path):
    given = finished_run(tmp_path / "run", step=200)
    longer = config.resolve({**given, "extend_to": 900})
    with pytest.raises(ConfigError, match="has finished 200 of 300 steps"):
        run_directory.extended(longer, tmp_path / "run")
    with pytest.raises(ConfigError, match="there is none in"):
        run_directory.extended(longer, tmp_path)
    for change, message in (
        ({"algo": "meta_pseudo_labels"}, "further stages .*--finetune_steps"),
        ({"patience": 2}, "--patience ends the run"),
        ({"time_budget_minutes": 2.0}, "--time_budget_minutes ends the run"),
        ({"extend_to": 200}, "--num_steps=300 is more"),
        ({"run_dir": ""}, "--run_dir is empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            config.resolve({**given, "extend_to": 900, **change})


def test_a_run_of_the_first_version_keeps_its_ramps(tmp_path):
    settings = config.resolve({"algo": "mean_teacher", "num_steps": 9000})
    hp = dataclasses.replace(settings.hyperparameters, unlabeled_ramp_steps=200)
    first = dataclasses.replace(settings, hyperparameters=hp)
    run_directory.save_config(first, tmp_path)
    found = run_directory.with_recorded_defaults(settings, tmp_path)
    assert found == first


@pytest.mark.parametrize(
    "algo, name, value",
    (
        ("vat", "vat_epsilon", 1.0),
        ("uda", "tsa_schedule", "linear"),
        ("meta_semi", "meta_labeled_batch", "raw"),
        ("learning_to_reweight", "meta_gradient", "nested_tape"),
        ("ict", "unlabeled_loss_weight", 10.0),
        ("moco_v2", "contrast_temperature", 0.2),
    ),
)
def test_a_run_of_the_first_version_keeps_its_defaults(
    algo, name, value, tmp_path, capsys
):
    settings = config.resolve({"algo": algo})
    hp = dataclasses.replace(settings.hyperparameters, **{name: value})
    first = dataclasses.replace(settings, hyperparameters=hp)
    run_directory.save_config(first, tmp_path)
    assert run_directory.with_recorded_defaults(settings, tmp_path) == first
    assert f"As the run began: --{name}={value}" in capsys.readouterr().out


def test_a_recorded_setting_that_nothing_reads_is_not_compared(tmp_path):
    """Versions before it was refused have recorded it."""
    settings = config.resolve({"algo": "fixmatch", "dataset": "digits"})
    recorded = dataclasses.replace(settings, strong_magnitude=3.0)
    run_directory.save_config(recorded, tmp_path)
    run_directory.check_settings(settings, tmp_path)
    read = {"strong_augmentation": "uda"}
    run_directory.save_config(dataclasses.replace(recorded, **read), tmp_path)
    with pytest.raises(ConfigError, match="strong_magnitude: 3.0 -> 0.0"):
        run_directory.check_settings(
            dataclasses.replace(settings, **read), tmp_path
        )


def test_defaults_that_depend_on_the_images_are_those_of_the_run(tmp_path):
    """Also of an earlier version, whose defaults were others."""
    settings = config.resolve({"dataset": "folder", "labeled_dir": "a"})
    found = run_directory.with_recorded_defaults(settings, tmp_path)
    assert found == settings and found.num_validation == -1
    recorded = {"model": "wrn_28_2", "num_validation": 100}
    run_directory.save_config(
        dataclasses.replace(settings, **recorded), tmp_path
    )
    found = run_directory.with_recorded_defaults(settings, tmp_path)
    assert found == dataclasses.replace(settings, **recorded)
    run_directory.check_settings(found, tmp_path)
    # What the user sets is not replaced.
    given = dataclasses.replace(settings, model="cnn13")
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found.model == "cnn13"
    with pytest.raises(ConfigError, match="model: 'wrn_28_2' -> 'cnn13'"):
        run_directory.check_settings(found, tmp_path)


def test_flags_that_are_not_utf8_are_written_as_they_are(tmp_path):
    name = os.fsdecode(b"d\xf6g")
    settings = config.resolve({"dataset": "folder", "labeled_dir": name})
    run_directory.save_config(settings, tmp_path)
    assert b"--labeled_dir=d\xf6g\n" in (tmp_path / "run.flags").read_bytes()
    assert run_directory.load_config(tmp_path).labeled_dir == name


@pytest.mark.parametrize("algo", config.BEFORE_OF)
def test_a_run_of_before_goes_on_with_weak_views(algo, tmp_path):
    given = config.resolve({"algo": algo})
    assert given.hyperparameters.learned_view == "strong"
    run_directory.save_config(given, tmp_path)
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found.hyperparameters.learned_view == "strong"
    recorded = json.loads((tmp_path / "config.json").read_text())
    del recorded["hyperparameters"]["learned_view"]
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found.hyperparameters.learned_view == "weak"
    run_directory.check_settings(found, tmp_path)
    # The copy of a damaged file.
    (tmp_path / "config.json").write_text("{")
    lines = (tmp_path / "run.flags").read_text().splitlines()
    kept = [line for line in lines if "learned_view" not in line]
    (tmp_path / "run.flags").write_text("\n".join(kept))
    loaded = run_directory.load_config(tmp_path)
    assert loaded.hyperparameters.learned_view == "weak"


def test_a_run_keeps_its_steps_per_call(tmp_path):
    given = config.resolve({"algo": "supervised"})
    assert given.steps_per_execution == 0
    begun = dataclasses.replace(given, steps_per_execution=20)
    run_directory.save_config(begun, tmp_path)
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found == begun
    run_directory.check_settings(found, tmp_path)
    other = dataclasses.replace(given, steps_per_execution=1)
    other = run_directory.with_recorded_defaults(other, tmp_path)
    with pytest.raises(ConfigError, match="steps_per_execution: 20 -> 1"):
        run_directory.check_settings(other, tmp_path)
    # Before that was the default, it was 1.
    recorded = json.loads((tmp_path / "config.json").read_text())
    del recorded["steps_per_execution"]
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found.steps_per_execution == 1


def test_a_run_of_before_goes_on_evaluating_all_networks(tmp_path):
    given = config.resolve({"algo": "supervised"})
    assert given.evaluate_networks == "exported"
    run_directory.save_config(given, tmp_path)
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found.evaluate_networks == "exported"
    recorded = json.loads((tmp_path / "config.json").read_text())
    del recorded["evaluate_networks"]
    (tmp_path / "config.json").write_text(json.dumps(recorded))
    found = run_directory.with_recorded_defaults(given, tmp_path)
    assert found.evaluate_networks == "all"
    # The copy of a damaged file.
    (tmp_path / "config.json").write_text("{")
    lines = (tmp_path / "run.flags").read_text().splitlines()
    kept = [line for line in lines if "evaluate_networks" not in line]
    (tmp_path / "run.flags").write_text("\n".join(kept))
    assert run_directory.load_config(tmp_path).evaluate_networks == "all"
