"""The wheel, in an environment that does not know the source tree."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHORT = ["--num_steps=10", "--evaluate_every=10", "--batch_size=16"]
# A preset, made small enough.
PRESET = """\
--flagfile=supervised/cifar10_4000_wrn
--dataset=digits
--num_labeled=30
--num_validation=200
--model=auto
--label_split=balanced
--weak_augmentation=auto
--warmup_steps=0
"""
pytestmark = pytest.mark.slow


def call(*command, folder):
    """What a command prints, given in `folder` and without our PYTHONPATH."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of a fresh environment that holds the wheel.

    It sees the libraries that are installed here, TensorFlow among them, but
    not an editable installation of this package.
    """
    source = tmp_path_factory.mktemp("source")
    for name in ("tf_metassl", "flags"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and path.name[0] != ".":
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
    call(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir=wheels", "."),
        folder=source,
    )
    (wheel,) = (source / "wheels").iterdir()
    environment = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", ".", folder=environment)
    python = environment / "bin" / "python"
    call(
        *(*pip, f"--python={python}", "install", "--no-deps", wheel),
        folder=environment,
    )
    (site,) = (environment / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    return environment / "bin", site


def test_the_wheel_holds_every_file_of_the_package(installed):
    _, site = installed
    for folder in ("tf_metassl", "flags"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".typed", ".flags"):
                name = path.relative_to(ROOT / folder)
                within = site / "tf_metassl" / folder.replace("tf_metassl", "")
                assert (within / name).is_file(), name


@pytest.mark.parametrize(
    "command",
    (
        ("tf-metassl", "train", "--flagfile=mine.flags"),
        pytest.param(
            ("python", "-m", "tf_metassl.train", "--algo=supervised"),
            marks=pytest.mark.exhaustive,
        ),
    ),
    ids=("console script with a preset", "module"),
)
def test_ten_steps_from_another_folder(installed, command, tmp_path):
    programs, _ = installed
    (tmp_path / "mine.flags").write_text(PRESET)
    done = call(
        *(programs / command[0], *command[1:], *SHORT, "--run_dir=run"),
        folder=tmp_path,
    )
    assert "step 10/10" in done
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["algo"] == "supervised"
    # The rate of the preset, and the default.
    assert config["learning_rate"] == (0.4 if "tf-metassl" in command else 0.1)
    assert (tmp_path / "run/export/1/saved_model.pb").is_file()


def test_the_package_and_its_presets_are_those_of_the_wheel(
    installed, tmp_path
):
    programs, site = installed
    code = "import tf_metassl as t; from tf_metassl.run import presets as p; "
    printed = call(
        *(programs / "python", "-c", code + "print(t.__file__, p.folder())"),
        folder=tmp_path,
    )
    package = site / "tf_metassl"
    expected = [package / "__init__.py", package / "flags"]
    assert printed.split() == [str(path) for path in expected]
