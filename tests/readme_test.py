"""What the documentation says about adding a method works."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_new_method_of_the_docs_is_one_file_and_one_line(tmp_path):
    page = (ROOT / "docs" / "adding_a_method.md").read_text("utf-8")
    code, line = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    assert len(code.splitlines()) <= 32 and line.count("\n") == 1
    for folder in ("tf_metassl", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    algorithms = tmp_path / "tf_metassl" / "algorithms"
    (algorithms / "entropy_minimization.py").write_text(code)
    registry = (algorithms / "__init__.py").read_text()
    opening = "ALGORITHMS = {\n"
    assert opening in registry
    (algorithms / "__init__.py").write_text(
        registry.replace(opening, opening + line)
    )
    kinds = "a_step or round_trip or save_restore"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            "tests/conformance_test.py",
            f"-k=entropy_minimization and ({kinds})",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout
