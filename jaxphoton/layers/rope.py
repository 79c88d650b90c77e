"""Rotary positions: the first dims of each head, or all of them, turned by angles of the position."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def rotary_tables(positions: jax.Array, rotary_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """cos and sin, float32 [B, T, 1, rotary_dim / 2], of position * theta^(-2 i / rotary_dim); positions int32 [B, T].

    float32 in every mode: bfloat16 cannot tell position 257 from 256.
    """
    half = rotary_dim // 2
    frequencies = theta ** (-np.arange(half, dtype=np.float64) / half)
    angles = (
        positions[:, :, None, None].astype(jnp.float32) * jnp.asarray(frequencies, jnp.float32)[None, None, None, :]
    )
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the first dims of each head of x [B, T, N, H], twice as many as `cos` has, in float32.

    The halves of those dims are paired: dim i with dim i + rotary_dim / 2. The other dims stay.
    """
    half = cos.shape[-1]
    x32 = x.astype(jnp.float32)
    a, b, rest = x32[..., :half], x32[..., half : 2 * half], x[..., 2 * half :]
    rotated = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)
