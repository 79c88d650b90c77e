"""The experts in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.expert_pairs import Pairs, narrow
from kernels_pallas.experts import Beside, combined, gated, wide
from kernels_pallas.moe_prefill.reference import moe_prefill


def moe_decode(
    x: jax.Array, up: jax.Array, down: jax.Array, experts: jax.Array, weights: jax.Array, beside: Beside
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.moe_decode.api`. Everything is computed in float32.

    Gathers the chosen experts, T * k of them, while those are no more than there are; else it visits every expert.
    """
    if experts.size > up.shape[0]:
        return moe_prefill(x, up, down, experts, weights, beside)
    here = jnp.maximum(experts, 0)  # of a choice that is not here anything is computed
    both = jnp.einsum("td,tknd->tkn", x.astype(jnp.float32), _gather(up, beside.up_scale, here), precision="highest")
    both += _delta(beside.up_pairs, here, beside.slots, x[:, None])
    u, g = jnp.split(both, 2, axis=2)
    fed = gated(u, g)
    each = jnp.einsum("tki,tkdi->tkd", fed, _gather(down, beside.down_scale, here), precision="highest")
    each += _delta(beside.down_pairs, here, beside.slots, fed)
    return combined(each, experts, weights).astype(x.dtype)


def _gather(matrices: jax.Array, scale: jax.Array | None, experts: jax.Array) -> jax.Array:
    """[E, N, M] and experts [T, k] -> float32 [T, k, N, M]."""
    return wide(matrices[experts], None if scale is None else scale[experts])


def _delta(pairs: Pairs | None, experts: jax.Array, slots: jax.Array | None, x: jax.Array) -> jax.Array | float:
    """What the pairs add for experts [T, k] and slots [T], of x that broadcasts to [T, k, columns]."""
    if pairs is None or slots is None:
        return 0.0
    of_choices = jnp.broadcast_to(slots[:, None], experts.shape)
    b = pairs.b[pairs.layer, experts, :, jnp.maximum(of_choices, 0)].astype(jnp.float32)
    delta = jnp.einsum("tknr,tkr->tkn", b, narrow(pairs, experts, of_choices, x), precision="highest")
    return jnp.where(of_choices[:, :, None] >= 0, delta, 0)
