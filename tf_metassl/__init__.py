"""Semi-supervised image classifier training for TensorFlow and Keras.

Importing the package imports neither TensorFlow nor Keras, so that command
lines can answer `--help` and reject wrong flags at once.
"""

import os as _os

# oneDNN picks another order of summation from run to run and prints a line
# about it before any logging can be configured. Both must be decided before
# TensorFlow is first imported; a value set by the user wins.
_os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
_os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__version__ = "0.1.0"
