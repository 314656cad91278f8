"""Reads the tensors of a file that PyTorch has saved, without PyTorch.

The older of its two formats: five pickles, then the numbers of each storage. A
pickle may call any function; here it may name an ordered dictionary and what
describes a tensor, and nothing else.
"""

import collections
import pickle
import struct
import typing

import numpy as np

from tf_metassl import files
from tf_metassl.errors import ConfigError

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(typing.NamedTuple):
    """Numbers that come later in the file.

    Attributes:
        key: names them.
        dtype: of each.
        size: how many there are.
    """

    key: str
    dtype: np.dtype
    size: int


class _Tensor(typing.NamedTuple):
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *rest: object
) -> _Tensor:
    """What PyTorch calls with the description of a tensor."""
    del rest  # Of training.
    return _Tensor(storage, offset, shape, strides)


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> typing.Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: typing.Any) -> _Storage:
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r}")
        return _Storage(key, dtype, size)


def read(path: files.AnyPath) -> dict[str, np.ndarray]:
    """The tensors of a file, name -> array.

    Args:
        path: of a file that `torch.save` has written of a `state_dict`, in the
            format before PyTorch 1.6.

    Returns:
        float32 and int64 arrays.

    Raises:
        ConfigError: if it is no such file, or asks for anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            if _Unpickler(file).load() != _MAGIC:
                raise pickle.UnpicklingError("it begins with another number")
            for _ in ("protocol", "system"):
                _Unpickler(file).load()
            tensors = _Unpickler(file).load()
            numbers = {}
            storages = {t.storage.key: t.storage for t in tensors.values()}
            for key in _Unpickler(file).load():
                (size,) = struct.unpack("<q", file.read(8))
                storage = storages[key]
                if size != storage.size:
                    raise ValueError(f"a storage of {size} numbers")
                data = file.read(size * storage.dtype.itemsize)
                numbers[key] = np.frombuffer(data, storage.dtype, size)
            return {
                name: _view(tensor, numbers[tensor.storage.key])
                for name, tensor in tensors.items()
            }
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    except Exception as error:
        # A broken pickle fails in any way.
        raise ConfigError(
            f"{path} is no file of tensors of PyTorch before 1.6 ({error}). "
            "Get the file again."
        ) from error


def _view(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """The tensor as an array of its own.

    Raises:
        ValueError: if it reaches over the end of its storage.
    """
    last = tensor.offset + sum(
        (size - 1) * stride
        for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if min(tensor.offset, *tensor.strides, 0) < 0 or last >= len(numbers):
        raise ValueError("a tensor reaches over the end of its numbers")
    width = numbers.itemsize
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :],
        tensor.shape,
        [stride * width for stride in tensor.strides],
    ).copy()
