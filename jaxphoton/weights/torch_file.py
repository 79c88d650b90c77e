"""Files of `torch.save`: a zip archive of raw storages and one pickle, of which tensors are read and nothing else.

A pickle is a program. This one may name what rebuilds a tensor, each name stands for an object of this module, and
any other name is refused before anything of it is imported.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jaxphoton.messages import first_line, listed, quoted, short
from jaxphoton.weights.mapped import MAX_EXTENT, MAX_RANK, MappedFile, TensorEntry, WeightsError

STORAGES: dict[str, np.dtype] = {
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "ShortStorage": np.dtype("<i2"),
    "IntStorage": np.dtype("<i4"),
    "LongStorage": np.dtype("<i8"),
    "HalfStorage": np.dtype("<f2"),
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
}
# Types without a storage class of their own: their tensors view an untyped storage.
VIEWED: dict[str, np.dtype] = {
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
OPCODES = frozenset(
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET "
    "EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE "
    "NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE".split()
)
MAX_READ = 16 << 20  # bytes of a record but storages, and of the list of records


class TorchFile(MappedFile):
    """One file of `torch.save` that holds a dictionary of tensors, memory-mapped.

    Args:
      part: the entry of the dictionary that holds the tensors, if there is one of this name; others then hold none.

    Raises:
      WeightsError: the file cannot be read, holds something else than tensors, or its pickle names anything that
        does not rebuild a tensor.
    """

    def __init__(self, path: str | Path, part: str | None = None):
        self._part = part
        super().__init__(path)

    def _find(self, file: BinaryIO) -> dict[str, TensorEntry]:
        try:
            with zipfile.ZipFile(_Bounded(file)) as archive:  # type: ignore[arg-type]
                return _Archive(archive, file).tensors(self._part)
        except WeightsError:
            raise
        except zipfile.BadZipFile as error:
            raise WeightsError(f"not a zip archive, or a truncated one ({first_line(error)})") from None
        except Exception as error:  # damage raises whatever the steps of the archive or the pickle run into
            fault = f"{type(error).__name__}: {first_line(error)}"
            raise WeightsError(f"cannot be read as a file of torch.save: {fault}") from None


class _Bounded:
    """A file for `zipfile`, which reads what the archive says in one piece, however much that is."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= MAX_READ else MAX_READ + 1)
        if len(data) > MAX_READ:
            raise WeightsError(f"more than {MAX_READ} bytes of records and their list, storages aside")
        return data


class _Archive:
    """The records of one archive, by their names below its top folder."""

    def __init__(self, archive: zipfile.ZipFile, file: BinaryIO):
        self._archive, self._file = archive, file
        self._file_size = os.fstat(file.fileno()).st_size
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise WeightsError("a zip archive without the data.pkl of torch.save")
        self._top = pickles[0].removesuffix("data.pkl")
        self._records = {info.filename.removeprefix(self._top): info for info in archive.infolist()}
        if len(self._records) < len(archive.infolist()):
            raise WeightsError("two records of the archive have one name")

    def tensors(self, part: str | None) -> dict[str, TensorEntry]:
        if "byteorder" in self._records and self._bytes("byteorder") != b"little":
            raise WeightsError("stored in big-endian byte order")
        data = self._bytes("data.pkl")
        _check_opcodes(data)
        held = _Unpickler(io.BytesIO(data), self._storage).load()
        if part is not None and isinstance(held, dict) and part in held:
            others = [name for name, value in held.items() if name != part and _holds_tensors(value)]
            if others:
                raise WeightsError(f"tensors beside {part}: in {listed(others)}")
            held = held[part]
        if not isinstance(held, dict):
            raise WeightsError("holds no dictionary of tensors")
        for name, value in held.items():
            if not isinstance(name, str) or not isinstance(value, _Tensor):
                raise WeightsError(f"{quoted(name)} is not a tensor")
        return {name: value.entry for name, value in held.items()}

    def _bytes(self, record: str) -> bytes:
        info = self._records[record]
        if info.file_size > MAX_READ:
            raise WeightsError(f"{record} of {info.file_size} bytes is beyond the limit of {MAX_READ}")
        return self._archive.read(info)

    def _storage(self, key: str) -> tuple[int, int]:
        """Where the storage starts in the file, and its bytes."""
        info = self._records.get(f"data/{key}")
        if info is None:
            raise WeightsError(f"storage {quoted(key)} is missing from the archive")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise WeightsError(f"storage {quoted(key)} is compressed or encrypted")
        # The record's own header repeats the name and may hold another extra field than the central directory.
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        if header[:4] != b"PK\x03\x04" or len(header) < 30:
            raise WeightsError(f"storage {quoted(key)} has no header; a damaged archive")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + 30 + lengths
        if start + info.file_size > self._file_size:
            raise WeightsError(f"storage {quoted(key)} reaches beyond the end of the file; truncated?")
        return start, info.file_size


