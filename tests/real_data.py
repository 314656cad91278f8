"""Where tests find real images, which are not part of the repository."""

import os
import pathlib

import pytest

_DEFAULT = pathlib.Path(__file__).parents[1] / "../shared/data"


def real_data(name):
    """The file or folder `name` of the real data; without it, skips."""
    path = pathlib.Path(os.environ.get("TF_METASSL_TEST_DATA", _DEFAULT)) / name
    if not path.exists():
        pytest.skip(
            f"{path} is not there; TF_METASSL_TEST_DATA names its folder"
        )
    return path.resolve()
