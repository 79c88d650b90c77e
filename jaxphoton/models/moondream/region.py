"""Coordinates and sizes: Fourier encoders and bin decoders. The values of bins are in `readouts`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxphoton.layers.mlp import gelu_tanh
from jaxphoton.layers.norms import layer_norm
from jaxphoton.layers.weight import add_bias, einsum, linear, matmul
from jaxphoton.models.moondream.config import RegionConfig
from jaxphoton.models.moondream.params import RegionParams


def encode_coordinate(params: RegionParams, values: jax.Array) -> jax.Array:
    """Coordinates float32 [..., 1] -> embeddings [..., D]."""
    features = _fourier(values, params.coord_features).astype(params.enc_b.dtype)
    return linear(features, params.coord_enc_w, params.enc_b[0])


def encode_size(params: RegionParams, values: jax.Array) -> jax.Array:
    """(width, height) float32 [..., 2] -> embeddings [..., D]."""
    features = _fourier(values, params.size_features).astype(params.enc_b.dtype)
    return linear(features, params.size_enc_w, params.enc_b[1])


def decode(params: RegionParams, config: RegionConfig, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Last-block hidden states [B, D] (before the final LayerNorm) -> float32 bin logits.

    Returns (coordinate [B, bins], size [B, 2, bins] with width before height).
    """
    with jax.named_scope("region"):
        h = hidden if params.ln is None else layer_norm(hidden, params.ln)
        if params.fc1_w is None:
            for_coordinate = for_size = h
        else:
            # Both decoders read the same input: their first layers are one matrix.
            h = gelu_tanh(linear(h, params.fc1_w, params.fc1_b))
            for_coordinate, for_size = h[:, : config.inner_dim], h[:, config.inner_dim :]
        coordinate = matmul(for_coordinate, params.coord_w, out=jnp.float32)
        size = matmul(for_size, params.size_w, out=jnp.float32)
        coordinate = add_bias(coordinate, params.head_b[: config.coord_out_dim])
        size = add_bias(size, params.head_b[config.coord_out_dim :])
        return coordinate, size.reshape(-1, 2, config.size_out_dim // 2)


def _fourier(values: jax.Array, frequencies: jax.Array) -> jax.Array:
    """[cos(2 pi x W), sin(2 pi x W)] in float32: x [..., n], W [n, F/2] -> [..., F]."""
    angles = 2 * math.pi * einsum("...n,nf->...f", values.astype(jnp.float32), frequencies)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
