"""Leaves from the host to devices, where a matrix that is to be in few bits never is as a whole in many."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Callable, Set
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.layers.quantize import quantize
from jaxphoton.layers.spec import GroupedForm, MatrixForm, Spec, by_path
from jaxphoton.layers.weight import Dense, Weight
from jaxphoton.weights.layout import Layout, Ranges, Share, cut, length, shape_of

PIECE = 1 << 24  # numbers of a matrix that are quantized at once: in float32 64 MiB

Read = Callable[[Ranges], np.ndarray]  # what lies in these ranges of a leaf, in memory of its own


def put(read: Read, spec: Spec, layout: Layout, stored: Spec | None = None) -> jax.Array:
    """A leaf on its devices, a share at a time.

    Args:
      stored: what the leaf is there, where `read` packs what it reads.
    """
    parts = []
    for share in layout.shares(spec):
        buffer = read(share.ranges)
        # Waiting bounds host memory: a transfer in flight keeps its buffer alive. A finished one leaves it to a list of
        # garbage, which every run of the collector empties.
        parts += [jax.block_until_ready(jax.device_put(buffer, device)) for device in share.devices]
        del buffer
        gc.collect(0)
    return _joined(parts, stored or spec, layout)


def put_quantized(read: Read, spec: Spec, form: MatrixForm, stored: Any, layout: Layout) -> Weight:
    """A matrix [..., rows, columns] on its devices in a form of few bits; it is quantized there in pieces.

    Args:
      spec: of the plain matrix.
      stored: the specs of its leaves, whose groups may be smaller than those of the form: neighbours then have one
        factor, that of the whole group.
    """
    specs, tree = jax.tree.flatten(stored)
    parts: list[list[jax.Array]] = [[] for _ in specs]
    for share in layout.shares(spec):
        made = jax.tree.leaves(_quantized_share(read, spec, form, stored, share, layout))
        for one, leaf in zip(parts, made, strict=True):
            one += [jax.block_until_ready(jax.device_put(leaf, device)) for device in share.devices]
    return jax.tree.unflatten(tree, [_joined(one, leaf, layout) for one, leaf in zip(parts, specs, strict=True)])


def _joined(parts: list[jax.Array], spec: Spec, layout: Layout) -> jax.Array:
    return jax.make_array_from_single_device_arrays(spec.shape, layout.sharding(spec), parts)


def _quantized_share(read: Read, spec: Spec, form: MatrixForm, stored: Any, share: Share, layout: Layout) -> Weight:
    """What some devices have of a matrix, on the first of them. Where a factor is of columns that others have too, it
    is made of all of them."""
    (*front, columns), device = share.ranges, share.devices[0]
    picks = None
    if columns != ((0, spec.shape[-1]),) and not _own_groups(form, stored):
        picks = _picks(columns, form, stored)
        columns = ((0, spec.shape[-1]),)

    def empty(leaf: Spec) -> jax.Array:
        return jnp.zeros(layout.sharding(leaf).shard_shape(leaf.shape), leaf.dtype, device=device)

    out = jax.tree.map(empty, stored)
    rows = length(front[0])
    count = max(1, min(rows, PIECE // max(1, math.prod(shape_of((*front[1:], columns))))))
    for start in range(0, rows, count):
        # The last piece reaches back over rows that are done: all have one shape, and one program.
        start = min(start, rows - count)
        piece = jax.device_put(read((cut(front[0], start, start + count), *front[1:], columns)), device)
        # Waiting bounds the memory of the device: launched work keeps its pieces alive.
        out = jax.block_until_ready(_written(out, quantize(piece, form), start, picks))
        del piece
        gc.collect(0)
    return out


def _own_groups(form: MatrixForm, stored: Any) -> bool:
    """Whether no group of a form lies on two devices."""
    return isinstance(form, GroupedForm) and _columns(form, stored) == form.group * stored.scale.shape[-1]


def _columns(form: MatrixForm, stored: Any) -> int:
    return stored.matrix.shape[-1] * (2 if form.dtype == "int4" else 1)


def _picks(columns: tuple[tuple[int, int], ...], form: MatrixForm, stored: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Where in whole rows a device's numbers lie (of int4 pairs of them), and their factors."""
    numbers = np.concatenate([np.arange(*each, dtype=np.int32) for each in columns])
    matrix = numbers[::2] // 2 if form.dtype == "int4" else numbers
    if not isinstance(form, GroupedForm):
        return matrix, None
    group = _columns(form, stored) // stored.scale.shape[-1]
    return matrix, numbers[::group] // form.group


@partial(jax.jit, donate_argnums=0)
def _written(whole: Weight, piece: Weight, start: int, picks: tuple[jax.Array, jax.Array | None] | None) -> Weight:
    """A weight with this piece of it, from place `start` of its first axis on."""
    if picks is not None:
        piece = _picked(piece, *picks)
    return jax.tree.map(lambda leaf, rows: jax.lax.dynamic_update_slice_in_dim(leaf, rows, start, 0), whole, piece)


def _picked(piece: Any, matrix: jax.Array, factors: jax.Array | None) -> Weight:
    """Some columns of a weight, and some of its factors if these are of columns too."""
    scale = piece.scale if factors is None else piece.scale[..., factors]
    return dataclasses.replace(piece, matrix=piece.matrix[..., matrix], scale=scale)


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
