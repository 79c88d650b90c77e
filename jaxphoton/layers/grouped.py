"""Matrices of few bits whose factors belong to groups of a row's columns."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.layers.weight import Dense, Leaf, Weight

PACKED = jnp.dtype(jnp.uint8)  # of the bytes in which int4 is stored


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Grouped(Weight):
    """Numbers of 4 or 8 bits with a factor, and perhaps a zero point, for each group of neighbouring columns.

    The value is (number - zero) * scale, with those of the group that a column is in; a group has columns / groups.

    int4 is signed: what is stored unsigned elsewhere is shifted by 8, with its zero points. It comes two to a byte, the
    first in the low bits. As int4 it would be as small, but jax counts a byte for each, NumPy takes one, and a program
    that was compiled ahead refuses arrays that were put on a device.
    """

    matrix: Leaf  # int8 or float8 [..., rows, columns], uint8 [..., rows, columns / 2] for int4
    scale: Leaf  # bfloat16 or float32 [..., rows, groups]
    zero: Leaf | None = None  # bfloat16 or float32 [..., rows, groups]; None for zeros

    @property
    def numbers(self) -> jax.Array:
        """int4, int8 or float8 [..., rows, columns]; on a device the same memory as `matrix`."""
        return unpack(self.matrix) if self.matrix.dtype == PACKED else self.matrix

    def dense(self, dtype: DTypeLike) -> Dense:
        values = self.values(jnp.float32).astype(dtype)
        return Dense(values.reshape(*values.shape[:-2], -1))

    def values(self, dtype: DTypeLike) -> jax.Array:
        """The matrix [..., rows, groups, columns of a group], computed in `dtype`."""
        values = self.numbers.astype(dtype)
        values = values.reshape(*self.scale.shape, values.shape[-1] // self.scale.shape[-1])
        if self.zero is not None:
            values -= self.zero.astype(dtype)[..., None]
        return values * self.scale.astype(dtype)[..., None]


def pack(numbers: jax.Array) -> jax.Array:
    """int4 [..., n] -> uint8 [..., n / 2]."""
    return lax.bitcast_convert_type(numbers.reshape(*numbers.shape[:-1], -1, 2), PACKED)


def unpack(packed: jax.Array) -> jax.Array:
    """uint8 [..., n] -> int4 [..., 2 n]."""
    return lax.bitcast_convert_type(packed, jnp.int4).reshape(*packed.shape[:-1], -1)
