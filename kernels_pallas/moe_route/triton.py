"""The router as two Pallas-Triton kernels: parts of the product, and the choice among their sums.

The product is tiny and waits for memory, so its columns are spread over the multiprocessors. The choice is a rank: how
many logits of the token come before one. That takes no loop over the best, and every place is written, NaN or not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels_pallas.dispatch import Index
from kernels_pallas.triton_shim import dot, load, pallas_call, store

TOKENS = 16  # the fewest that a dot takes
BYTES = 256  # of a row at a time, and at least so many are a part
MOST_EXPERTS = 256  # a program ranks all against all
WARPS = 4


def refusals(router: jax.Array) -> list[str]:
    """Why the kernels cannot take these shapes on any device."""
    experts, width = router.shape
    reasons = [f"{width} columns are not a multiple of 16"] if width % 16 else []
    return reasons + ([f"{experts} experts are more than {MOST_EXPERTS}"] if experts > MOST_EXPERTS else [])


def moe_route(
    x: jax.Array, router: jax.Array, bias: jax.Array, *, top: int, row: Index, cores: int, interpret: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shapes and meaning as in `kernels_pallas.moe_route.api`; `cores` to spread the product over."""
    tokens, (experts, width) = len(x), router.shape
    columns = min(width & -width, BYTES // x.dtype.itemsize)
    groups = -(-tokens // TOKENS)
    parts = _parts(width // columns, -(-cores // groups))
    product = pallas_call(
        partial(_part, columns),
        name="moe_route_parts",
        grid=(groups, parts),
        out_shape=jax.ShapeDtypeStruct((parts, tokens, experts), jnp.float32),
        warps=WARPS,
        stages=3,
        interpret=interpret,
    )
    choice = pallas_call(
        _choose,
        name="moe_route_choose",
        grid=(tokens,),
        out_shape=(
            jax.ShapeDtypeStruct((tokens, experts), jnp.float32),
            jax.ShapeDtypeStruct((tokens, top), jnp.int32),
            jax.ShapeDtypeStruct((tokens, top), jnp.float32),
        ),
        warps=WARPS,
        stages=1,
        interpret=interpret,
    )
    # The row is an operand, so that one kernel serves all layers.
    return choice(jnp.full((1,), row, jnp.int32), product(x, router), bias)


def _parts(blocks: int, wanted: int) -> int:
    """The largest power of two that divides `blocks`, `wanted` at most."""
    return min(blocks & -blocks, 2 ** (wanted.bit_length() - 1))


def _part(columns: int, x_ref: Any, router_ref: Any, parts_ref: Any) -> None:
    """Writes logits of TOKENS tokens over one part of the columns."""
    group, part = pl.program_id(0), pl.program_id(1)
    (count, experts), width = parts_ref.shape[1:], x_ref.shape[1] // parts_ref.shape[0]
    tokens = group * TOKENS + lax.iota(jnp.int32, TOKENS)
    lines = lax.iota(jnp.int32, max(TOKENS, pl.next_power_of_2(experts)))
    # Without it float32 would be TF32.
    precision = lax.Precision.HIGHEST if x_ref.dtype == jnp.float32 else None

    def step(i: Any, total: jax.Array) -> jax.Array:
        place = part * width + i * columns + lax.iota(jnp.int32, columns)
        x = load(x_ref.at[tokens[:, None], place[None, :]], mask=tokens[:, None] < count, other=0)
        router = load(router_ref.at[lines[:, None], place[None, :]], mask=lines[:, None] < experts, other=0)
        return total + dot(x, router, trans_b=True, precision=precision)

    total = lax.fori_loop(0, width // columns, step, jnp.zeros((TOKENS, len(lines)), jnp.float32))
    inside = (tokens[:, None] < count) & (lines[None, :] < experts)
    store(parts_ref.at[part, tokens[:, None], lines[None, :]], total, mask=inside)


def _choose(row_ref, parts_ref, bias_ref, logits_ref, experts_ref, weights_ref) -> None:
    """Sums one token's parts, ranks its logits and weighs the best."""
    token, (count, top) = pl.program_id(0), (logits_ref.shape[1], experts_ref.shape[1])
    expert = lax.iota(jnp.int32, pl.next_power_of_2(count))
    real = expert < count
    logits = load(bias_ref.at[row_ref[0], expert], mask=real, other=0).astype(jnp.float32)
    total = jnp.zeros_like(logits)
    for part in range(parts_ref.shape[0]):
        total += load(parts_ref.at[part, token, expert], mask=real, other=0)
    logits = total + logits
    store(logits_ref.at[token, expert], logits, mask=real)
    # NaN is the best, as `lax.top_k` has it, and what is behind the last expert the worst.
    key = jnp.where(real, jnp.where(logits == logits, logits, jnp.inf), -jnp.inf)
    before = (key[None, :] > key[:, None]) | ((key[None, :] == key[:, None]) & (expert[None, :] < expert[:, None]))
    rank = jnp.sum(before.astype(jnp.int32), axis=1)
    chosen = real & (rank < top)
    # The places of the others, outside, differ from those that are written.
    place = jnp.where(chosen, rank, top)
    store(experts_ref.at[token, place], expert, mask=chosen)
    best = jnp.max(jnp.where(chosen, logits, -jnp.inf))
    shares = jnp.where(chosen, jnp.exp(logits - best), 0.0)
    store(weights_ref.at[token, place], shares / jnp.sum(shares), mask=chosen)
