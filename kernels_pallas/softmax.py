"""Parts of a softmax over keys that several places, programs or launches share: what kernels of attention keep.

A part is a maximum (in units of log 2), a sum of weights relative to it, and as many weighted values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from kernels_pallas.triton_shim import pallas_call

LOWEST = float(jnp.finfo(jnp.float32).min) / 2  # finite, so that a difference of two is not NaN
LOG2_E = math.log2(math.e)  # scores are in units of log 2: the hardware has exp2


def attend(q, k, v, visible, top, total, values):
    """Takes in one key a place, each place for itself: q [n, H], k and v [T, n, H], visible bool [T, 1], top and total
    [T, n], values [T, n, H]."""
    scores = jnp.sum(q[None] * k, axis=2)
    new_top = jnp.maximum(top, scores)
    kept = jnp.exp2(top - new_top)
    weights = jnp.where(visible, jnp.exp2(scores - new_top), jnp.float32(0))
    return new_top, total * kept + weights, values * kept[:, :, None] + weights[:, :, None] * v


def merge(tops, totals, values):
    """One part of those of axis 0: [T, n], [T, n], [T, n, H] -> [n], [n], [n, H]; values stay unnormalised."""
    top = jnp.max(tops, axis=0)
    kept = jnp.exp2(tops - top[None])
    return top, jnp.sum(totals * kept, axis=0), jnp.sum(values * kept[:, :, None], axis=0)


def normalise(values, total):
    """A row that saw nothing has a total of 0 and gives zeros."""
    return values / jnp.where(total > 0, total, jnp.float32(1))[..., None]


def combine(parts: Sequence[jax.Array], dtype, *, name: str, block_heads: int, interpret: bool) -> jax.Array:
    """The parts of a row, values [B, S, N, H], tops and totals [B, S, N], as attention output [B, N, H] in `dtype`.

    A kernel, since XLA makes up to four of the plain form, depending on the shape.
    """
    batch, splits, query_heads, head_dim = parts[0].shape
    heads = math.gcd(query_heads, block_heads)

    def kernel(values_ref, tops_ref, totals_ref, out_ref):
        row, block = pl.program_id(0), pl.ds(pl.program_id(1) * heads, heads)
        tops = [tops_ref[row, s, block] for s in range(splits)]
        top = functools.reduce(jnp.maximum, tops)
        total, values = jnp.zeros_like(top), jnp.zeros((heads, head_dim), jnp.float32)
        for s in range(splits):
            kept = jnp.exp2(tops[s] - top)
            total += kept * totals_ref[row, s, block]
            values += kept[:, None] * values_ref[row, s, block, :]
        out_ref[row, block, :] = normalise(values, total).astype(dtype)

    call = pallas_call(
        kernel,
        name=name,
        grid=(batch, query_heads // heads),
        out_shape=jax.ShapeDtypeStruct((batch, query_heads, head_dim), dtype),
        warps=1,
        stages=1,
        interpret=interpret,
    )
    return call(*parts)
