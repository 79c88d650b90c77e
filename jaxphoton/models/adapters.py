"""Adapters as they are read from files: pairs of low rank beside some matrices of a network. No jax at import."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxphoton.messages import listed
from jaxphoton.models.naming import WeightsError

NO_SLOT = -1  # of a row without an adapter


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """What is added to the result of a matrix: b @ (a @ x). A scale is already part of `b`.

    Attributes:
      a: float32 [..., rank, columns].
      b: float32 [..., rows, rank]; leading axes are experts.
    """

    a: np.ndarray
    b: np.ndarray

    @property
    def rank(self) -> int:
        return self.a.shape[-2]


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The pairs of one adapter; its numbers are finite.

    Attributes:
      name: under which it is asked for.
      digest: of the pairs: adapters of one digest answer alike, whatever they are called.
      pairs: by the canonical name of the module that they are added to (`text.blocks.3.mlp.fc1`).
      source: where it was read.
    """

    name: str
    digest: bytes
    pairs: Mapping[str, LowRank]
    source: str

    @classmethod
    def of(cls, name: str, pairs: Mapping[str, LowRank], source: str) -> Adapter:
        """An adapter of pairs, their numbers in float32.

        Raises:
          WeightsError: there are no pairs, or numbers of them are not finite in float32: NaN would spread to the other
            rows of a batch.
        """
        if not pairs:
            raise WeightsError("no pairs of matrices")
        held = {module: LowRank(_float32(pair.a), _float32(pair.b)) for module, pair in sorted(pairs.items())}
        broken = [module for module, pair in held.items() if not _finite(pair)]
        if broken:
            raise WeightsError(f"numbers that are not finite in {listed(broken)}")
        digest = hashlib.sha256()
        for module, pair in held.items():
            digest.update(f"{module} {pair.a.shape} {pair.b.shape}\n".encode())
            digest.update(pair.a.data)
            digest.update(pair.b.data)
        return cls(name, digest.digest(), held, source)

    @property
    def rank(self) -> int:
        """The largest of its pairs."""
        return max(pair.rank for pair in self.pairs.values())


def _finite(pair: LowRank) -> bool:
    return bool(np.isfinite(pair.a).all() and np.isfinite(pair.b).all())


def _float32(matrix: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # refused as not finite
        return np.ascontiguousarray(matrix, np.float32)
