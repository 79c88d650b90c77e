"""The small pieces every block is made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

LN_EPSILON = 1e-5


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


def layer_norm(x: jax.Array, scale_bias: jax.Array) -> jax.Array:
    """LayerNorm over the last axis; scale_bias [2, D]. Statistics in float32, the result in x's dtype."""
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centred = x32 - mean
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    scale, bias = scale_bias.astype(jnp.float32).reshape((2,) + (1,) * (x.ndim - 1) + (x.shape[-1],))
    return (centred * lax.rsqrt(variance + LN_EPSILON) * scale + bias).astype(x.dtype)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Tanh-approximated GELU, computed in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def gelu_exact(x: jax.Array) -> jax.Array:
    """GELU by the error function, computed in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)


def mlp(x: jax.Array, fc1_w: jax.Array, fc1_b: jax.Array, fc2_w: jax.Array, fc2_b: jax.Array) -> jax.Array:
    """fc2(gelu(fc1(x)))."""
    return linear(gelu_tanh(linear(x, fc1_w, fc1_b)), fc2_w, fc2_b)
