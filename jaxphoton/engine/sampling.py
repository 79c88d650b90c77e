"""Sampling on the device: masked, tempered, top-p, with noise that depends on the request alone.

`jaxphoton.oracle_sampling` is the same in plain NumPy and defines the streams and the noise.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

GREEDY_BELOW = 1e-6
TOKEN, COORDINATE, WIDTH, HEIGHT = range(4)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: tuple[jax.Array, jax.Array], first: jax.Array, second: jax.Array) -> jax.Array:
    """First word of Threefry-2x32, 20 rounds (Salmon et al. 2011); all uint32 and broadcastable."""
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = first + keys[0], second + keys[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            a = a + b
            b = (b << jnp.uint32(rotation)) | (b >> jnp.uint32(32 - rotation))
            b = a ^ b
        a = a + keys[(block + 1) % 3]
        b = b + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return a


def gumbel(seed: jax.Array, index: jax.Array, stream: int, columns: int) -> jax.Array:
    """Standard Gumbel noise float32 [B, columns] for seeds uint32 [B] and token numbers int32 [B]."""
    counter = index.astype(jnp.uint32)[:, None] * jnp.uint32(8) + jnp.uint32(stream)
    column = jnp.arange(columns, dtype=jnp.uint32)[None, :]
    key = (seed[:, None], jnp.zeros((1, 1), jnp.uint32))
    words = threefry2x32(key, jnp.broadcast_to(counter, (seed.shape[0], columns)), column)
    uniform = ((words >> jnp.uint32(9)).astype(jnp.float32) + 0.5) * jnp.float32(2**-23)
    return -jnp.log(-jnp.log(uniform))


def top_p_keep(probabilities: jax.Array, top_p: jax.Array) -> jax.Array:
    """bool [B, V]: entries whose preceding mass, in descending order with ties by index, is at most top_p [B].

    Non-negative floats order like their bits, so the smallest kept probability is found by 31 bisection steps over
    the bit pattern; unrolled, because a loop would leave the CUDA graph.
    """
    bits = lax.bitcast_convert_type(probabilities, jnp.int32)
    low = jnp.full(top_p.shape, -1, jnp.int32)  # too much mass lies above this value
    high = jnp.full(top_p.shape, 0x7F800000, jnp.int32)  # not too much above this one
    for _ in range(31):
        middle = low + (high - low) // 2
        above = jnp.sum(jnp.where(bits > middle[:, None], probabilities, 0.0), axis=1)
        enough = above <= top_p
        low, high = jnp.where(enough, low, middle), jnp.where(enough, middle, high)
    threshold = high[:, None]
    above = jnp.sum(jnp.where(bits > threshold, probabilities, 0.0), axis=1, keepdims=True)
    tied = bits == threshold
    rank = (jnp.cumsum(tied.astype(jnp.int32), axis=1) - 1).astype(jnp.float32)
    return (bits > threshold) | (tied & (above + rank * probabilities <= top_p[:, None]))


def choose(
    logits: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    seed: jax.Array,
    index: jax.Array,
    stream: int,
    needed: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draws one entry a row: (int32 [B], its log-probability at temperature 1, float32 [B]).

    logits float32 [B, V], -inf where forbidden; needed bool [B]: rows whose draw is of any use. Noise and top-p are
    computed only if some needed row asks for them.
    """
    greedy = temperature <= GREEDY_BELOW

    def drawn() -> jax.Array:
        logprobs = jax.nn.log_softmax(logits / jnp.where(greedy, 1.0, temperature)[:, None], axis=-1)
        cut = needed & ~greedy & (top_p < 1)
        keep = lax.cond(
            jnp.any(cut), lambda: top_p_keep(jnp.exp(logprobs), top_p), lambda: jnp.ones(logits.shape, bool)
        )
        # Rounded, the mass before the last entries may exceed 1: who wants all of them must not depend on his company.
        keep |= ~cut[:, None]
        noisy = jnp.where(keep, logprobs + gumbel(seed, index, stream, logits.shape[1]), -jnp.inf)
        return jnp.where(greedy[:, None], logits, noisy)

    scores = lax.cond(jnp.any(needed & ~greedy), drawn, lambda: logits)
    chosen = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return chosen, jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), chosen[:, None], axis=1)[:, 0]
