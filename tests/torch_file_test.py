"""Files of PyTorch: tensors are read, anything else is refused."""

import collections
import io
import os
import pickle
import struct

import numpy as np
import pytest

from tf_metassl.errors import ConfigError
from tf_metassl.models import torch_file


class Named:
    """Is pickled as a name of another module."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        """Only what can be called is pickled as a function."""


class Pickler(pickle._Pickler):
    """Writes what PyTorch writes, of stand-ins for its classes."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(
                pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode()
            )
        elif isinstance(value, Tensor):
            self.save(Named("torch._utils", "_rebuild_tensor_v2"))
            self.save(
                (value.storage, value.offset, value.shape, value.strides, False)
            )
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)

    def persistent_id(self, value):
        if isinstance(value, Storage):
            dtype = Named("torch", value.kind)
            return "storage", dtype, value.key, "cpu", value.size, None
        return None


Storage = collections.namedtuple("Storage", "key kind size")
Tensor = collections.namedtuple("Tensor", "storage offset shape strides")


def write(path, tensors, numbers, magic=torch_file._MAGIC):
    file = io.BytesIO()
    for value in (magic, 1001, {"little_endian": True}, tensors, list(numbers)):
        Pickler(file, 2).dump(value)
    for values in numbers.values():
        file.write(struct.pack("<q", values.size) + values.tobytes())
    path.write_bytes(file.getvalue())


FLOATS = np.arange(12, dtype=np.float32)
OF_FLOATS = Storage("a", "FloatStorage", 12)


def test_tensors_are_views_of_storages(tmp_path):
    tensors = collections.OrderedDict(
        whole=Tensor(OF_FLOATS, 0, (3, 4), (4, 1)),
        transposed=Tensor(OF_FLOATS, 0, (4, 3), (1, 4)),
        part=Tensor(OF_FLOATS, 5, (2,), (3,)),
        count=Tensor(Storage("b", "LongStorage", 1), 0, (), ()),
    )
    numbers = {"a": FLOATS, "b": np.array([7])}
    write(tmp_path / "w.pth", tensors, numbers)
    found = torch_file.read(tmp_path / "w.pth")
    assert list(found) == list(tensors)
    whole = FLOATS.reshape(3, 4)
    np.testing.assert_array_equal(found["whole"], whole)
    np.testing.assert_array_equal(found["transposed"], whole.T)
    np.testing.assert_array_equal(found["part"], [5.0, 8.0])
    assert found["count"] == 7 and found["count"].dtype == np.int64


@pytest.mark.parametrize(
    "module, name", [("os", "system"), ("builtins", "eval"), ("torch", "load")]
)
def test_a_file_that_calls_something_is_refused(tmp_path, module, name):
    class Attack(dict):
        def __reduce__(self):
            return Named(module, name), (f"touch {tmp_path / 'called'}",)

    write(tmp_path / "w.pth", Attack(), {})
    with pytest.raises(ConfigError, match=f"asks for {module}.{name}"):
        torch_file.read(tmp_path / "w.pth")
    assert os.listdir(tmp_path) == ["w.pth"]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    tensors = {"t": Tensor(OF_FLOATS, 0, (3, 4), (4, 1))}
    for change, message in [
        ({"magic": 3}, "begins with another number"),
        ({"numbers": {"a": FLOATS[:5]}}, "a storage of 5 numbers"),
        (
            {"tensors": {"t": Tensor(OF_FLOATS, 8, (3, 4), (4, 1))}},
            "over the end",
        ),
        (
            {"tensors": {"t": Tensor(OF_FLOATS, 8, (2,), (-1,))}},
            "over the end",
        ),
    ]:
        write(path, **{"tensors": tensors, "numbers": {"a": FLOATS}, **change})
        with pytest.raises(ConfigError, match=message):
            torch_file.read(path)
    write(path, tensors, {"a": FLOATS})
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match="Get the file again"):
            torch_file.read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        torch_file.read(tmp_path / "none.pth")
