"""The least that programs of a family cost, as `costs(family) -> Costs` in the `costs` of its folder tells. No jax.

The bytes are a floor: weights and keys/values move once, activations stay on the chip. A dot of [m, k] and [k, n] is
2 m k n operations; norms, softmax and sampling are left out (a few per cent of a large model).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a program.

    Attributes:
      flops: operations of the matrix products.
      weight_bytes: parameters read.
      kv_bytes: keys and values read and written.
      data_bytes: pixels in and embeddings out.
    """

    flops: int
    weight_bytes: int
    kv_bytes: int = 0
    data_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.data_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


class Costs(Protocol):
    """Costs of one model in numbers of `item` bytes."""

    def parameters(self) -> dict[str, int]:
        """Numbers by part, the parts being the first level of the parameter tree."""
        ...

    def weights(self, item: int) -> dict[str, int]:
        """Bytes by part, as they lie on the device."""
        ...

    def encode(self, images: int, crops: int, item: int) -> Cost:
        """Crops of so many images to their embeddings."""
        ...

    def prefix(self, images: int, item: int) -> Cost:
        """Image prefixes of the longest length into the cache."""
        ...

    def text(self, tokens: int, sampled: int, pairs: int, positions: int, item: int, readout: bool) -> Cost:
        """`tokens` positions through all layers and `sampled` of them through the vocabulary head, and what the
        readout reads where `readout` says so; `pairs` of a position and one that it sees, `positions` in the cache."""
        ...