class _Sealed:
    """What a pickle gets to hold. Its BUILD opcode, which writes attributes, must not reach it."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise WeightsError("the pickle changes what it may only name")


class _Type(_Sealed):
    """A stand-in of a storage class or a dtype; `value` is its NumPy dtype, None for untyped storage."""

    __slots__ = ()


class _Function(_Sealed):
    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return self.value(*args)


class _Storage(_Sealed):
    """`value`: dtype (None if untyped), start in the file, bytes."""

    __slots__ = ()


class _Tensor(_Sealed):
    __slots__ = ()

    @property
    def entry(self) -> TensorEntry:
        return self.value


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, locate: Callable[[str], tuple[int, int]]):
        super().__init__(file)
        self._locate = locate

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        allowed = GLOBALS.get(asked)
        if allowed is None:
            raise WeightsError(f"the pickle asks for {short(asked)}: only tensors are read, and no code is run")
        return allowed

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, _ = pid
        if kind != "storage" or not isinstance(storage, _Type) or not isinstance(key, str):
            raise WeightsError("the pickle refers to something else than a storage")
        return _Storage((storage.value, *self._locate(key)))


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """A tensor in a typed storage; `rest`: whether it needs gradients, hooks, metadata."""
    if not isinstance(storage, _Storage) or storage.value[0] is None:
        raise WeightsError("a tensor without a typed storage")
    return _view(storage, storage.value[0], offset, shape, strides)


def _rebuild_viewed(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *rest: Any
):
    """A tensor of a given type in an untyped storage."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, _Type) or dtype.value is None:
        raise WeightsError("a tensor without a storage or a type")
    return _view(storage, dtype.value, offset, shape, strides)


def _view(storage: _Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any) -> _Tensor:
    _, start, size = storage.value
    extents = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_RANK or not all(type(n) is int and n >= 0 for n in extents):
        raise WeightsError("a tensor whose offset, shape and strides are not valid")
    if math.prod(max(n, 1) for n in shape) * 8 > MAX_EXTENT:
        raise WeightsError(f"a tensor of shape {quoted(list(shape))} is too large")
    plain = 0 in shape or _contiguous(shape, strides)
    entry = TensorEntry(dtype, shape, start + offset * dtype.itemsize, None if plain else strides)
    if entry.stop > start + size:
        raise WeightsError(f"a tensor of shape {quoted(list(shape))} reaches beyond its storage of {size} bytes")
    return _Tensor(entry)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True


def _holds_tensors(value: Any) -> bool:
    """Whether there are any in nested dictionaries and lists, which may hold each other."""
    left, seen = [value], set()
    while left:
        node = left.pop()
        if isinstance(node, _Sealed):
            return True
        if isinstance(node, dict | list | tuple) and id(node) not in seen:
            seen.add(id(node))
            left += [*node, *node.values()] if isinstance(node, dict) else node
    return False


def _check_opcodes(data: bytes) -> None:
    """Refuses what `torch.save` never writes, and memo places that would take memory without holding anything."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in OPCODES:
            raise WeightsError(f"the pickle has the opcode {opcode.name}, which no tensor needs")
        if opcode.name == "LONG_BINPUT" and (not isinstance(argument, int) or argument > len(data)):
            raise WeightsError("a damaged pickle: a memo place beyond its end")


GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild),
    "torch._utils._rebuild_tensor_v3": _Function(_rebuild_viewed),
    "torch._utils._rebuild_parameter": _Function(lambda tensor, *rest: tensor),
    "torch.storage.UntypedStorage": _Type(None),
    **{f"torch.{name}": _Type(dtype) for name, dtype in (STORAGES | VIEWED).items()},
}
