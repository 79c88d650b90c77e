"""Lazy reading of safetensors checkpoints: headers are checked, data are memory-mapped and handed out as views."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_RANK = 32
# NumPy refuses shapes whose non-zero extents multiply beyond this, even where another extent is zero.
MAX_EXTENT = 2**62

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"


class WeightsError(ValueError):
    """Weights that cannot be found, read, or fitted to a model."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies in its file. `start` is in bytes from the beginning of the file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        return self.start + self.size * self.dtype.itemsize


class TensorFile:
    """One `.safetensors` file, memory-mapped.

    Raises:
      WeightsError: the file cannot be read, or its header does not describe its data exactly.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self.entries = _read_header(file, size)
                self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except WeightsError as error:
            raise WeightsError(f"{self.path}: {error}") from None
        except (OSError, ValueError) as error:
            raise WeightsError(f"{self.path}: cannot be read: {error}") from error

    def read(self, name: str) -> np.ndarray:
        """A read-only view of the tensor; its pages are read from disk when touched."""
        entry = self.entries[name]
        flat = np.frombuffer(self._map, dtype=entry.dtype, count=entry.size, offset=entry.start)
        return flat.reshape(entry.shape)


class Checkpoint:
    """The tensors of one or several files under their names in the file.

    Raises:
      WeightsError: two files hold a tensor of the same name.
    """

    def __init__(self, path: str | Path, files: Iterable[TensorFile]):
        self.path = Path(path)
        self._homes: dict[str, TensorFile] = {}
        for file in files:
            for name in file.entries:
                if name in self._homes:
                    other = self._homes[name].path.name
                    raise WeightsError(f"{self.path}: tensor {name!r} is in both {other} and {file.path.name}")
                self._homes[name] = file

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def entry(self, name: str) -> TensorEntry:
        return self._homes[name].entries[name]

    def read(self, name: str) -> np.ndarray:
        """A read-only view of the tensor in the mapped file: copy what must outlive the file."""
        return self._homes[name].read(name)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a `.safetensors` file, or the one checkpoint of a folder.

    A folder's `model.safetensors.index.json` names its shards. Without an index `model.safetensors` is the
    checkpoint; without that, all `.safetensors` files together.

    Raises:
      WeightsError: nothing there to open, a shard or a tensor named by the index is missing, a tensor is in two
        files, or a file is damaged.
    """
    path = Path(path)
    if path.is_file():
        return Checkpoint(path, [TensorFile(path)])
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or folder")
    if (path / INDEX_FILE).is_file():
        return _open_sharded(path)
    names = [SINGLE_FILE] if (path / SINGLE_FILE).is_file() else sorted(f.name for f in path.glob("*.safetensors"))
    if not names:
        raise WeightsError(f"{path}: the folder holds no .safetensors file")
    return Checkpoint(path, [TensorFile(path / name) for name in names])


def _open_sharded(folder: Path) -> Checkpoint:
    homes = _read_index(folder / INDEX_FILE)
    shards = sorted(set(homes.values()))
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        raise WeightsError(f"{folder}: {len(absent)} of {len(shards)} shards are missing: {', '.join(absent[:20])}")
    files = {shard: TensorFile(folder / shard) for shard in shards}
    lost = [f"{name} ({shard})" for name, shard in homes.items() if name not in files[shard].entries]
    if lost:
        raise WeightsError(f"{folder}: {len(lost)} tensors of the index are not in their shard: {', '.join(lost[:20])}")
    return Checkpoint(folder, files.values())


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name of its shard."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}") from error
    homes = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(homes, dict) or not homes or not all(isinstance(shard, str) for shard in homes.values()):
        raise WeightsError(f"{path}: 'weight_map' must be an object of tensor name to file name")
    # An index comes from a download: a shard is a file of this folder, never a path to somewhere else.
    for shard in set(homes.values()):
        if Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise WeightsError(f"{path}: {shard!r} is not a plain file name")
    return homes


def _read_header(file: BinaryIO, file_size: int) -> dict[str, TensorEntry]:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise WeightsError(f"too short for a safetensors file ({file_size} bytes)")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise WeightsError(f"header of {length} bytes is beyond the limit of {MAX_HEADER_BYTES}; not safetensors?")
    if 8 + length > file_size:
        raise WeightsError(f"truncated: header of {length} bytes in a file of {file_size}")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise WeightsError("header is not a JSON object")
    if not isinstance(header.pop("__metadata__", {}), dict):
        raise WeightsError("header's __metadata__ is not an object")
    data_start = 8 + length
    entries = {name: _entry(name, value, data_start, file_size) for name, value in header.items()}
    _check_layout(entries, data_start, file_size)
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise WeightsError(f"the name {twice!r} occurs twice")
    return keys


def _entry(name: str, value: Any, data_start: int, file_size: int) -> TensorEntry:
    where = f"header of tensor {name!r}"
    if not isinstance(value, dict):
        raise WeightsError(f"{where} is not an object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WeightsError(f"{where}: dtype {dtype!r} is not supported")
    if not _naturals(shape) or len(shape) > MAX_RANK or math.prod(max(n, 1) for n in shape) * 8 > MAX_EXTENT:
        raise WeightsError(f"{where}: shape {_short(shape)} is not valid")
    if not _naturals(offsets) or len(offsets) != 2:
        raise WeightsError(f"{where}: data_offsets {_short(offsets)} is not a pair of offsets")
    begin, end = offsets
    if begin > end or data_start + end > file_size:
        room = file_size - data_start
        raise WeightsError(f"{where}: bytes {begin} to {end} are not within the {room} bytes of data; truncated?")
    entry = TensorEntry(DTYPES[dtype], tuple(shape), data_start + begin)
    if entry.stop != data_start + end:
        raise WeightsError(f"{where}: {dtype} of shape {shape} does not take {end - begin} bytes")
    return entry


def _check_layout(entries: dict[str, TensorEntry], data_start: int, file_size: int) -> None:
    """The tensors must tile the data: a gap or an overlap means a damaged file or a hidden payload."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            fault = "overlaps the tensor before it" if entry.start < position else "leaves a gap before it"
            raise WeightsError(f"tensor {name!r} at data byte {entry.start - data_start} {fault}")
        position = entry.stop
    if position != file_size:
        raise WeightsError(f"{file_size - position} trailing bytes belong to no tensor")


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
