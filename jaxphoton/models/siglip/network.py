"""Vision encoder: prepared pictures -> features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

    def layer(x: jax.Array, p: dict[str, Any]) -> tuple[jax.Array, None]:
        return block(p, x, config.head_dim, attention, LAYER_NORM_EPSILON), None

    with jax.named_scope("vision"):
        x, _ = lax.scan(layer, patches(tower, config, pixels) + tower.pos_emb[None], _layers(tower))
        return x


def encode_in_turn(
    tower: Tower, config: VisionConfig, pixels: jax.Array, count: jax.Array, attention: Attention = attend_by_head
) -> jax.Array:
    """`encode` of the first `count` pictures, one at a time, and zeros for the others: for a CPU.

    There a product of one picture runs at the processor's rate and one of many, whose results leave the caches, does
    not; and what is there to pad would cost what any other does.
    """

    def at(x: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, i, 1)

    def each(change: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, count, lambda i, x: lax.dynamic_update_slice_in_dim(x, change(i, x), i, 0), x)

    def layer(x: jax.Array, p: dict[str, Any]) -> tuple[jax.Array, None]:
        # Layers outside, pictures inside: a layer's weights are copied out of their stack once.
        return each(lambda i, x: block(p, at(x, i), config.head_dim, attention, LAYER_NORM_EPSILON), x), None

    with jax.named_scope("vision"):
        empty = jnp.zeros((len(pixels), *tower.pos_emb.shape), tower.pos_emb.dtype)
        x = each(lambda i, x: patches(tower, config, at(pixels, i)) + tower.pos_emb[None], empty)
        x, _ = lax.scan(layer, x, _layers(tower))
        return x


def _layers(tower: Tower) -> dict[str, Any]:
    """What is stacked by layer."""
    return {name: getattr(tower, name) for name in STACKED}


def attention_for(kernels: Kernels, tower: Tower) -> Attention:
    """The attention that is quickest on the device that a program is compiled for."""
    platform = "" if kernels.backend == "plain" or kernels.target is None else kernels.target.platform
    if platform == "cpu" and kernels.backend == "auto":
        return attend_by_head
    if platform == "cuda" and kernels.backend in ("auto", "triton") and tower.pos_emb.dtype == jnp.bfloat16:
        return cudnn_attend
    return attend
