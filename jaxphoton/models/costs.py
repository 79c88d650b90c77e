"""The least that programs of a family cost, as `costs(family) -> Costs` in the `costs` of its folder tells. No jax.

The bytes are a floor: weights and keys/values move once, activations stay on the chip. A dot of [m, k] and [k, n] is
2 m k n operations; norms, softmax and sampling are left out (a few per cent of a large model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxphoton.config.quantization import Quantization
from jaxphoton.models.naming import Use

GROUPS = {"int4": 128, "int4-64": 64}
GROUP_BYTES, ROW_BYTES = 2, 4  # factors of groups of 4 bits are bfloat16, all others float32


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a program.

    Attributes:
      flops: operations of the matrix products.
      weight_bytes: parameters read.
      kv_bytes: keys and values read and written.
      data_bytes: pixels in and embeddings out.
      whole_bytes: of the parameters read, those of which every device of a mesh has all.
      expert_bytes: of the parameters read, those of experts.
    """

    flops: int
    weight_bytes: int
    kv_bytes: int = 0
    data_bytes: int = 0
    whole_bytes: int = 0
    expert_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.data_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes

    def shared(self, ways: int, busiest: float = 1.0) -> Cost:
        """What it costs that of so many devices which reads the most experts, `busiest` times the mean."""
        even = (self.weight_bytes - self.whole_bytes + (busiest - 1) * self.expert_bytes) / ways
        weights, experts = int(even) + self.whole_bytes, int(busiest * self.expert_bytes / ways)
        return Cost(self.flops // ways, weights, self.kv_bytes // ways, self.data_bytes, self.whole_bytes, experts)


@dataclass(frozen=True, slots=True)
class Collective:
    """What the devices of a mesh do together in one run of a program.

    Attributes:
      kind: "sum" of arrays of which every device has one (an all-reduce), or "gather" of the parts of one.
      count: how often.
      bytes: of the result, each time.
    """

    kind: Literal["sum", "gather"]
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    """In what numbers a model lies in memory.

    Attributes:
      item: bytes of a number that is not in few bits, and of keys and values.
      quantization: which matrices are in few bits.
    """

    item: int
    quantization: Quantization | None = None

    def matrix(self, use: Use, rows: int, *widths: int) -> int:
        """Bytes of a matrix of so many rows, whose parts are so wide beside each other, and of its factors.

        As `layers.quantize.form_of`: a factor belongs to a row, or where there are several parts, or 4 bits, to a group
        of columns that no two parts share.
        """
        kind, columns, shared = getattr(self.quantization, use, None), sum(widths), math.gcd(*widths)
        if kind is None:
            return self.item * rows * columns
        if kind in GROUPS:
            group = max(n for n in range(1, GROUPS[kind] + 1) if shared % n == 0)
            return rows * (columns // 2 + GROUP_BYTES * (columns // group))
        return rows * (columns + ROW_BYTES * (1 if len(widths) == 1 else columns // shared))


@dataclass(frozen=True, slots=True)
class Matrix:
    """Matrices of a use that may be in few bits: their (mean) number, rows, and the columns of parts side by side."""

    use: Use
    number: float
    rows: int
    widths: tuple[int, ...]

    @property
    def size(self) -> float:
        return self.number * self.rows * sum(self.widths)


@dataclass(frozen=True, slots=True)
class Part:
    """Parameters of a part of a model: matrices that may be in few bits, and how many numbers besides."""

    matrices: Sequence[Matrix]
    others: float

    @property
    def size(self) -> float:
        """How many numbers all are."""
        return self.others + sum(matrix.size for matrix in self.matrices)

    def bytes(self, storage: Storage) -> float:
        sizes = (each.number * storage.matrix(each.use, each.rows, *each.widths) for each in self.matrices)
        return storage.item * self.others + sum(sizes)


class Costs(Protocol):
    """Costs of one model, by how it lies in memory."""

    def parameters(self) -> dict[str, int]:
        """Numbers by part, the parts being the first level of the parameter tree."""
        ...

    def weights(self, storage: Storage) -> dict[str, int]:
        """Bytes by part, as they lie on the device."""
        ...

    def encode(self, images: int, crops: int, storage: Storage) -> Cost:
        """Crops of so many images to their embeddings."""
        ...

    def prefix(self, images: int, length: int, storage: Storage) -> Cost:
        """Image prefixes of a length into the cache."""
        ...

    def text(self, tokens: int, sampled: int, pairs: int, positions: int, storage: Storage, readout: bool) -> Cost:
        """`tokens` positions through all layers and `sampled` of them through the vocabulary head, and what the
        readout reads where `readout` says so; `pairs` of a position and one that it sees, `positions` in the cache."""
        ...

    def encode_collectives(self, crops: int, item: int) -> list[Collective]:
        """What `encode` does on a mesh whose devices share the crops, each as many of these; numbers have `item`
        bytes."""
        ...

    def prefix_collectives(self, images: int, length: int, item: int) -> list[Collective]:
        """What `prefix` does on a mesh, with numbers of `item` bytes."""
        ...

    def text_collectives(self, tokens: int, sampled: int, item: int) -> list[Collective]:
        """What `text` does on a mesh that shares the vocabulary, too."""
        ...

    def busiest(self, tokens: int, devices: int) -> float:
        """How many times the mean the device reads that reads the most experts of a layer, where devices have whole
        experts and every choice is as likely."""
        ...
