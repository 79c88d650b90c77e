"""The product in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.products import scaled_product


def output_product(a: jax.Array, u: jax.Array, matrix: jax.Array, scale: jax.Array | None) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.output_product.api`; one part."""
    hidden = matrix.shape[1] - a.shape[1]
    x = jnp.concatenate([a, u[:, u.shape[1] - hidden :]], axis=1)
    return scaled_product(x, matrix, scale)[None]
