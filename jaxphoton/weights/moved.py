"""Leaves of converted checkpoints that earlier versions named and cut otherwise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxphoton.models.naming import Moved
from jaxphoton.weights.assembling import empty_leaf

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def stored_shapes(leaves: Shapes, moved: tuple[Moved, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """What is stored where `leaves` are made of it, with the dtypes in which it is read."""
    stored = {move.stored: jax.ShapeDtypeStruct(move.shape, leaves[move.leaf].dtype) for move in moved}
    targets = {move.leaf for move in moved}
    return {name: leaf for name, leaf in leaves.items() if name not in targets} | stored


class MovedLeaves:
    """The leaves that were stored otherwise. `restored` is emptied on the way, as soon as a leaf of it is done with."""

    def __init__(self, restored: dict[str, Any], moved: tuple[Moved, ...]):
        self._restored = restored
        self._parts: dict[str, list[Moved]] = defaultdict(list)
        for move in moved:
            self._parts[move.leaf].append(move)
        self._readers = Counter(move.stored for move in moved)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def buffer(self, name: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        """A leaf on the host, in memory of its own."""
        buffer = empty_leaf(leaf)
        for move in self._parts[name]:
            self._readers[move.stored] -= 1
            stored = self._restored[move.stored] if self._readers[move.stored] else self._restored.pop(move.stored)
            target = buffer[move.index]
            target[...] = np.asarray(stored)[move.part].reshape(target.shape)
            del stored
        return buffer
