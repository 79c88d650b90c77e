"""Connector: features of the vision encoder -> embeddings of frames, and frames -> image embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxphoton.layers.norms import layer_norm
from jaxphoton.layers.weight import matmul
from jaxphoton.models.siglip.config import LAYER_NORM_EPSILON
from jaxphoton.models.smolvlm.params import VisionParams


def connect(params: VisionParams, features: jax.Array, scale: int) -> jax.Array:
    """Features [C, grid * grid, E] behind the last layer -> embeddings [C, (grid / scale)^2, D] of frames."""
    with jax.named_scope("connector"):
        return matmul(space_to_depth(normed(params, features), scale), params.proj_w)


def normed(params: VisionParams, features: jax.Array) -> jax.Array:
    return layer_norm(features, params.post_ln, LAYER_NORM_EPSILON)


def space_to_depth(features: jax.Array, scale: int) -> jax.Array:
    """[C, grid * grid, E] -> [C, (grid / scale)^2, scale * scale * E]: the features of a square of patches one behind
    the other, row by row."""
    count, patches, width = features.shape
    side = round(patches**0.5) // scale
    cells = features.reshape(count, side, scale, side, scale, width).transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(count, side * side, -1)


def gather(embeddings: jax.Array, frames: jax.Array) -> jax.Array:
    """Embeddings [C, n, D] of frames -> those of pictures [I, M * n, D], by the frames int32 [I, M] of each."""
    return jnp.take(embeddings, frames, axis=0, mode="clip").reshape(len(frames), -1, embeddings.shape[-1])
