"""Leaves from the host to a device, where a matrix that is to be in few bits never is as a whole in many."""

from __future__ import annotations

import math
from collections.abc import Set
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.layers.quantize import quantize
from jaxphoton.layers.spec import MatrixForm, Spec, abstract, by_path
from jaxphoton.layers.weight import Dense, Weight

Placing = jax.Device | jax.sharding.Sharding | None  # where leaves go; None is the default device

PIECE = 1 << 24  # numbers of a matrix that are quantized at once: in float32 64 MiB


def as_sharding(placing: Placing) -> jax.sharding.Sharding:
    if isinstance(placing, jax.sharding.Sharding):
        return placing
    return jax.sharding.SingleDeviceSharding(placing or jnp.zeros(()).device)  # type: ignore[arg-type]


def put_quantized(matrix: np.ndarray, form: MatrixForm, sharding: jax.sharding.Sharding) -> Weight:
    """A matrix [..., rows, columns] on the device in a form of few bits; it is quantized there in pieces of rows."""
    rows = matrix.reshape(-1, matrix.shape[-1])
    leaves = abstract(form(Spec(matrix.shape, jnp.dtype(matrix.dtype), (None,) * matrix.ndim)))
    shapes, tree = jax.tree.flatten(leaves)
    out = jax.tree.unflatten(tree, [jnp.zeros(leaf.shape, leaf.dtype, device=sharding) for leaf in shapes])
    count = max(1, min(len(rows), PIECE // max(1, rows.shape[1])))
    for start in range(0, len(rows), count):
        # The last piece reaches back over rows that are done: all have one shape, and one program.
        start = min(start, len(rows) - count)
        piece = jax.device_put(np.ascontiguousarray(rows[start : start + count]), sharding)
        # Waiting bounds the memory of the device: launched work keeps its pieces alive.
        out = jax.block_until_ready(_written(out, quantize(piece, form), start))
    return out


@partial(jax.jit, donate_argnums=0)
def _written(whole: Weight, piece: Weight, start: int) -> Weight:
    """The leaves of a weight [..., rows, columns] with these rows, counted through all leading axes."""

    def put(leaf: jax.Array, rows: jax.Array) -> jax.Array:
        behind = rows.shape[1:]
        flat = leaf.reshape(math.prod(leaf.shape[: leaf.ndim - len(behind)]), *behind)
        return jax.lax.dynamic_update_slice_in_dim(flat, rows, start, 0).reshape(leaf.shape)

    return jax.tree.map(put, whole, piece)


def completed(tree: Any, leaves: dict[str, Any]) -> Any:
    """The parameters of an abstract tree; `leaves`, all of its leaves by path, or whole matrices, are taken out."""
    flat = by_path({name: leaves.pop(name) for name in list(leaves)})
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in by_path(tree)])


def in_dtype(params: Any, paths: Set[str], dtype: DTypeLike) -> Any:
    """The parameters with the matrices of these paths as plain ones of `dtype`, made one at a time."""
    if not paths:
        return params
    found, structure = jax.tree.flatten(params, is_leaf=_is_weight)
    names = list(by_path(jax.tree.unflatten(structure, [_Leaf() for _ in found])))
    del params
    for i, name in enumerate(names):
        if name in paths:
            # Waiting lets go of the quantized matrix before the next one takes memory.
            found[i] = jax.block_until_ready(_to_dense(found[i], dtype))
    return jax.tree.unflatten(structure, found)


class _Leaf:
    """Stands for a whole matrix."""


def _is_weight(node: object) -> bool:
    return isinstance(node, Weight)


@partial(jax.jit, static_argnums=1)
def _to_dense(weight: Weight, dtype: DTypeLike) -> Dense:
    return weight.dense(dtype)
