"""What a sequence position is fed with: a token, an image patch, a coordinate or a size."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxphoton.models.moondream.params import Params
from jaxphoton.models.moondream.readouts import COORDINATE, IMAGE, SIZE, TOKEN
from jaxphoton.models.moondream.region import encode_coordinate, encode_size

__all__ = ["COORDINATE", "IMAGE", "SIZE", "TOKEN", "embed"]


def embed(
    params: Params, ids: jax.Array, kinds: jax.Array, values: jax.Array, images: jax.Array | None = None
) -> jax.Array:
    """Input embeddings [B, T, D].

    Args:
      ids: int32 [B, T] vocabulary ids; a placeholder where `kinds` is not TOKEN.
      kinds: int32 [B, T], one of TOKEN, IMAGE, COORDINATE, SIZE.
      values: float32 [B, T, 2]: the coordinate and anything, or width and height.
      images: [B, I, D] image embeddings; position p of kind IMAGE takes entry p - 1 (BOS comes first).
    """
    with jax.named_scope("inputs"):
        x = params.text.wte[ids]
        x = jnp.where((kinds == COORDINATE)[..., None], encode_coordinate(params.region, values[..., :1]), x)
        x = jnp.where((kinds == SIZE)[..., None], encode_size(params.region, values), x)
        if images is not None:
            shifted = jnp.pad(images, ((0, 0), (1, max(0, ids.shape[1] - 1 - images.shape[1])), (0, 0)))
            x = jnp.where((kinds == IMAGE)[..., None], shifted[:, : ids.shape[1]], x)
        return x
