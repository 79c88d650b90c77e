"""Memory-mapped files of tensors: where each one lies, and views of them."""

from __future__ import annotations

import math
import mmap
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxphoton.files import open_regular, reason
from jaxphoton.messages import escaped
from jaxphoton.models.naming import WeightsError

# NumPy refuses shapes whose non-zero extents multiply beyond this, even where another extent is zero.
MAX_EXTENT = 2**62
MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies in its file. `start` is in bytes from the beginning of the file.

    `strides` are in elements and never negative; None for a contiguous tensor.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Elements from the first to the last of the tensor, both included."""
        if self.strides is None or self.size == 0:
            return self.size
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    @property
    def stop(self) -> int:
        return self.start + self.span * self.dtype.itemsize


class MappedFile(ABC):
    """A file of tensors, memory-mapped; what it holds is found by `_find` of the format.

    Attributes:
      metadata: what the file says of itself.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
        try:
            with open_regular(self.path) as file:
                self.entries = self._find(file)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except WeightsError as error:
            raise WeightsError(f"{escaped(self.path)}: {error}") from None
        except (OSError, ValueError) as error:
            raise WeightsError(f"{escaped(self.path)}: {reason(error)}") from error

    @abstractmethod
    def _find(self, file: BinaryIO) -> dict[str, TensorEntry]:
        """The tensors of the open file."""

    def read(self, name: str) -> np.ndarray:
        """A read-only view of the tensor; its pages are read from disk when touched."""
        entry = self.entries[name]
        strides = None if entry.strides is None else [stride * entry.dtype.itemsize for stride in entry.strides]
        return np.ndarray(entry.shape, entry.dtype, self._map, entry.start, strides)
