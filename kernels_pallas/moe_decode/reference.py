"""The experts in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def moe_decode(
    x: jax.Array,
    up: jax.Array,
    down: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    *,
    up_scale: jax.Array | None = None,
    down_scale: jax.Array | None = None,
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.moe_decode.api`. Everything is computed in float32.

    Gathers the chosen experts, T * k of them: for few tokens or small experts.
    """
    both = jnp.einsum("td,tknd->tkn", x.astype(jnp.float32), _gather(up, up_scale, experts), precision="highest")
    u, g = jnp.split(both, 2, axis=2)
    each = jnp.einsum("tki,tkdi->tkd", gated(u, g), _gather(down, down_scale, experts), precision="highest")
    return jnp.sum(each * weights[:, :, None], axis=1).astype(x.dtype)


def gated(u: jax.Array, g: jax.Array) -> jax.Array:
    """gelu(u) * (g + 1), gelu in its exact form."""
    return u * (lax.erf(u * jnp.float32(0.5**0.5)) + jnp.float32(1)) * jnp.float32(0.5) * (g + jnp.float32(1))


def _gather(matrices: jax.Array, scale: jax.Array | None, experts: jax.Array) -> jax.Array:
    """[E, N, M] and experts [T, k] -> float32 [T, k, N, M]."""
    chosen = matrices[experts].astype(jnp.float32)
    return chosen if scale is None else chosen * scale[experts][:, :, :, None]
