"""The product in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def output_product(a: jax.Array, u: jax.Array, matrix: jax.Array) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.output_product.api`; one part."""
    hidden = matrix.shape[1] - a.shape[1]
    x = jnp.concatenate([a, u[:, u.shape[1] - hidden :]], axis=1)
    return jnp.einsum("bk,nk->bn", x, matrix, precision="highest", preferred_element_type=jnp.float32)[None]
