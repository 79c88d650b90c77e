"""Matrix products at the precision that their dtype promises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike


def precision_for(dtype: jnp.dtype) -> lax.Precision | None:
    """Highest for float32 (recent GPUs would use TF32 by default), the default for everything else."""
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def einsum(equation: str, *operands: jax.Array, out: DTypeLike | None = None) -> jax.Array:
    """`jnp.einsum` at the precision its dtype promises; `out` is the accumulated result's dtype."""
    dtype = operands[0].dtype
    return jnp.einsum(equation, *operands, precision=precision_for(dtype), preferred_element_type=out or dtype)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [..., D] plus bias [D]."""
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + bias.shape)


def linear(x: jax.Array, weight: jax.Array, bias: jax.Array | None = None, out: DTypeLike | None = None) -> jax.Array:
    """x [..., D] times weight [F, D] transposed, plus bias [F] -> [..., F]."""
    y = einsum("...d,fd->...f", x, weight, out=out)
    return y if bias is None else add_bias(y, bias)
