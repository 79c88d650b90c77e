"""Norms over the last axis: statistics in float32, the result in the input's dtype."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

LN_EPSILON = 1e-5


def layer_norm(x: jax.Array, scale_bias: jax.Array, epsilon: float = LN_EPSILON) -> jax.Array:
    """LayerNorm of x [..., D]; scale_bias [2, D]."""
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centred = x32 - mean
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    scale, bias = scale_bias.astype(jnp.float32).reshape((2,) + (1,) * (x.ndim - 1) + (x.shape[-1],))
    return (centred * lax.rsqrt(variance + epsilon) * scale + bias).astype(x.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """RMSNorm of x [..., D]: the root of the mean square, no mean taken away and no bias; scale [D].

    The normed values are rounded to x's dtype before the scale, as Llama does it.
    """
    x32 = x.astype(jnp.float32)
    square = jnp.mean(x32 * x32, axis=-1, keepdims=True)
    normed = (x32 * lax.rsqrt(square + epsilon)).astype(x.dtype)
    return normed * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + scale.shape)
