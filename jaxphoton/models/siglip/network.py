"""Vision encoder: prepared pictures -> features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.layers.attention import Attention, attend, attend_by_head, cudnn_attend
from jaxphoton.layers.vision_block import STACKED, block, normalise, patchify
from jaxphoton.layers.weight import linear
from jaxphoton.models.network import Kernels
from jaxphoton.models.siglip.config import LAYER_NORM_EPSILON, VisionConfig
from jaxphoton.models.siglip.params import Tower


def patches(tower: Tower, config: VisionConfig, pixels: jax.Array) -> jax.Array:
    """Pictures uint8 [C, S, S, 3] -> patch embeddings [C, grid * grid, E], before their positions are added."""
    rows = patchify(normalise(pixels), config.patch_size).astype(tower.pos_emb.dtype)
    return linear(rows, tower.patch_w, tower.patch_b)


def encode(tower: Tower, config: VisionConfig, pixels: jax.Array, attention: Attention = attend) -> jax.Array:
    """Pictures uint8 [C, S, S, 3] -> features [C, grid * grid, E] behind the last of the layers that are there."""
    with jax.named_scope("vision"):
        x = patches(tower, config, pixels) + tower.pos_emb[None]
        layers = {name: getattr(tower, name) for name in STACKED}
        x, _ = lax.scan(
            lambda x, layer: (block(layer, x, config.head_dim, attention, LAYER_NORM_EPSILON), None), x, layers
        )
        return x


def attention_for(kernels: Kernels, tower: Tower) -> Attention:
    """The attention that is quickest on the device that a program is compiled for."""
    platform = "" if kernels.backend == "plain" or kernels.target is None else kernels.target.platform
    if platform == "cpu" and kernels.backend == "auto":
        return attend_by_head
    if platform == "cuda" and kernels.backend in ("auto", "triton") and tower.pos_emb.dtype == jnp.bfloat16:
        return cudnn_attend
    return attend
