"""Adapters of random numbers, large enough that answers change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxphoton.models.adapters import Adapter, LowRank


def adapter_of(shapes: Mapping[str, tuple[int, ...]], seed: int, rank: int, kept: str = "") -> Adapter:
    """For the modules of `AdapterNames.shapes` whose names hold `kept`."""
    random = np.random.default_rng(seed)

    def pair(rows: int, columns: int) -> LowRank:
        a, b = random.normal(0, 0.5, (rank, columns)), random.normal(0, 0.5, (rows, rank))
        return LowRank(a.astype(np.float32), b.astype(np.float32))

    return Adapter.of(f"number {seed}", {n: pair(*shape) for n, shape in shapes.items() if kept in n}, "drawn")
