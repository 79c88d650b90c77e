"""Leaves, or parts of them, put together on the host from the tensors of a checkpoint, in memory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxphoton.models.forms import FACTOR_NAMES
from jaxphoton.models.naming import Placement, Source, placed_shape
from jaxphoton.weights.checkpoint import Checkpoint
from jaxphoton.weights.layout import Ranges, shape_of, whole
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


def assemble(
    checkpoint: Checkpoint, leaf: jax.ShapeDtypeStruct, parts: list[Part], ranges: Ranges | None = None
) -> np.ndarray:
    """A leaf, or what lies in these ranges of it, its parts written into memory of its own."""
    ranges = whole(leaf.shape) if ranges is None else ranges
    buffer = empty_leaf(jax.ShapeDtypeStruct(shape_of(ranges), leaf.dtype))
    for part in parts:
        cuts = list(product(*_cuts(part.place.index, leaf.shape, ranges)))
        if not cuts:
            continue
        tensor = _tensor(checkpoint, part, placed_shape(leaf.shape, part.place.index))
        for each in cuts:
            target = buffer[(*(inside for inside, _ in each), ...)]  # a view, even of a single number
            source = tuple(outside for _, outside in each if outside is not None)
            if part.matrix is None:
                # Assignment casts in small blocks; `astype` would hold the tensor twice.
                target[...] = tensor[source]
            else:
                _write_values(checkpoint, part.matrix, tensor, source, target)
    return buffer


def ordered(leaf: np.ndarray, ranges: Ranges) -> np.ndarray:
    """What lies in these ranges of a leaf: itself, if that is all of it in order."""
    if ranges == whole(leaf.shape):
        return leaf
    buffer = empty_leaf(jax.ShapeDtypeStruct(shape_of(ranges), leaf.dtype))
    for each in product(*_cuts((), leaf.shape, ranges)):
        buffer[tuple(inside for inside, _ in each)] = leaf[tuple(outside for _, outside in each)]
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


def _cuts(index: tuple[int | slice, ...], shape: tuple[int, ...], ranges: Ranges) -> Iterator[list[tuple[Any, Any]]]:
    """Of each axis of a leaf: where in the ranges lies something of `leaf[index]`, and where in that. The latter has no
    axis, None, where the index is a number."""
    for axis, (size, pieces) in enumerate(zip(shape, ranges, strict=True)):
        part = index[axis] if axis < len(index) else slice(None)
        low, high = part.indices(size)[:2] if isinstance(part, slice) else (part, part + 1)
        found, at = list[tuple[Any, Any]](), 0
        for start, stop in pieces:
            first, last = max(start, low), min(stop, high)
            if first < last and isinstance(part, slice):
                found.append((slice(at + first - start, at + last - start), slice(first - low, last - low)))
            elif first < last:
                found.append((at + first - start, None))
            at += stop - start
        yield found


def _tensor(checkpoint: Checkpoint, part: Part, shape: tuple[int, ...]) -> np.ndarray:
    """A part of a leaf, of this shape, in the dtype of its tensor; a view of the file but for factors."""
    source = part.source
    tensor = checkpoint.read(source.name)
    if source.half is not None:
        tensor = np.split(tensor, 2)[source.half]
    tensor = tensor.T if source.transposed else tensor
    if part.matrix is None and part.place.name.endswith(FACTOR_NAMES) and tensor.size != np.prod(shape):
        # Groups of the leaf are narrower than those of the tensor: neighbours have the same factor.
        factors = tensor.reshape(*shape[:-1], -1)
        return np.repeat(factors, shape[-1] // factors.shape[-1], axis=-1)
    return tensor.reshape(shape)


def _write_values(
    checkpoint: Checkpoint, matrix: StoredMatrix, tensor: np.ndarray, source: tuple[slice, ...], target: np.ndarray
) -> None:
    """The values of a part of a tensor in few bits, some rows at a time: computed in float32 and rounded once."""
    if tensor.ndim == 1:
        tensor, source, target = tensor[None], (slice(0, 1), *source), target[None]
    lead, size = source[:-1], tensor.shape[-1]

    def grouped(array: np.ndarray) -> np.ndarray:
        return array.reshape(*tensor.shape[:-1], groups, -1)[lead]

    scale = checkpoint.read(matrix.scale.name)
    groups = scale.size * size // max(1, tensor.size)
    scale, numbers = grouped(scale), grouped(tensor)
    zero = None if matrix.zero is None else grouped(checkpoint.read(matrix.zero.name))
    for front in np.ndindex(numbers.shape[:-3]):
        for start in range(0, numbers.shape[-3], ROWS):
            rows = (*front, slice(start, start + ROWS))
            values = numbers[rows].astype(np.float32)
            if zero is not None:
                values -= zero[rows].astype(np.float32)
            values *= scale[rows].astype(np.float32)
            target[rows] = values.reshape(len(values), size)[:, source[-1]]
