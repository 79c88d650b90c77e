"""The product in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def output_product(a: jax.Array, u: jax.Array, matrix: jax.Array) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.output_product.api`; one part."""
    hidden = u[:, u.shape[1] + a.shape[1] - matrix.shape[1] :].astype(jnp.float32)
    x = jnp.concatenate([a, jax.nn.gelu(hidden, approximate=True).astype(a.dtype)], axis=1)
    return jnp.einsum("bk,nk->bn", x, matrix, precision="highest", preferred_element_type=jnp.float32)[None]
