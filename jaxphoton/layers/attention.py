"""Attention masks and the plain attention that every faster form is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.layers.weight import einsum
from kernels_pallas.dispatch import Index

TEXT_BLOCK = -1
Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # q, k, v [B, T, N, H], everything visible

# attend(layer, q, k, v, cache) -> (attention output [B, T, N, H], cache): the seam between a network and whatever holds
# its keys and values.
Attend = Callable[[Index, jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def prefix_blocks(positions: jax.Array, prefix_length: jax.Array) -> jax.Array:
    """Block ids of positions [B, T] for prompts whose first prefix_length [B] positions form one image block."""
    return jnp.where(positions < prefix_length[:, None], 0, TEXT_BLOCK).astype(jnp.int32)


def block_mask(
    query_positions: jax.Array, key_positions: jax.Array, query_blocks: jax.Array, key_blocks: jax.Array
) -> jax.Array:
    """Causal attention, except that the positions of one image block see each other both ways.

    Positions and blocks are int32, queries [B, T], keys [B, S]; text has block -1, and BOS belongs to the block
    of an image directly behind it. Returns bool [B, T, S], True where a query may attend.
    """
    causal = key_positions[:, None, :] <= query_positions[:, :, None]
    same = key_blocks[:, None, :] == query_blocks[:, :, None]
    return causal | (same & (query_blocks != TEXT_BLOCK)[:, :, None])


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Softmax attention with grouped heads, scores and softmax in float32.

    q [B, T, N, H], k and v [B, S, K, H] with N a multiple of K, mask bool [B, T, S] (None: everything).
    Returns [B, T, N, H] in q's dtype. Scores are scaled by H^-0.5.
    """
    rows, tokens, heads, head_dim = q.shape
    grouped = q.reshape(rows, tokens, k.shape[2], heads // k.shape[2], head_dim)
    scores = einsum("btkgh,bskh->bkgts", grouped, k, out=jnp.float32) * head_dim**-0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :, :], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return einsum("bkgts,bskh->btkgh", weights, v).reshape(q.shape)


def attend_by_head(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`attend` without a mask, one row and key/value head behind the other: on a CPU.

    The scores of one head stay in the caches. Those of all heads do not, and XLA's batched products transpose them.
    """
    rows, tokens, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    grouped = q.reshape(rows, tokens, kv_heads, -1, head_dim)
    parts = (grouped.transpose(0, 2, 3, 1, 4), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3))

    def head(one: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q, k, v = one  # [G, T, H], [S, H], [S, H]
        scores = einsum("gth,sh->gts", q, k, out=jnp.float32) * head_dim**-0.5
        return einsum("gts,sh->gth", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)

    out = lax.map(head, jax.tree.map(lambda x: x.reshape(rows * kv_heads, *x.shape[2:]), parts))
    return out.reshape(rows, heads, tokens, head_dim).transpose(0, 2, 1, 3)


def cudnn_attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`attend` without a mask through cuDNN: NVIDIA GPUs, bfloat16, head dims that are multiples of 8."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
