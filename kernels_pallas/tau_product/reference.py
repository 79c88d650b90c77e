"""The product in plain jax.numpy, as one part: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def tau_product(u: jax.Array, matrix: jax.Array) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.tau_product.api`."""
    x = u[:, : matrix.shape[1]]
    x = jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)
    return jnp.einsum("bk,nk->bn", x, matrix, precision="highest", preferred_element_type=jnp.float32)[None]
