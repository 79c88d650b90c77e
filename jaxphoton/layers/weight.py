"""Matrices that apply themselves, whatever form they are stored in, at the precision that the input's dtype promises.

A network multiplies by a `Weight` and does not ask what it is: a dense array, an array of few bits with the factors of
its rows (`RowScaled`) or of groups of its columns (`jaxphoton.layers.grouped`). A form is a registered dataclass of
arrays and nothing else: anything static would be compared at every launch of a program, and a decode step has a hundred
of them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

Leaf = Any  # jax.Array, or what describes one (jax.ShapeDtypeStruct, `jaxphoton.layers.spec.Spec`)


class Weight:
    """A matrix [..., rows, columns], the layout of checkpoints; leading axes are layers or experts."""

    __slots__ = ()

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        """`jnp.einsum(equation, x, matrix)`, contracted over the columns.

        Args:
          equation: of two operands; the columns are the last label of the second.
          out: dtype of the result, by default x's.
          product: dtype in which the sums of products leave the matrix unit, before any factor is applied to them;
            by default the form's choice, which loses nothing beside `out`.
        """
        return self.dense(x.dtype).einsum(equation, x, out, product)

    @abstractmethod
    def dense(self, dtype: DTypeLike) -> Dense:
        """The same matrix as an array of `dtype`, each value rounded once."""

    @property
    def columns(self) -> int:
        """The size of the last axis."""
        return jax.eval_shape(lambda weight: weight.dense(jnp.float32).matrix, self).shape[-1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Dense(Weight):
    """A plain array in the model's dtype."""

    matrix: Leaf  # [..., rows, columns]

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        out = out or x.dtype
        return einsum(equation, x, self.matrix, out=product or out).astype(out)

    def dense(self, dtype: DTypeLike) -> Dense:
        return Dense(self.matrix.astype(dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class RowScaled(Weight):
    """An array of 8-bit numbers (float8, int8) and a factor a row: the value is matrix[..., i, j] * scale[..., i].

    The factors meet the sums of products, not the matrix: it is read in 8 bits and widened on its way.
    """

    matrix: Leaf  # [..., rows, columns]
    scale: Leaf  # float32 [..., rows]

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        sums = einsum(equation, x, self.matrix.astype(x.dtype), out=product or jnp.float32).astype(jnp.float32)
        return (sums * _along(equation, self.scale, sums.ndim)).astype(out or x.dtype)

    def dense(self, dtype: DTypeLike) -> Dense:
        return Dense((self.matrix.astype(jnp.float32) * self.scale[..., None]).astype(dtype))


def matmul(x: jax.Array, weight: Weight, out: DTypeLike | None = None) -> jax.Array:
    """x [..., columns] times a weight [rows, columns] -> [..., rows] in `out`, by default x's dtype."""
    return weight.einsum("...d,fd->...f", x, out)


def linear(x: jax.Array, weight: Weight, bias: jax.Array, out: DTypeLike | None = None) -> jax.Array:
    """`matmul` plus bias [rows]."""
    return add_bias(matmul(x, weight, out), bias)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., D] plus bias [D]."""
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + bias.shape)


def einsum(equation: str, *operands: jax.Array, out: DTypeLike | None = None) -> jax.Array:
    """`jnp.einsum` of arrays at the precision its dtype promises; `out` is the accumulated result's dtype."""
    dtype = operands[0].dtype
    return jnp.einsum(equation, *operands, precision=precision_for(dtype), preferred_element_type=out or dtype)


def precision_for(dtype: jnp.dtype) -> lax.Precision | None:
    """Highest for float32 (recent GPUs would use TF32 by default), the default for everything else."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _along(equation: str, scale: jax.Array, ndim: int) -> jax.Array:
    """The factors of rows, so shaped that they multiply the result of `equation`, which has `ndim` axes."""
    operands, _, result = equation.partition("->")
    sizes = dict(zip(operands.split(",")[1][:-1], scale.shape, strict=True))
    labels = result.replace("...", "")
    assert [label for label in labels if label in sizes] == list(sizes), f"{equation}: rows in another order"
    return scale.reshape((1,) * (ndim - len(labels)) + tuple(sizes.get(label, 1) for label in labels))
