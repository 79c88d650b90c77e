"""Leaves of converted checkpoints that earlier versions named and cut otherwise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import jax
import numpy as np

from jaxphoton.models.naming import Moved
from jaxphoton.weights.assembling import empty_leaf
from jaxphoton.weights.placing import Placing

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def stored_shapes(leaves: Shapes, moved: tuple[Moved, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """What is stored where `leaves` are made of it, with the dtypes in which it is read."""
    stored = {move.stored: jax.ShapeDtypeStruct(move.shape, leaves[move.leaf].dtype) for move in moved}
    targets = {move.leaf for move in moved}
    return {name: leaf for name, leaf in leaves.items() if name not in targets} | stored


def moved_leaves(
    restored: dict[str, jax.Array], leaves: Shapes, moved: tuple[Moved, ...], sharding: Placing
) -> dict[str, jax.Array]:
    """The leaves by path, in order. `restored` is emptied on the way: one leaf at a time is in memory twice."""
    parts: dict[str, list[Moved]] = defaultdict(list)
    for move in moved:
        parts[move.leaf].append(move)
    readers = Counter(move.stored for move in moved)
    made = {}
    for name, leaf in leaves.items():
        if name not in parts:
            made[name] = restored.pop(name)
            continue
        buffer = empty_leaf(leaf)
        for move in parts[name]:
            readers[move.stored] -= 1
            stored = restored[move.stored] if readers[move.stored] else restored.pop(move.stored)
            target = buffer[move.index]
            target[...] = np.asarray(stored)[move.part].reshape(target.shape)
            del stored
        made[name] = jax.block_until_ready(jax.device_put(buffer, sharding))
        del buffer
    return made
