"""Adapters of random numbers, large enough that answers change."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.protocol import Family
from jaxphoton.weights import hub
from jaxphoton.weights.adapters import save_adapter


@cache
def shipped() -> Family:
    """That of the shipped model."""
    return hub.check(hub.resolve("shapes"))


def drawn(seed: int, rank: int = 4) -> Adapter:
    """For fc2 of every layer of the shipped model."""
    shapes = shipped().tensors.adapters.shapes
    rng = np.random.default_rng(seed)

    def pair(rows: int, columns: int) -> LowRank:
        a, b = rng.normal(size=(rank, columns)), rng.normal(0, 0.3, (rows, rank))
        return LowRank(a.astype(np.float32), b.astype(np.float32))

    return Adapter.of(
        f"number {seed}", {name: pair(*shape) for name, shape in shapes.items() if name.endswith("mlp.fc2")}, "drawn"
    )


def saved(path: Path, seed: int, rank: int = 4) -> Path:
    """The file of one for the shipped model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(path, drawn(seed, rank), shipped())
    return path
