"""Safetensors files: the header is checked to describe the data exactly."""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO, TypeGuard

import ml_dtypes
import numpy as np

from jaxphoton.files import FileError, parse_json
from jaxphoton.messages import quoted
from jaxphoton.weights.mapped import MAX_EXTENT, MAX_RANK, MappedFile, TensorEntry, WeightsError

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

# The format allows 100 MB, which would take gigabytes to parse; the largest models known have a tenth of this.
MAX_HEADER_BYTES = 16 << 20


class TensorFile(MappedFile):
    """One `.safetensors` file, memory-mapped.

    Raises:
      WeightsError: the file cannot be read, or its header does not describe its data exactly.
    """

    def _find(self, file: BinaryIO) -> dict[str, TensorEntry]:
        entries, self.metadata = _read_header(file, os.fstat(file.fileno()).st_size)
        return entries


def _read_header(file: BinaryIO, file_size: int) -> tuple[dict[str, TensorEntry], dict[str, Any]]:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise WeightsError(f"too short for a safetensors file ({file_size} bytes)")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise WeightsError(f"header of {length} bytes is beyond the limit of {MAX_HEADER_BYTES}; not safetensors?")
    if 8 + length > file_size:
        raise WeightsError(f"truncated: header of {length} bytes in a file of {file_size}")
    try:
        header = parse_json(file.read(length))
    except FileError as error:
        raise WeightsError(f"header: {error}") from None
    if not isinstance(header, dict):
        raise WeightsError("header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise WeightsError("header's __metadata__ is not an object")
    data_start = 8 + length
    entries = {name: _entry(name, value, data_start, file_size) for name, value in header.items()}
    _check_layout(entries, data_start, file_size)
    return entries, metadata


def _entry(name: str, value: Any, data_start: int, file_size: int) -> TensorEntry:
    where = f"header of tensor {quoted(name)}"
    if not isinstance(value, dict):
        raise WeightsError(f"{where} is not an object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WeightsError(f"{where}: dtype {quoted(dtype)} is not supported")
    if not _naturals(shape) or len(shape) > MAX_RANK or math.prod(max(n, 1) for n in shape) * 8 > MAX_EXTENT:
        raise WeightsError(f"{where}: shape {quoted(shape)} is not valid")
    if not _naturals(offsets) or len(offsets) != 2:
        raise WeightsError(f"{where}: data_offsets {quoted(offsets)} is not a pair of offsets")
    begin, end = offsets
    if begin > end or data_start + end > file_size:
        span, room = f"bytes {quoted(begin)} to {quoted(end)}", file_size - data_start
        raise WeightsError(f"{where}: {span} are not within the {room} bytes of data; truncated?")
    entry = TensorEntry(DTYPES[dtype], tuple(shape), data_start + begin)
    if entry.stop != data_start + end:
        raise WeightsError(f"{where}: {dtype} of shape {quoted(shape)} does not take {quoted(end - begin)} bytes")
    return entry


def _check_layout(entries: dict[str, TensorEntry], data_start: int, file_size: int) -> None:
    """The tensors must tile the data: a gap or an overlap means a damaged file or a hidden payload."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            fault = "overlaps the tensor before it" if entry.start < position else "leaves a gap before it"
            raise WeightsError(f"tensor {quoted(name)} at data byte {entry.start - data_start} {fault}")
        position = entry.stop
    if position != file_size:
        raise WeightsError(f"{file_size - position} trailing bytes belong to no tensor")


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
