"""Vision encoder and projector: prepared pictures -> image embeddings."""

from __future__ import annotations

import jax
from jax import lax

from jaxphoton.layers.attention import Attention, attend
from jaxphoton.layers.mlp import gelu_exact
from jaxphoton.layers.vision_block import STACKED, block, normalise, patchify
from jaxphoton.layers.weight import linear
from jaxphoton.models.joycaption.config import LAYER_NORM_EPSILON, VisionConfig
from jaxphoton.models.joycaption.params import VisionParams


def patches(params: VisionParams, config: VisionConfig, pixels: jax.Array) -> jax.Array:
    """Pictures uint8 [C, S, S, 3] -> patch embeddings [C, grid * grid, E], before their positions are added."""
    rows = patchify(normalise(pixels), config.patch_size).astype(params.pos_emb.dtype)
    return linear(rows, params.patch_w, params.patch_b)


def encode(params: VisionParams, config: VisionConfig, pixels: jax.Array, attention: Attention = attend) -> jax.Array:
    """Pictures uint8 [C, S, S, 3] -> features [C, grid * grid, E] behind the last of the layers that are there.

    There is no norm behind it: the projector reads what a layer in the middle gives.
    """
    with jax.named_scope("vision"):
        x = patches(params, config, pixels) + params.pos_emb[None]
        layers = {name: getattr(params, name) for name in STACKED}
        x, _ = lax.scan(
            lambda x, layer: (block(layer, x, config.head_dim, attention, LAYER_NORM_EPSILON), None), x, layers
        )
        return x


def project(params: VisionParams, features: jax.Array) -> jax.Array:
    """Features [C, grid * grid, E] -> image embeddings [C, grid * grid, D]; the GELU is the exact one."""
    with jax.named_scope("projection"):
        inner = gelu_exact(linear(features, params.proj_fc1_w, params.proj_fc1_b))
        return linear(inner, params.proj_fc2_w, params.proj_fc2_b)
