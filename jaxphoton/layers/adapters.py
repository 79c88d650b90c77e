"""Adapters of low rank in slots on the device, one chosen for each row of the batch.

A row's delta is computed with the pairs of all slots, of which all but its own are selected out in between: two plain
products, whatever the rows have chosen, and no copy of a pair for each row.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.layers.weight import Dense, Leaf, Weight, einsum


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of one matrix in S slots, padded with zeros to rank R.

    Slots are the next to last axis but one of `a` and the last but one of `b`: what a product contracts lies together.
    """

    a: Leaf  # [..., S, R, columns]
    b: Leaf  # [..., rows, S, R]

    def delta(self, x: jax.Array, slots: jax.Array, out: DTypeLike = jnp.float32) -> jax.Array:
        """b @ (a @ x) of each row's slot, [B, ..., rows] in `out`, for x [B, ..., columns] and slots int32 [B]."""
        # In the dtype of the product beside it, which XLA joins it with.
        down = einsum("...d,srd->...sr", x, self.a, out=out)
        own = slots[:, None] == lax.iota(jnp.int32, self.a.shape[-3])[None]
        own = own.reshape(own.shape[0], *(1,) * (x.ndim - 2), own.shape[1], 1)
        # Selected, not multiplied: what another's pair makes of this row may overflow.
        return einsum("...sr,fsr->...f", jnp.where(own, down, 0).astype(x.dtype), self.b, out=out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class LayerPairs:
    """The pairs of the same matrix in L layers."""

    a: tuple[Leaf, ...]  # of each layer [S, R, columns]
    b: Leaf  # [L, rows, S, R]

    def __getitem__(self, layer: int) -> Pairs:
        return Pairs(self.a[layer], self.b[layer])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class ChosenPairs:
    """Pairs, and which slot each row of the batch has chosen."""

    pairs: Pairs
    slots: Leaf  # int32 [B], -1 for none
    beside: Weight  # a matrix that reads the same x

    def delta(self, x: jax.Array) -> jax.Array:
        return self.pairs.delta(_for_pairs(x, self.beside), self.slots)


def put(pool: Any, one: Any, slot: jax.Array) -> Any:
    """A tree of `Pairs` and `LayerPairs` with those of a tree of one slot in place of what slot number `slot` held."""

    def at(axis: int, held: Any, new: Any) -> Any:
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, slot, x.ndim - axis), held, new)

    def placed(pairs: Any, new: Any) -> Any:
        return type(pairs)(at(3, pairs.a, new.a), at(2, pairs.b, new.b))

    return jax.tree.map(placed, pool, one, is_leaf=lambda node: isinstance(node, Pairs | LayerPairs))


@dataclass(frozen=True, slots=True)
class _Adapted(Weight):
    base: Weight
    pairs: tuple[Pairs, ...]
    slots: Leaf  # int32 [B], -1 for none

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        out = out or x.dtype
        # A token a row is summed in float32 and rounded once. Of many that would be the largest array of a program.
        sums = jnp.dtype(jnp.float32 if math.prod(x.shape[1:-1]) == 1 else out)
        result = self.base.einsum(equation, x, sums, product)
        for delta in self._deltas(_for_pairs(x, self.base), sums):
            result += delta
        # Else every reader of the sum would add again, and the terms be kept until the last has: now it takes a term's
        # place.
        return result.astype(out) if sums == jnp.float32 else lax.optimization_barrier(result)

    @abstractmethod
    def _deltas(self, x: jax.Array, out: DTypeLike) -> list[jax.Array]:
        """What is added to the product of the base, in that dtype."""

    def dense(self, dtype: DTypeLike) -> Dense:
        raise TypeError("a matrix with adapters chosen by row is no one matrix")

    @property
    def columns(self) -> int:
        return self.base.columns


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class AdaptedRows(_Adapted):
    """A matrix with pairs for blocks of its rows, in their order: one for all, or one for each block."""

    def _deltas(self, x: jax.Array, out: DTypeLike) -> list[jax.Array]:
        return [jnp.concatenate([pair.delta(x, self.slots, out) for pair in self.pairs], axis=-1)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class AdaptedColumns(_Adapted):
    """A matrix with pairs for blocks of its columns, in their order."""

    def _deltas(self, x: jax.Array, out: DTypeLike) -> list[jax.Array]:
        parts = jnp.split(x, list(accumulate(pair.a.shape[-1] for pair in self.pairs))[:-1], axis=-1)
        return [pair.delta(part, self.slots, out) for pair, part in zip(self.pairs, parts, strict=True)]


def _for_pairs(x: jax.Array, base: Weight) -> jax.Array:
    """The x that pairs beside a matrix read.

    XLA joins products of one x. With an array in x's dtype that saves a kernel; a matrix in few bits it would first
    write down in x's dtype.
    """
    return x if isinstance(base, Dense) else lax.optimization_barrier(x)
