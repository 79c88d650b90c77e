"""The sum and the norm in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.dispatch import Index


def residual_norm(
    x: jax.Array,
    parts: jax.Array,
    bias: jax.Array,
    norm: jax.Array | None,
    *,
    layer: Index,
    norm_layer: Index,
    epsilon: float,
) -> tuple[jax.Array, jax.Array | None]:
    """Shapes and meaning as in `kernels_pallas.residual_norm.api`."""
    added = jnp.sum(parts, axis=0) + jnp.sum(bias[layer].astype(jnp.float32).reshape(-1, x.shape[1]), axis=0)[None]
    x = (x.astype(jnp.float32) + added).astype(x.dtype)
    if norm is None:
        return x, None
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=1, keepdims=True)
    scale, shift = norm[norm_layer].astype(jnp.float32)[:, None]
    return x, (centred * lax.rsqrt(variance + epsilon) * scale + shift).astype(x.dtype)
