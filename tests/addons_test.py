"""tensorflow-addons itself, beside Keras 3, gives the golden arrays."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from tools import addons

ROOT = pathlib.Path(__file__).parents[1]

# In a process of its own, because oneDNN rounds differently and can only be
# switched off before TensorFlow is imported.
COMPARE = """
import numpy as np
from tools import addons, make_golden_images

addons.import_image_operations()
images = make_golden_images.inputs()
golden = np.load("tests/golden/tfa_image_ops.npz")
cases = make_golden_images.tfa_cases(images)
outputs = [name for name in cases if name in golden.files]
assert len(outputs) == len(cases), sorted(set(cases) - set(golden.files))
for name in outputs:
    np.testing.assert_array_equal(cases[name], golden[name], err_msg=name)
print(len(outputs), "arrays are equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_addons") is None,
    reason=addons.HOW_TO_INSTALL,
)
def test_it_gives_the_golden_arrays_beside_keras_3():
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) >= 23
