"""Vision encoder, stitching and pooling, projection: crops of several images -> image embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxphoton.layers.attention import Attention, attend
from jaxphoton.layers.mlp import mlp
from jaxphoton.layers.norms import layer_norm
from jaxphoton.layers.weight import einsum, linear
from jaxphoton.models.moondream.config import VisionConfig
from jaxphoton.models.moondream.params import VisionParams


def normalise(pixels: jax.Array) -> jax.Array:
    """uint8 [C, height, width, 3] -> float32 in [-1, 1], same shape."""
    return (pixels.astype(jnp.float32) / 255.0 - 0.5) / 0.5


def patchify(config: VisionConfig, pixels: jax.Array) -> jax.Array:
    """Normalised crops [C, S, S, 3] -> patch rows [C, grid * grid, 3 * patch * patch].

    Patches in row-major order; inside a patch channel, then row, then column.
    """
    grid, patch = config.grid, config.enc_patch_size
    cells = pixels.reshape(pixels.shape[0], grid, patch, grid, patch, config.in_channels)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(pixels.shape[0], grid * grid, config.patch_dim)


def encode(params: VisionParams, config: VisionConfig, pixels: jax.Array, attention: Attention = attend) -> jax.Array:
    """Crops uint8 [C, S, S, 3] -> features after the final LayerNorm [C, grid * grid, E]."""
    with jax.named_scope("vision"):
        patches = patchify(config, normalise(pixels)).astype(params.pos_emb.dtype)
        x = linear(patches, params.patch_w, params.patch_b) + params.pos_emb[None]
        layers = {name: getattr(params, name) for name in _SCANNED}
        x, _ = lax.scan(lambda x, layer: (_block(config, layer, x, attention), None), x, layers)
        return layer_norm(x, params.post_ln)


_SCANNED = ("ln", "qkv_w", "qkv_b", "proj_w", "proj_b", "fc1_w", "fc1_b", "fc2_w", "fc2_b")


def _block(config: VisionConfig, p: dict[str, Any], x: jax.Array, attention: Attention) -> jax.Array:
    with jax.named_scope("attention"):
        qkv = linear(layer_norm(x, p["ln"][0]), p["qkv_w"], p["qkv_b"])
        heads = qkv.reshape(*x.shape[:2], 3, config.enc_n_heads, config.head_dim)
        out = attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2])
        x = x + linear(out.reshape(x.shape), p["proj_w"], p["proj_b"])
    with jax.named_scope("mlp"):
        return x + mlp(layer_norm(x, p["ln"][1]), p["fc1_w"], p["fc1_b"], p["fc2_w"], p["fc2_b"])


def combine(
    config: VisionConfig, features: jax.Array, rows: jax.Array, columns: jax.Array, image: jax.Array, images: int
) -> tuple[jax.Array, jax.Array]:
    """Sums the crops of each image into its global and its pooled local map.

    Stitching and adaptive average pooling are linear and separable, so each crop contributes R F C^T and one
    program serves every tiling. Computed in float32.

    Args:
      features: [C, grid * grid, E].
      rows, columns: float32 [C, grid, grid], the matrices of `pooling` (identity for a global crop).
      image: int32 [C], 2 * i for the global crop of image i, 2 * i + 1 for its tiles, -1 for padding.
      images: how many images, static.

    Returns:
      (global, pooled), each float32 [I, grid * grid, E].
    """
    grid = config.grid
    cells = features.astype(jnp.float32).reshape(-1, grid, grid, features.shape[-1])
    # A padding crop may hold anything: select it out rather than multiply it by zero.
    cells = jnp.where((image >= 0)[:, None, None, None], cells, 0.0)
    pooled = einsum("cay,cyxe->caxe", rows, cells)
    pooled = einsum("cbx,caxe->cabe", columns, pooled)
    owner = (image[None, :] == jnp.arange(2 * images, dtype=jnp.int32)[:, None]).astype(jnp.float32)
    maps = einsum("ic,cabe->iabe", owner, pooled).reshape(images, 2, grid * grid, -1)
    return maps[:, 0], maps[:, 1]


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
    image: jax.Array,
    images: int,
    attention: Attention = attend,
) -> jax.Array:
    """Crops of `images` pictures -> their embeddings [I, grid * grid, D]; arguments as in `encode` and `combine`."""
    features = encode(params, config, pixels, attention)
    return project(params, *combine(config, features, rows, columns, image, images))
