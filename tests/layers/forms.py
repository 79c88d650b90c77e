"""Matrices in the forms of `jaxphoton.layers.weight`, and in two to come, as a stranger would write them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import jax
import jax.numpy as jnp

from jaxphoton.layers.grouped import Grouped, pack
from jaxphoton.layers.spec import FLOAT8, MatrixForm, by_path, with_forms
from jaxphoton.layers.weight import Dense, RowScaled, Weight


def dense_of(weight: Weight | None) -> Dense:
    """A weight that must be a plain array."""
    assert isinstance(weight, Dense)
    return weight


def scaled_of(weight: Weight | None) -> RowScaled:
    """A weight that must be in 8 bits."""
    assert isinstance(weight, RowScaled)
    return weight


def float8_experts(tree):
    """A tree of specs or shapes with its experts as Moondream 3's float8 files store them."""
    return with_forms(tree, float8_forms(tree))


def float8_forms(tree) -> dict[str, MatrixForm]:
    return {path: FLOAT8 for path in by_path(tree) if path.endswith((".experts.fc1_w", ".experts.fc2_w"))}


def in_int8(matrix: jax.Array) -> RowScaled:
    """The nearest of 255 levels a row."""
    scale = jnp.max(jnp.abs(matrix.astype(jnp.float32)), axis=-1) / 127
    return RowScaled(jnp.round(matrix.astype(jnp.float32) / scale[..., None]).astype(jnp.int8), scale)


def in_float8(matrix: jax.Array) -> RowScaled:
    scale = jnp.max(jnp.abs(matrix.astype(jnp.float32)), axis=-1) / 100
    return RowScaled((matrix.astype(jnp.float32) / scale[..., None]).astype(jnp.float8_e4m3fn), scale)


def in_int4(matrix: jax.Array, group: int = 4) -> Grouped:
    """Two a byte, the nearest of 16 levels between the least and the largest number of a group."""
    grouped = matrix.astype(jnp.float32).reshape(*matrix.shape[:-1], -1, group)
    low, high = grouped.min(-1), grouped.max(-1)
    scale = (high - low) / 15
    levels = jnp.round((grouped - low[..., None]) / scale[..., None]) - 8
    return Grouped(pack(levels.astype(jnp.int4).reshape(matrix.shape)), scale, -low / scale - 8)


def in_int4_symmetric(matrix: jax.Array, group: int = 4) -> Grouped:
    grouped = matrix.astype(jnp.float32).reshape(*matrix.shape[:-1], -1, group)
    scale = (jnp.abs(grouped).max(-1) / 7).astype(jnp.bfloat16)
    levels = jnp.clip(jnp.round(grouped / scale.astype(jnp.float32)[..., None]), -8, 7)
    return Grouped(levels.astype(jnp.int4).reshape(matrix.shape), scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class HStack(Weight):
    """Matrices of the same rows beside each other, the columns of one behind those of the other.

    For parts that cannot lie in one array: rows of the parts have factors of their own, or the forms differ.
    """

    parts: tuple[Weight, ...]

    def einsum(self, equation, x, out=None, product=None):
        widths = [part.columns for part in self.parts]
        fed = jnp.split(x, list(accumulate(widths))[:-1], axis=-1)
        sums = [part.einsum(equation, x, jnp.float32, product) for part, x in zip(self.parts, fed, strict=True)]
        return reduce(jnp.add, sums).astype(out or x.dtype)

    def dense(self, dtype) -> Dense:
        return Dense(jnp.concatenate([part.dense(dtype).matrix for part in self.parts], axis=-1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Adapted(Weight):
    """A matrix with low-rank adapters in slots beside it, one chosen for each row of the batch."""

    base: Weight
    a: jax.Array  # [slots, rank, columns]
    b: jax.Array  # [slots, rows, rank]
    slots: jax.Array  # int32 [B]

    def einsum(self, equation, x, out=None, product=None):
        down = jnp.einsum("btd,brd->btr", x, self.a[self.slots], precision="highest")
        delta = jnp.einsum("btr,bfr->btf", down, self.b[self.slots], precision="highest")
        return self.base.einsum(equation, x, out, product) + delta.astype(out or x.dtype)
