"""Vision encoder, stitching and pooling, projection: crops of several images -> image embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.layers.attention import Attention, attend, attend_by_head
from jaxphoton.layers.mlp import mlp
from jaxphoton.layers.norms import layer_norm
from jaxphoton.layers.sharded import by_shares
from jaxphoton.layers.vision_block import STACKED, block, normalise, patchify
from jaxphoton.layers.weight import einsum, linear
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.params import VisionParams


def encode(params: VisionParams, config: VisionConfig, pixels: jax.Array, attention: Attention = attend) -> jax.Array:
    """Crops uint8 [C, S, S, 3] -> features after the final LayerNorm [C, grid * grid, E]."""
    with jax.named_scope("vision"):
        x = _patches(params, config, pixels)
        x, _ = lax.scan(lambda x, layer: (block(layer, x, config.head_dim, attention), None), x, _layers(params))
        return layer_norm(x, params.post_ln)


def _patches(params: VisionParams, config: VisionConfig, pixels: jax.Array) -> jax.Array:
    patches = patchify(normalise(pixels), config.enc_patch_size).astype(params.pos_emb.dtype)
    return linear(patches, params.patch_w, params.patch_b) + params.pos_emb[None]


def _layers(params: VisionParams) -> dict[str, Any]:
    """What is stacked by layer."""
    return {name: getattr(params, name) for name in STACKED}


def combine(
    config: VisionConfig, features: jax.Array, rows: jax.Array, columns: jax.Array, owner: jax.Array, images: int
) -> tuple[jax.Array, jax.Array]:
    """Sums the crops of each image into its global and its pooled local map.

    Stitching and adaptive average pooling are linear and separable, so each crop contributes R F C^T and one
    program serves every tiling. Computed in float32.

    Args:
      features: [C, grid * grid, E].
      rows, columns: float32 [C, grid, grid], the matrices of `pooling` (identity for a global crop).
      owner: int32 [C, 2], the image whose global crop it is, and the one of whose tiles it is one; -1 for none. A
        single tile is the global crop, too; padding is neither.
      images: how many images, static.

    Returns:
      (global, pooled), each float32 [I, grid * grid, E].
    """
    grid = config.grid
    cells = features.astype(jnp.float32).reshape(-1, grid, grid, features.shape[-1])
    # A padding crop may hold anything: select it out rather than multiply it by zero.
    cells = jnp.where(_owned(owner)[:, None, None, None], cells, 0.0)
    pooled = einsum("cay,cyxe->caxe", rows, cells)
    pooled = einsum("cbx,caxe->cabe", columns, pooled)
    parts = (owner.T[:, None] == jnp.arange(images, dtype=jnp.int32)[None, :, None]).astype(jnp.float32)
    maps = einsum("kic,cabe->kiabe", parts, pooled).reshape(2, images, grid * grid, -1)
    return maps[0], maps[1]


def _owned(owner: jax.Array) -> jax.Array:
    """bool [C]: which crops are somebody's."""
    return jnp.max(owner, axis=1) >= 0


def project(params: VisionParams, global_map: jax.Array, pooled_map: jax.Array) -> jax.Array:
    """Global and pooled features, each [I, grid * grid, E] -> image embeddings [I, grid * grid, D]."""
    with jax.named_scope("projection"):
        joined = jnp.concatenate([global_map, pooled_map], axis=-1).astype(params.proj_fc1_b.dtype)
        return mlp(joined, params.proj_fc1_w, params.proj_fc1_b, params.proj_fc2_w, params.proj_fc2_b)


def embed_images(
    params: VisionParams,
    config: VisionConfig,
    pixels: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    owner: jax.Array,
    images: int,
    attention: Attention = attend,
    axes: tuple[str, ...] = (),
) -> jax.Array:
    """Crops of `images` pictures -> their embeddings [I, grid * grid, D]; arguments as in `encode` and `combine`, and
    `axes` of a mesh whose devices share the crops."""
    features = by_shares(lambda own: encode(params, config, own, attention), pixels, axes)
    return project(params, *combine(config, features, rows, columns, owner, images))


def embed_in_turn(
    params: VisionParams,
    config: VisionConfig,
    pixels: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    owner: jax.Array,
    images: int,
    attention: Attention = attend_by_head,
) -> jax.Array:
    """`embed_images` one crop at a time, and none behind the last that is somebody's: for a CPU.

    There a product of one crop runs at the processor's rate and one of many crops, whose results leave the caches, at
    two thirds of it; and a padding crop would cost what any other does.
    """
    grid, count = config.grid, jnp.max(jnp.where(_owned(owner), jnp.arange(1, len(owner) + 1), 0))
    places = jnp.where(owner >= 0, owner, images)  # of what is nobody's: the last

    def each(change: Any, start: Any) -> Any:
        return lax.fori_loop(0, count, change, start)

    def at(x: jax.Array, crop: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, crop, 1)

    def replaced(x: jax.Array, crop: jax.Array, value: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(x, value, crop, 0)

    def layer(x: jax.Array, p: dict[str, Any]) -> tuple[jax.Array, None]:
        # Layers outside, crops inside: a layer's weights are copied out of their stack once.
        return each(lambda crop, x: replaced(x, crop, block(p, at(x, crop), config.head_dim, attention)), x), None

    def pool(crop: jax.Array, maps: list[jax.Array]) -> list[jax.Array]:
        features = layer_norm(at(x, crop), params.post_ln).astype(jnp.float32)
        pooled = einsum("ay,yxe->axe", rows[crop], features.reshape(grid, grid, -1))
        pooled = einsum("bx,axe->abe", columns[crop], pooled).reshape(1, grid * grid, -1)
        return [replaced(x, place, at(x, place) + pooled) for x, place in zip(maps, places[crop], strict=True)]

    with jax.named_scope("vision"):
        x = jnp.zeros((len(owner), grid * grid, config.enc_dim), params.pos_emb.dtype)
        x = each(lambda crop, x: replaced(x, crop, _patches(params, config, at(pixels, crop))), x)
        x, _ = lax.scan(layer, x, _layers(params))
        empty = jnp.zeros((images + 1, grid * grid, config.enc_dim), jnp.float32)
        whole, tiles = each(pool, [empty, empty])
    return project(params, whole[:-1], tiles[:-1])
