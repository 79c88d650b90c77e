"""Parameters inside a program of which every device of a mesh runs a copy on its own share (`jax.shard_map`).

A matrix whose columns are shared sums its products over the mesh; the vocabulary's rows are gathered. Everything that
is computed twice is computed alike: devices agree without asking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxphoton.layers.mesh import Split
from jaxphoton.layers.moe import ExpertParams
from jaxphoton.layers.spec import DOTTED, Spec
from jaxphoton.layers.weight import Dense, Leaf, Weight

Axes = tuple[str, ...]  # of a mesh


def total(x: jax.Array, axes: Axes, out: DTypeLike | None = None) -> jax.Array:
    """The sum of x over the devices along these axes, made in float32 and rounded once."""
    if not axes:
        return x.astype(out or x.dtype)
    return lax.psum(x.astype(jnp.float32), axes).astype(out or x.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Summed(Weight):
    """A matrix of which a device has some columns, those of the x that it has."""

    base: Weight
    axes: Axes = dataclasses.field(metadata={"static": True})

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        return total(self.base.einsum(equation, x, jnp.float32, product), self.axes, out or x.dtype)

    def dense(self, dtype: DTypeLike) -> Dense:
        raise TypeError("no device has the whole matrix")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Gathered(Weight):
    """A matrix of which a device has some rows, and everybody wants the results of all."""

    base: Weight
    axes: Axes = dataclasses.field(metadata={"static": True})

    def einsum(
        self, equation: str, x: jax.Array, out: DTypeLike | None = None, product: DTypeLike | None = None
    ) -> jax.Array:
        assert equation.endswith(equation.partition(",")[2][0]), f"{equation}: rows are not last"
        own = self.base.einsum(equation, x, out, product)
        return lax.all_gather(own, self.axes, axis=own.ndim - 1, tiled=True)

    def dense(self, dtype: DTypeLike) -> Dense:
        raise TypeError("no device has the whole matrix")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a table that are looked up by number, of which a device has some."""

    rows: Leaf  # [V / devices, D]
    axes: Axes = dataclasses.field(metadata={"static": True})

    @property
    def dtype(self) -> Any:
        return self.rows.dtype

    def __getitem__(self, ids: jax.Array) -> jax.Array:
        count = self.rows.shape[0]
        own = jnp.asarray(ids, jnp.int32) - jnp.int32(count) * place(self.axes)
        here = (own >= 0) & (own < count)
        # One device adds a row, the others zeros: the sum is exact.
        found = jnp.where(here[..., None], self.rows[jnp.clip(own, 0, count - 1)], 0)
        return lax.psum(found, self.axes)


def place(axes: Axes) -> jax.Array:
    """int32: which share along these axes a device has, 0 where nothing is shared."""
    return lax.axis_index(axes) if axes else jnp.int32(0)


def by_shares(function: Callable[[jax.Array], jax.Array], x: jax.Array, axes: Axes) -> jax.Array:
    """A function of rows, [C, ...] -> [C, ...], by the devices along these axes: each takes its share of the rows, all
    get all results."""
    if not axes:
        return function(x)
    count, devices = x.shape[0], lax.axis_size(axes)
    own = -(-count // devices)
    padded = jnp.pad(x, ((0, own * devices - count), *((0, 0),) * (x.ndim - 1)))
    results = function(lax.dynamic_slice_in_dim(padded, place(axes) * own, own))
    return lax.all_gather(results, axes, tiled=True)[:count]


def sum_apart(weight: Weight) -> tuple[Weight, Axes]:
    """A matrix without its sum over the mesh, and the axes of that: to sum it together with something else."""
    return (weight.base, weight.axes) if isinstance(weight, Summed) else (weight, ())


def sharded(params: Any, split: Split, specs: Mapping[str, Spec]) -> Any:
    """A device's share of the parameters, for the length of one program.

    Args:
      params: any tree in which matrices have the paths of `specs`, with or without adapters.
      specs: of plain matrices, by path.
    """

    def here(path: Any, node: Any) -> Any:
        name = jax.tree_util.keystr(path, **DOTTED)
        if isinstance(node, ExpertParams):
            experts = split.over("experts")
            return dataclasses.replace(node, share=experts, summed=(*experts, *split.over("expert_mlp")))
        spec = specs.get(name)
        if spec is None or not any(split.over(axis) for axis in spec.axes):
            return node
        if not isinstance(node, Weight):
            return Table(node, split.over("vocab")) if spec.axes[0] == "vocab" else node
        if columns := split.over(spec.axes[-1]):
            return Summed(node, columns)
        return Gathered(node, split.over("vocab")) if spec.axes[-2] == "vocab" else node

    return jax.tree_util.tree_map_with_path(here, params, is_leaf=lambda node: isinstance(node, Weight | ExpertParams))
