"""Activations and the MLPs around them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxphoton.layers.weight import Weight, linear, matmul


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Tanh-approximated GELU, computed in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def gelu_exact(x: jax.Array) -> jax.Array:
    """GELU by the error function, computed in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)


def silu(x: jax.Array) -> jax.Array:
    """x * sigmoid(x), computed in float32."""
    return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


def mlp(x: jax.Array, fc1_w: Weight, fc1_b: jax.Array, fc2_w: Weight, fc2_b: jax.Array) -> jax.Array:
    """fc2(gelu(fc1(x)))."""
    return linear(gelu_tanh(linear(x, fc1_w, fc1_b)), fc2_w, fc2_b)


def gated_mlp(x: jax.Array, gate: Weight, up: Weight, down: Weight) -> jax.Array:
    """down(silu(gate(x)) * up(x)), no biases."""
    return matmul(silu(matmul(x, gate)) * matmul(x, up), down)
