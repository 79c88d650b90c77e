"""The router in plain jax.numpy: the contract that the kernels are compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels_pallas.dispatch import Index


def moe_route(
    x: jax.Array, router: jax.Array, bias: jax.Array, *, top: int, row: Index
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shapes and meaning as in `kernels_pallas.moe_route.api`."""
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    logits = jnp.einsum("td,ed->te", x, router, precision=precision, preferred_element_type=jnp.float32)
    logits = logits + bias[row].astype(jnp.float32)[None]
    best, experts = lax.top_k(logits, top)
    return logits, experts, jax.nn.softmax(best, axis=-1)
