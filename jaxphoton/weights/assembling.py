"""Leaves put together on the host from the tensors of a checkpoint, each in memory of its own."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import ml_dtypes
import numpy as np

from jaxphoton.models.forms import FACTOR_NAMES
from jaxphoton.models.naming import Placement, Source
from jaxphoton.weights.checkpoint import Checkpoint
from jaxphoton.weights.stored import StoredMatrix

ALIGNMENT = 64  # bytes
ROWS = 256  # that are brought from few bits to the model's dtype at once


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor that fills a part of a leaf.

    Attributes:
      matrix: where the tensor is in few bits and the leaf is not.
    """

    place: Placement
    source: Source
    matrix: StoredMatrix | None = None


def assemble(checkpoint: Checkpoint, leaf: jax.ShapeDtypeStruct, parts: list[Part]) -> np.ndarray:
    """One leaf, its parts written into memory of its own."""
    buffer = empty_leaf(leaf)
    for part in parts:
        source, target = part.source, buffer[part.place.index]
        tensor = checkpoint.read(source.name)
        if source.half is not None:
            tensor = np.split(tensor, 2)[source.half]
        tensor = tensor.T if source.transposed else tensor
        if part.matrix is not None:
            _write_values(checkpoint, part.matrix, tensor, target)
        elif part.place.name.endswith(FACTOR_NAMES) and tensor.size != target.size:
            # Groups of the leaf are narrower than those of the tensor: neighbours have the same factor.
            factors = tensor.reshape(*target.shape[:-1], -1)
            target[...] = np.repeat(factors, target.shape[-1] // factors.shape[-1], axis=-1)
        else:
            # Assignment casts in small blocks; `astype` would hold the tensor twice.
            target[...] = tensor.reshape(target.shape)
    return buffer


def empty_leaf(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Memory for one leaf, so aligned that an array on the CPU keeps the buffer instead of a copy."""
    size = leaf.size * leaf.dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(leaf.dtype).reshape(leaf.shape)


def packed(leaf: np.ndarray) -> np.ndarray:
    """A leaf as it goes to the device: int4 two to a byte, the first in the low bits."""
    if leaf.dtype != ml_dtypes.int4:
        return leaf
    bits = leaf.view(np.uint8)
    pairs = empty_leaf(jax.ShapeDtypeStruct((*leaf.shape[:-1], leaf.shape[-1] // 2), np.uint8))
    np.left_shift(bits[..., 1::2], 4, out=pairs)
    pairs |= bits[..., ::2] & 15
    return pairs


def _write_values(checkpoint: Checkpoint, matrix: StoredMatrix, tensor: np.ndarray, target: np.ndarray) -> None:
    """The values of a tensor in few bits, some rows at a time: computed in float32 and rounded once."""
    rows = tensor.reshape(-1, matrix.columns // matrix.group, matrix.group)
    out = target.reshape(len(rows), matrix.columns)
    assert np.shares_memory(out, target) or not target.size, "written through a view"
    scale = checkpoint.read(matrix.scale.name).reshape(*rows.shape[:2], 1)
    zero = None if matrix.zero is None else checkpoint.read(matrix.zero.name).reshape(*rows.shape[:2], 1)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        values = rows[part].astype(np.float32)
        if zero is not None:
            values -= zero[part].astype(np.float32)
        values *= scale[part].astype(np.float32)
        out[part] = values.reshape(-1, matrix.columns)
