"""Pairs of low rank beside the matrices of experts, of which every token takes those in one slot, or none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.triton_shim import dot, load


class Pairs(NamedTuple):
    """The pairs of one matrix of each expert of some layers, in S slots: b @ (a @ x) is added to its product with x."""

    a: jax.Array  # [L, E, S, R, columns]
    b: jax.Array  # [L, E, rows, S, R]
    layer: int

    def here(self) -> tuple[jax.Array, jax.Array]:
        """Those of the layer."""
        return self.a[self.layer], self.b[self.layer]


def pairs_of(a: jax.Array | None, b: jax.Array | None, layer: int) -> Pairs | None:
    return None if a is None or b is None else Pairs(a, b, layer)


def narrow(pairs: Pairs, experts: jax.Array, slots: jax.Array, x: jax.Array) -> jax.Array:
    """a @ x of each choice, float32 [..., R].

    For experts and slots int32 [...], both of choices, and x that broadcasts to [..., columns]; of a choice without a
    slot, or not here, it is anything. Written as a sum, which XLA computes where it reads the chosen `a`: for a product
    it would write them down.
    """
    layers, count, each = pairs.a.shape[:3]
    # All layers' in one row: a slice of them would be written down.
    every = pairs.a.reshape(layers * count * each, *pairs.a.shape[3:])
    chosen = every.at[(pairs.layer * count + jnp.maximum(experts, 0)) * each + jnp.maximum(slots, 0)]
    a = chosen.get(mode="promise_in_bounds").astype(jnp.float32)
    return jnp.sum(a * x[..., None, :].astype(jnp.float32), axis=-1)


def widened(pair: tuple[jax.Array, jax.Array], slots: jax.Array, x: jax.Array) -> jax.Array:
    """b @ (a @ x) of one expert's pairs, float32 [N, rows], for slots int32 [N] and x float32 [N, columns]."""
    a, b = (matrix.astype(jnp.float32) for matrix in pair)
    down = jnp.einsum("nd,srd->nsr", x, a, precision="highest")
    own = slots[:, None, None] == lax.iota(jnp.int32, a.shape[0])[None, :, None]
    # Selected, not multiplied: what another's pair makes of this token may overflow.
    return jnp.einsum("nsr,fsr->nf", jnp.where(own, down, 0), b, precision="highest")


@partial(jax.tree_util.register_dataclass, data_fields=("narrow", "b", "slots"), meta_fields=("first",))
@dataclass(frozen=True, slots=True)
class Added:
    """What a kernel adds to its products, as it reads it."""

    narrow: Any  # float32 [T * k, R], a line a line of its input
    b: Any  # [L * E, rows, S * R]
    slots: Any  # int32 [T]
    first: int  # where the layer's experts begin


def added(pairs: Pairs, experts: jax.Array, slots: jax.Array, of_tokens: jax.Array, x: jax.Array) -> Added:
    """For experts int32 [...] of choices, slots int32 [...] of theirs and [T] of tokens, and x as in `narrow`."""
    lines = narrow(pairs, experts, slots, x)
    layers, count, rows = pairs.b.shape[:3]
    b = pairs.b.reshape(layers * count, rows, -1)
    return Added(lines.reshape(-1, lines.shape[-1]), b, of_tokens, pairs.layer * count)


def factors_of(
    add: Added, expert: Any, blocks: tuple[Any, ...], lines: jax.Array, tokens: jax.Array, dtype: Any
) -> tuple[jax.Array, list[jax.Array]]:
    """In a kernel: (x [N, K], b [rows, K] for each block of rows), whose products are to be added.

    Lines int32 [N] are those of `add.narrow`, tokens theirs; tokens behind the last give zeros. Row by row only the
    columns of the token's slot are not zero.
    """
    rank, width = add.narrow.shape[1], add.b.shape[2]
    column = lax.iota(jnp.int32, max(16, pl.next_power_of_2(width)))  # a dot takes no fewer
    inside = tokens < add.slots.shape[0]
    slot = load(add.slots.at[tokens], mask=inside, other=-1)
    own = (slot[:, None] == lax.div(column, rank)[None, :]) & (column < width)[None, :]
    x = load(add.narrow.at[lines[:, None], lax.rem(column, rank)[None, :]], mask=own, other=0).astype(dtype)
    b = []
    for block in blocks:
        rows = block.start + lax.iota(jnp.int32, block.size)
        b.append(
            load(add.b.at[add.first + expert, rows[:, None], column[None, :]], mask=(column < width)[None, :], other=0)
        )
    return x, b


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """In a kernel: x [N, K] times y [M, K], float32 [N, M]."""
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return dot(x, y, trans_b=True, precision=precision)
