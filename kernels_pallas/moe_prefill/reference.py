"""The experts in plain jax.numpy: the contract that the kernels are compared with, and the way of a CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.expert_pairs import widened
from kernels_pallas.experts import Beside, combined, gated, wide

TOKENS = 32  # of one product: what an expert's last product takes too many is half of that on average

Pair = tuple[jax.Array, jax.Array]  # a [S, R, columns], b [rows, S, R] of one expert


def moe_prefill(
    x: jax.Array, up: jax.Array, down: jax.Array, experts: jax.Array, weights: jax.Array, beside: Beside
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.moe_decode.api`. Everything is computed in float32.

    Choices are sorted by expert, those that are not here last. One expert after the other is widened and takes its
    tokens, TOKENS at a time; the lines that its last product has too many are the next expert's, which overwrites them,
    or nobody's.
    """
    count = experts.size
    numbers = jnp.where(experts < 0, up.shape[0], experts).reshape(-1)
    order = jnp.argsort(numbers, stable=True).astype(jnp.int32)
    sizes = jnp.bincount(numbers, length=up.shape[0]).astype(jnp.int32)
    tokens = order // experts.shape[1]
    lines = jnp.pad(x.astype(jnp.float32)[tokens], ((0, TOKENS), (0, 0)))
    slots = None if beside.slots is None else jnp.pad(beside.slots[tokens], (0, TOKENS))

    def expert(out: jax.Array, given: tuple) -> tuple[jax.Array, None]:
        first, size, up, down, up_scale, down_scale, up_pair, down_pair = given
        wide_up, wide_down = wide(up, up_scale), wide(down, down_scale)

        def product(i: jax.Array, out: jax.Array) -> jax.Array:
            start = first + i * TOKENS
            fed = lax.dynamic_slice_in_dim(lines, start, TOKENS)
            own = None if slots is None else lax.dynamic_slice_in_dim(slots, start, TOKENS)
            mixed = _feed(fed, wide_up, wide_down, up_pair, down_pair, own)
            return lax.dynamic_update_slice_in_dim(out, mixed, start, axis=0)

        return lax.fori_loop(0, (size + TOKENS - 1) // TOKENS, product, out), None

    pairs = [None if each is None else each.here() for each in (beside.up_pairs, beside.down_pairs)]
    # Scanning takes each expert's matrices out by themselves: at any time one expert is widened.
    given = (jnp.cumsum(sizes) - sizes, sizes, up, down, *beside[:2], *pairs)
    out, _ = lax.scan(expert, jnp.zeros((count + TOKENS, x.shape[1]), jnp.float32), given)
    each = jnp.zeros((count, x.shape[1]), jnp.float32).at[order].set(out[:count], unique_indices=True)
    return combined(each, experts, weights).astype(x.dtype)


def _feed(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    up_pair: Pair | None,
    down_pair: Pair | None,
    slots: jax.Array | None,
) -> jax.Array:
    """x [TOKENS, D] through one expert, whose matrices and pairs these are; slots int32 [TOKENS]."""
    both = jnp.einsum("td,nd->tn", x, up, precision="highest") + _delta(up_pair, slots, x)
    fed = gated(*jnp.split(both, 2, axis=1))
    return jnp.einsum("ti,di->td", fed, down, precision="highest") + _delta(down_pair, slots, fed)


def _delta(pair: Pair | None, slots: jax.Array | None, x: jax.Array) -> jax.Array | float:
    return 0.0 if pair is None or slots is None else widened(pair, slots, x)
