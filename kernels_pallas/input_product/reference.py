"""The product in plain jax.numpy: the contract that the kernel is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels_pallas.dispatch import Index
from kernels_pallas.products import scaled_product


def input_product(
    x: jax.Array, matrix: jax.Array, bias: jax.Array, scale: jax.Array | None, *, layer: Index, gelu_from: int
) -> jax.Array:
    """Shapes and meaning as in `kernels_pallas.input_product.api`."""
    product = scaled_product(x, matrix, scale)
    plain = (product + bias[layer].astype(jnp.float32)[None]).astype(x.dtype)
    through = jax.nn.gelu(plain[:, gelu_from:].astype(jnp.float32), approximate=True).astype(x.dtype)
    return jnp.concatenate([plain[:, :gelu_from], through], axis=1)
