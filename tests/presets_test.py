"""Flagfiles found by name, in place of absl's own reading of them."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from tf_metassl.errors import ConfigError
from tf_metassl.run import presets

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = ROOT / "flags/"
NAME = "meta_semi/cifar10_4000_cnn13"


def resolved(*arguments):
    program, *rest = presets.resolve_flagfiles(["train", *arguments])
    assert program == "train"
    return rest


def test_every_flagfile_is_a_preset():
    paths = {path.relative_to(FLAGS) for path in FLAGS.rglob("*.flags")}
    names = presets.names()
    assert {pathlib.Path(f"{name}.flags") for name in names} == paths
    assert NAME in names and names == sorted(names)


def test_files_are_read_as_absl_reads_them(tmp_path):
    first, second = tmp_path / "first.flags", tmp_path / "second.flags"
    first.write_text(
        f"# A.\n\n--a=1 \n//B\n--flagfile={second}\n--noc\n--a=3\n"
    )
    second.write_text("--b=x y # z\n")
    for path in (first, FLAGS / f"{NAME}.flags"):
        for arguments in (
            ["--a=0", f"--flagfile={path}", "--a=4"],
            ["-flagfile", str(path), "--", "--flagfile=none"],
            ["--flagfile=", f"-flagfile={path}"],
        ):
            expected = flags.FlagValues().read_flags_from_files(arguments)
            assert resolved(*arguments) == expected


@pytest.mark.parametrize("suffix", ("", ".flags"))
def test_a_preset_is_found_by_name_from_any_folder(
    suffix, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    expected = resolved(f"--flagfile={FLAGS / NAME}.flags")
    assert "--algo=meta_semi" in expected
    name = NAME + suffix
    assert resolved(f"--flagfile={name}", "--seed=1") == [*expected, "--seed=1"]
    assert resolved("--flagfile", name) == expected
    (tmp_path / "mine").write_text(f"--flagfile={name}\n--seed=2\n")
    assert resolved("--flagfile=mine") == [*expected, "--seed=2"]


def test_a_file_comes_before_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "meta_semi").mkdir()
    (tmp_path / NAME).write_text("--seed=5\n")
    for name in (NAME, f"~/{NAME}"):
        assert resolved(f"--flagfile={name}") == ["--seed=5"]


def test_what_is_neither_is_refused_with_similar_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meta_semi").mkdir()
    with pytest.raises(ConfigError) as error:
        resolved("--flagfile=meta_semi/cifar10_4000_cnn")
    assert NAME in str(error.value)
    assert "tf-metassl presets lists" in str(error.value)
    for name in ("zzz", "meta_semi", str(tmp_path)):
        with pytest.raises(ConfigError, match="neither a file nor the name"):
            resolved(f"--flagfile={name}")
    with pytest.raises(ConfigError, match="needs a path or a name"):
        resolved("--flagfile")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"--flagfile={second}\n")
    second.write_text(f"--flagfile={first}\n")
    with pytest.raises(ConfigError, match="includes itself"):
        resolved(f"--flagfile={first}")
    first.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        resolved(f"--flagfile={first}")


def test_the_commands_know_the_names(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    code = "from tf_metassl.run.command_line import main; main()"
    assert run("-c", code, "presets").stdout.split() == presets.names()
    assert "list the presets" in run("-c", code, "preset").stderr
    train = ("-m", "tf_metassl.train")
    done = run(*train, "--flagfile=supervised/cifar10_4000_wm")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "supervised/cifar10_4000_wrn" in done.stderr
    name = "supervised/cifar10_4000_wrn"
    done = run(*train, f"--flagfile={name}", "--mixup_alpha=1")
    assert "not a setting of --algo=supervised" in done.stderr
