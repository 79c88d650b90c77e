"""Text decoder: parallel attention and MLP blocks behind one LayerNorm each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.config import TextConfig
from jaxphoton.model.layers import layer_norm, linear, mlp
from jaxphoton.model.params import TextParams

# attend(layer, q, k, v, cache) -> (attention output [B, T, N, H], cache): the seam between the network and
# whatever holds the keys and values.
Attend = Callable[[int, jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def forward(
    params: TextParams,
    config: TextConfig,
    x: jax.Array,
    positions: jax.Array,
    attend: Attend,
    cache: Any,
    trace: list[jax.Array] | None = None,
) -> tuple[jax.Array, Any]:
    """Runs all blocks.

    Args:
      x: input embeddings [B, T, D].
      positions: int32 [B, T], counted from BOS = 0; they set the rotary angles.
      attend: writes k and v of one layer into the cache and attends.
      cache: passed through `attend`.
      trace: if given, the input and every block's output [B, T, D] are appended to it.

    Returns:
      (hidden [B, T, D] after the last block, before the final LayerNorm; cache).
    """
    cos, sin = _rotary_tables(config, positions)
    if trace is not None:
        trace.append(x)
    for index in range(config.n_layers):
        with jax.named_scope(f"layer_{index}"):
            x, cache = _block(params, config, index, x, cos, sin, attend, cache)
        if trace is not None:
            trace.append(x)
    return x, cache


def final_norm(params: TextParams, hidden: jax.Array) -> jax.Array:
    """The final LayerNorm, which only the vocabulary head reads through."""
    return layer_norm(hidden, params.post_ln)


def logits(params: TextParams, hidden: jax.Array) -> jax.Array:
    """Last-block hidden states [..., D] -> float32 logits [..., V]."""
    with jax.named_scope("lm_head"):
        return linear(final_norm(params, hidden), params.lm_head_w, params.lm_head_b, out=jnp.float32)


def _block(
    params: TextParams,
    config: TextConfig,
    index: int,
    x: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    attend: Attend,
    cache: Any,
) -> tuple[jax.Array, Any]:
    layer = params.layers[index]
    h = layer_norm(x, params.ln[index])
    with jax.named_scope("attention"):
        qkv = linear(h, layer.qkv_w, params.attn_bias[index, : config.qkv_dim])
        q, k, v = _split_heads(config, qkv)
        out, cache = attend(index, _rotate(q, cos, sin), _rotate(k, cos, sin), v, cache)
        attended = linear(out.reshape(*x.shape[:2], -1), layer.proj_w, params.attn_bias[index, config.qkv_dim :])
    with jax.named_scope("mlp"):
        bias = params.mlp_bias[index]
        fed = mlp(h, layer.fc1_w, bias[: config.ff_dim], layer.fc2_w, bias[config.ff_dim :])
    return x + attended + fed, cache


def _split_heads(config: TextConfig, qkv: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """qkv [B, T, (N + 2 K) H], ordered q | k | v -> q [B, T, N, H], k and v [B, T, K, H]."""
    heads = qkv.reshape(*qkv.shape[:2], -1, config.head_dim)
    n, kv = config.n_heads, config.n_kv_heads
    return heads[:, :, :n], heads[:, :, n : n + kv], heads[:, :, n + kv :]


def _rotary_tables(config: TextConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin, float32 [B, T, 1, rotary_dim / 2], of position * theta^(-2 i / rotary_dim).

    float32 in every mode: bfloat16 cannot tell position 257 from 256.
    """
    half = config.rotary_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    angles = (
        positions[:, :, None, None].astype(jnp.float32) * jnp.asarray(frequencies, jnp.float32)[None, None, None, :]
    )
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the first half of each head's dims (split-half pairing), in float32."""
    half = cos.shape[-1]
    x32 = x.astype(jnp.float32)
    a, b, rest = x32[..., :half], x32[..., half : 2 * half], x[..., 2 * half :]
    rotated = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)
