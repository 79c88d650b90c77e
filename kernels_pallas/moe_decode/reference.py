"""The experts in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.experts import gated
from kernels_pallas.moe_prefill.reference import moe_prefill


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

    Gathers the chosen experts, T * k of them, while those are no more than there are; else it visits every expert.
    """
    if experts.size > up.shape[0]:
        return moe_prefill(x, up, down, experts, weights, up_scale=up_scale, down_scale=down_scale)
    both = jnp.einsum("td,tknd->tkn", x.astype(jnp.float32), _gather(up, up_scale, experts), precision="highest")
    u, g = jnp.split(both, 2, axis=2)
    each = jnp.einsum("tki,tkdi->tkd", gated(u, g), _gather(down, down_scale, experts), precision="highest")
    return jnp.sum(each * weights[:, :, None], axis=1).astype(x.dtype)


def _gather(matrices: jax.Array, scale: jax.Array | None, experts: jax.Array) -> jax.Array:
    """[E, N, M] and experts [T, k] -> float32 [T, k, N, M]."""
    chosen = matrices[experts].astype(jnp.float32)
    return chosen if scale is None else chosen * scale[experts][:, :, :, None]
