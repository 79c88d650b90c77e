"""Matrices of few bits whose factors belong to groups of a row's columns."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.layers.weight import Dense, Leaf, Weight


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Grouped(Weight):
    """Numbers of 4 or 8 bits with a factor, and perhaps a zero point, for each group of neighbouring columns.

    The value is (matrix - zero) * scale, with those of the group that a column is in; a group has columns / groups.
    int4 is signed: what is stored unsigned elsewhere is shifted by 8, with its zero points.
    """

    matrix: Leaf  # int4, int8 or float8 [..., rows, columns]
    scale: Leaf  # bfloat16 or float32 [..., rows, groups]
    zero: Leaf | None = None  # as scale; None for zeros

    def dense(self, dtype: DTypeLike) -> Dense:
        return Dense(self.values(jnp.float32).astype(dtype).reshape(self.matrix.shape))

    def values(self, dtype: DTypeLike) -> jax.Array:
        """The matrix [..., rows, groups, columns of a group], computed in `dtype`."""
        shape = (*self.scale.shape, self.matrix.shape[-1] // self.scale.shape[-1])
        values = self.matrix.astype(dtype).reshape(shape)
        if self.zero is not None:
            values -= self.zero.astype(dtype)[..., None]
        return values * self.scale.astype(dtype)[..., None]
