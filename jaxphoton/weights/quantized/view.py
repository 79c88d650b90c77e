"""A checkpoint of which some tensors are made of others when they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from jaxphoton.weights.checkpoint import Checkpoint
from jaxphoton.weights.mapped import TensorEntry

INT4 = np.dtype(ml_dtypes.int4)


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor that `read` makes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class View(Checkpoint):
    """A checkpoint without the tensors of the names `used`, and with those that are made of them."""

    def __init__(self, inner: Checkpoint, made: Mapping[str, Made], used: Set[str]):
        self.path = inner.path
        self._inner, self._made = inner, made
        self._names = [name for name in inner if name not in used and name not in made] + list(made)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, name: str) -> TensorEntry:
        made = self._made.get(name)
        return self._inner.entry(name) if made is None else TensorEntry(made.dtype, made.shape, 0)

    def read(self, name: str) -> np.ndarray:
        made = self._made.get(name)
        return self._inner.read(name) if made is None else made.read()


def as_stored(checkpoint: Checkpoint, name: str, shape: tuple[int, ...] | None = None) -> Made:
    """A tensor under another name, perhaps in another shape of as many numbers."""
    entry = checkpoint.entry(name)
    shape = entry.shape if shape is None else shape
    return Made(entry.dtype, shape, lambda: checkpoint.read(name).reshape(shape))


def signed(nibbles: np.ndarray) -> np.ndarray:
    """uint8 from 0 to 15 -> int4 less 8."""
    return (nibbles.view(np.int8) - np.int8(8)).astype(INT4)


def by_row(factors: Made, shape: tuple[int, ...]) -> Made:
    """Factors of a matrix [..., rows, columns]; one of the whole tensor is every row's."""
    if math.prod(factors.shape) != 1 or not shape:
        return factors
    rows = (*shape[:-1], 1)
    return Made(factors.dtype, rows, lambda: np.broadcast_to(factors.read().reshape(()), rows))
