"""Rotary positions: the first dims of each head, or all of them, turned by angles of the position."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def rotary_frequencies(rotary_dim: int, theta: float) -> np.ndarray:
    """theta^(-2 i / rotary_dim), float64 [rotary_dim / 2]: the angles by which a position turns the pairs."""
    half = rotary_dim // 2
    return theta ** (-np.arange(half, dtype=np.float64) / half)


def llama3_scaled(frequencies: np.ndarray, factor: float, low: float, high: float, old_length: int) -> np.ndarray:
    """Frequencies for a context that became `factor` times as long as `old_length`, as Llama 3.1 has them.

    After "rope_type": "llama3" of Hugging Face transformers (modeling_rope_utils). A pair that turned more than `high`
    times within the old context stays; one of less than `low` turns is slowed by `factor`; in between it is the mean of
    the two by the share s = (turns - low) / (high - low) of the first. `low` is less than `high`.
    """
    turns = old_length * frequencies / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (share + (1 - share) / factor)


def rotary_tables(positions: jax.Array, frequencies: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """cos and sin, float32 [B, T, 1, R], of position * frequency; positions int32 [B, T], frequencies [R].

    float32 in every mode: bfloat16 cannot tell position 257 from 256.
    """
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
