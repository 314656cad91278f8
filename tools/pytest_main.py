"""Runs pytest on the files that it is called with; the main of each py_test."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(
        pytest.main(
            ["-c", "pyproject.toml", "-p", "no:cacheprovider", *sys.argv[1:]]
        )
    )
