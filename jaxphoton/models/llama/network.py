"""Text decoder (Llama): attention, then an MLP, each behind an RMSNorm; all of it causal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.layers.attention import Attend
from jaxphoton.layers.mlp import silu
from jaxphoton.layers.norms import rms_norm
from jaxphoton.layers.rope import llama3_scaled, rotary_frequencies, rotary_tables, rotate
from jaxphoton.layers.tracing import traced_once
from jaxphoton.layers.weight import matmul
from jaxphoton.models.llama.config import TextConfig
from jaxphoton.models.llama.params import TextLayer, TextParams
from jaxphoton.models.protocol import IMAGE, AttendJoined
from kernels_pallas.dispatch import Index


def frequencies(config: TextConfig) -> np.ndarray:
    """Of the rotary positions, float64 [H / 2]."""
    rope, plain = config.rope, rotary_frequencies(config.head_dim, config.rope.rope_theta)
    if rope.rope_type == "default":
        return plain
    low, high = rope.low_freq_factor, rope.high_freq_factor
    return llama3_scaled(plain, rope.factor, low, high, rope.original_max_position_embeddings)


def embed(params: TextParams, ids: jax.Array, images: jax.Array | None = None) -> jax.Array:
    """Input embeddings [B, T, D] of ids int32 [B, T]; the i-th IMAGE of a row takes its embedding i of [B, I, D]."""
    with jax.named_scope("inputs"):
        x = params.wte[jnp.maximum(ids, 0)]
        if images is None:
            return x
        here = ids == IMAGE
        place = jnp.maximum(jnp.cumsum(here, axis=1, dtype=jnp.int32) - 1, 0)[..., None]
        return jnp.where(here[..., None], jnp.take_along_axis(images, place, axis=1, mode="clip"), x)


def forward(
    params: TextParams,
    config: TextConfig,
    x: jax.Array,
    positions: jax.Array,
    attend: Attend,
    cache: Any,
    trace: list[jax.Array] | None = None,
    attend_joined: AttendJoined | None = None,
) -> tuple[jax.Array, Any]:
    """Runs all blocks.

    Args:
      x: input embeddings [B, T, D].
      positions: int32 [B, T], counted from BOS = 0.
      attend: writes k and v of one layer into the cache and attends.
      cache: passed through `attend`.
      trace: filled with the output of every block.
      attend_joined: in place of `attend` in a step, from q, k and v as they lie in one product, not turned yet.

    Returns:
      (hidden [B, T, D] after the last block, before the final norm; cache).
    """
    tables = rotary_tables(positions, frequencies(config))

    def block(layer: TextLayer, index: Index, x: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        with jax.named_scope("attention"):
            h = rms_norm(x, params.norm[index, 0], config.rms_norm_eps)
            out, cache = _attended(config, index, matmul(h, layer.qkv_w), tables, attend, cache, attend_joined)
            x = x + matmul(out.reshape(*x.shape[:2], -1), layer.out_w)
        with jax.named_scope("mlp"):
            return x + _mlp(layer, rms_norm(x, params.norm[index, 1], config.rms_norm_eps)), cache

    block = traced_once(block, x)
    for index, layer in enumerate(params.layers):
        with jax.named_scope(f"layer_{index}"):
            x, cache = block(layer, index, x, cache)
        if trace is not None:
            trace.append(x)
    return x, cache


def _attended(
    config: TextConfig,
    index: Index,
    qkv: jax.Array,
    tables: tuple[jax.Array, jax.Array],
    attend: Attend,
    cache: Any,
    attend_joined: AttendJoined | None,
) -> tuple[jax.Array, Any]:
    """qkv [B, T, (N + 2 K) H] -> (what its heads attended to, cache)."""
    if attend_joined is not None:
        cos, sin = (table[:, 0, 0] for table in tables)
        return attend_joined(index, qkv[:, 0], cos, sin, None, cache)
    q, k, v = _split_heads(config, qkv)
    return attend(index, rotate(q, *tables), rotate(k, *tables), v, cache)


def final_norm(params: TextParams, config: TextConfig, hidden: jax.Array) -> jax.Array:
    return rms_norm(hidden, params.post_norm, config.rms_norm_eps)


def logits(params: TextParams, config: TextConfig, hidden: jax.Array) -> jax.Array:
    """Last-block hidden states [..., D] -> float32 logits [..., V]."""
    with jax.named_scope("lm_head"):
        return matmul(final_norm(params, config, hidden), params.lm_head_w, jnp.float32)


def _mlp(layer: TextLayer, h: jax.Array) -> jax.Array:
    gate, values = jnp.split(matmul(h, layer.up_w), 2, axis=-1)  # all of both, or a device's share of each
    return matmul(silu(gate) * values, layer.down_w)


def _split_heads(config: TextConfig, qkv: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """qkv [B, T, (N + 2 K) H], ordered q | k | v -> q [B, T, N, H], k and v [B, T, K, H]."""
    heads = qkv.reshape(*qkv.shape[:2], -1, config.head_dim)
    group = config.num_attention_heads // config.num_key_value_heads
    kv = heads.shape[2] // (group + 2)  # all of them, or those of a device of a mesh
    n = group * kv
    return heads[:, :, :n], heads[:, :, n : n + kv], heads[:, :, n + kv :]
