"""Adapters as they are read from files: pairs of low rank beside some matrices of a network. No jax at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


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
