"""The product in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def quant_matmul(x: jax.Array, matrix: jax.Array, scale: jax.Array, zero: jax.Array | None) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.quant_matmul.api`; float32."""
    values = matrix.astype(jnp.float32).reshape(*scale.shape, -1)
    if zero is not None:
        values -= zero.astype(jnp.float32)[..., None]
    values *= scale.astype(jnp.float32)[..., None]
    return jnp.einsum("bk,nk->bn", x.astype(jnp.float32), values.reshape(matrix.shape), precision="highest")
