"""Semi-supervised image classifier training for TensorFlow and Keras.

Importing the package imports neither TensorFlow nor Keras, so that command
lines can answer `--help` and reject wrong flags at once.
"""

import os as _os
import sys as _sys

# TensorFlow leaves oneDNN off on processors without AVX-512, where its
# convolutions are twice as fast, too; runs repeat bit by bit with it. Decided
# when TensorFlow is first imported; a value set by the user wins.
if "tensorflow" not in _sys.modules:
    _os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
_os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__version__ = "0.1.0"
# Imported when they are first used, because they need TensorFlow. Relative, so
# that no module below depends on them by importing the version.
_LAZY = {
    "fit": ".run.fitting",
    "FittedClassifier": ".run.fitting",
    "SemiSupervisedClassifier": ".run.estimator",
    "SemiSupervisedModel": ".run.keras_model",
}


def __getattr__(name):
    import importlib

    module = _LAZY.get(name)
    # The classes of the methods, such as `MetaSemi`.
    if module is None and name[:1].isupper():
        algorithms = importlib.import_module(".algorithms", __name__)
        if name in algorithms.class_names():
            module = ".run.keras_model"
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module, __name__), name)
