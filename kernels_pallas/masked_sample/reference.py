"""Sampling in jax.numpy: the contract of `masked_sample`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.masked_sample import threefry

GREEDY_BELOW = 1e-6  # temperatures up to here mean argmax


# Jitted, as `_halved` is, for the time that an engine takes to start: draws of one shape are traced once.
@partial(jax.jit, static_argnames="loop")
def masked_sample(
    logits: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    seed: jax.Array,
    index: jax.Array,
    *,
    stream: int | jax.Array,
    table: jax.Array | None,
    state: jax.Array | None,
    mask: jax.Array | None,
    needed: jax.Array,
    loop: bool,
) -> tuple[jax.Array, jax.Array]:
    """See `api.masked_sample`. Noise and top-p are computed only if some needed row asks for them. `loop` is that of
    `top_p_keep`."""
    words = None if table is None or state is None else table[state]
    if mask is not None:
        words = mask if words is None else words & mask
    logits = logits.astype(jnp.float32)
    if words is not None:
        logits = jnp.where(unpack(words, logits.shape[1]), logits, -jnp.inf)
    greedy = temperature <= GREEDY_BELOW

    def drawn() -> jax.Array:
        scaled = shifted(logits) / jnp.where(greedy, 1.0, temperature)[:, None]
        cut = needed & ~greedy & (top_p < 1)
        keep = lax.cond(
            jnp.any(cut),
            lambda: top_p_keep(logits, jnp.exp(scaled), top_p, loop),
            lambda: jnp.ones(logits.shape, bool),
        )
        # Rounded, the mass before the last entries may exceed 1: who wants all of them must not depend on his company.
        keep |= ~cut[:, None]
        noisy = jnp.where(keep, scaled + gumbel(seed, index, stream, logits.shape[1]), -jnp.inf)
        return jnp.where(greedy[:, None], logits, noisy)

    scores = lax.cond(jnp.any(needed & ~greedy), drawn, lambda: logits)
    token = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return token, jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), token[:, None], axis=1)[:, 0]


def unpack(words: jax.Array, columns: int) -> jax.Array:
    """bool [B, columns] of bits packed in uint32 [B, ceil(columns / 32)], the lowest bit first."""
    column = jnp.arange(columns, dtype=jnp.uint32)[None, :]
    return (jnp.repeat(words, 32, axis=1)[:, :columns] >> (column % jnp.uint32(32))) & jnp.uint32(1) > 0


def shifted(values: jax.Array) -> jax.Array:
    """float32 [B, V] less the largest of its row; -inf stays -inf, also where nothing else is.

    Exact where it matters, near the largest. Scores need no more: a log-softmax would add the rounding of a sum.
    """
    largest = jnp.max(values, axis=1, keepdims=True)
    return values - jnp.where(largest == -jnp.inf, 0.0, largest)


def gumbel(seed: jax.Array, index: jax.Array, stream: int | jax.Array, columns: int) -> jax.Array:
    """Standard Gumbel noise float32 [B, columns] for seeds uint32 [B], token numbers int32 [B] and their streams, one
    for all or int32 [B]."""
    column = jnp.arange(columns, dtype=jnp.uint32)[None, :]
    return threefry.gumbel(seed[:, None], threefry.counter(index, stream)[:, None], column)


def top_p_keep(values: jax.Array, weights: jax.Array, top_p: jax.Array, loop: bool) -> jax.Array:
    """bool [B, V]: entries whose preceding share of the weights, by descending value, is at most top_p [B].

    Equal values rank by index; weights are non-negative and grow with the values. The smallest kept value is found by
    bisection over the bit pattern, whose order is that of floats: as a `loop`, or written out, because a loop would
    leave a CUDA graph. On a CPU that is most of a step's code, which takes a second to load.
    """
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)  # -0 and 0 are one value
    bits = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    limit = top_p * jnp.sum(weights, axis=1)
    low = jnp.full(top_p.shape, -(2**31), jnp.int32)  # too much weight lies above this value
    high = jnp.full(top_p.shape, 0x7F800000, jnp.int32)  # not too much above this one
    halve = partial(_halved, bits, weights, limit)
    if loop:
        low, high = lax.fori_loop(0, 32, lambda _, borders: halve(*borders), (low, high))
    else:
        for _ in range(32):
            low, high = halve(low, high)
    threshold = high[:, None]
    above = _weight(weights, bits > threshold)[:, None]
    tied = bits == threshold
    rank = (jnp.cumsum(tied.astype(jnp.int32), axis=1) - 1).astype(jnp.float32)
    return (bits > threshold) | (tied & (above + rank * weights <= limit[:, None]))


@jax.jit
def _halved(
    bits: jax.Array, weights: jax.Array, limit: jax.Array, low: jax.Array, high: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One turn of the bisection in `top_p_keep`."""
    middle = (low & high) + ((low ^ high) >> 1)  # their mean, without overflow
    enough = _weight(weights, bits > middle[:, None]) <= limit
    return jnp.where(enough, low, middle), jnp.where(enough, middle, high)


def _weight(weights: jax.Array, chosen: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(chosen, weights, 0.0), axis=1)
