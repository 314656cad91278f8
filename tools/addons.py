"""Imports the image operations of tensorflow-addons beside Keras 3.

tensorflow-addons 0.23 is at its end of life. Two things of it fail beside
Keras 3: `tensorflow_addons/__init__.py`, which imports optimizers and layers,
and the name of a class in `keras.src.engine`, which is used in annotations
alone. Here the package is made without running its `__init__`, and the module
is a stub with that name. The image operations themselves are unchanged.
"""

import importlib.util
import sys
import types

HOW_TO_INSTALL = (
    "pip install --no-deps -r requirements-tfa-image.txt (Python 3.11)"
)


def import_image_operations():
    """Makes `import tensorflow_addons.image` work in this process.

    Raises:
        ImportError: if tensorflow-addons is not installed.
    """
    import keras

    spec = importlib.util.find_spec("tensorflow_addons")
    if spec is None:
        raise ImportError(f"tensorflow-addons is missing: {HOW_TO_INSTALL}")
    package = types.ModuleType("tensorflow_addons")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    engine = types.ModuleType("keras.src.engine")
    engine.keras_tensor = types.SimpleNamespace(KerasTensor=keras.KerasTensor)
    sys.modules["tensorflow_addons"] = package
    sys.modules["keras.src.engine"] = engine
    import tensorflow_addons.image  # noqa: F401
