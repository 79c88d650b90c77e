"""The vision encoders' block, which those of Moondream and of SigLIP share, and the patches that they begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxphoton.layers.attention import Attention
from jaxphoton.layers.mlp import mlp
from jaxphoton.layers.norms import LN_EPSILON, layer_norm
from jaxphoton.layers.spec import Joined, Specs
from jaxphoton.layers.weight import linear

# Leaves of a layer, stacked by layer: `ln` is (ln1, ln2) x (scale, bias).
STACKED = ("ln", "qkv_w", "qkv_b", "proj_w", "proj_b", "fc1_w", "fc1_b", "fc2_w", "fc2_b")


def specs(make: Specs, layers: int, dim: int, ff: int, patch_dim: int, patches: int) -> dict[str, Any]:
    """Of the patches' embedding, and of the leaves of STACKED: width E = `dim`, inner width F = `ff`."""
    qkv = Joined(*(("vision_heads", dim),) * 3)
    return {
        "patch_w": make.matrix(vision_embed=dim, _patch=patch_dim),
        "patch_b": make.leaf(vision_embed=dim),
        "pos_emb": make.leaf(_position=patches, vision_embed=dim),
        "ln": make.leaf(layers=layers, _which=2, _scale_bias=2, vision_embed=dim),
        "qkv_w": make.matrix(layers=layers, inputs=qkv, vision_embed=dim),
        "qkv_b": make.leaf(layers=layers, inputs=qkv),
        "proj_w": make.matrix(layers=layers, vision_embed=dim, vision_heads=dim),
        "proj_b": make.leaf(layers=layers, vision_embed=dim),
        "fc1_w": make.matrix(layers=layers, vision_mlp=ff, vision_embed=dim),
        "fc1_b": make.leaf(layers=layers, vision_mlp=ff),
        "fc2_w": make.matrix(layers=layers, vision_embed=dim, vision_mlp=ff),
        "fc2_b": make.leaf(layers=layers, vision_embed=dim),
    }


def normalise(pixels: jax.Array) -> jax.Array:
    """uint8 [C, height, width, 3] -> float32 in [-1, 1], same shape."""
    return (pixels.astype(jnp.float32) / 255.0 - 0.5) / 0.5


def patchify(pixels: jax.Array, patch: int) -> jax.Array:
    """Normalised pictures [C, S, S, 3] -> patch rows [C, grid * grid, 3 * patch * patch].

    Patches in row-major order; inside a patch channel, then row, then column. Pixels behind the last whole patch of a
    side are left out.
    """
    count, size = pixels.shape[:2]
    grid = size // patch
    cells = pixels[:, : grid * patch, : grid * patch].reshape(count, grid, patch, grid, patch, 3)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(count, grid * grid, 3 * patch * patch)


def block(
    p: Mapping[str, Any], x: jax.Array, head_dim: int, attention: Attention, epsilon: float = LN_EPSILON
) -> jax.Array:
    """x [C, T, E] behind a layer with the leaves of STACKED; everything sees everything."""
    with jax.named_scope("attention"):
        qkv = linear(layer_norm(x, p["ln"][0], epsilon), p["qkv_w"], p["qkv_b"])
        heads = qkv.reshape(*x.shape[:2], 3, -1, head_dim)
        out = attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2])
        x = x + linear(out.reshape(*x.shape[:2], -1), p["proj_w"], p["proj_b"])
    with jax.named_scope("mlp"):
        return x + mlp(layer_norm(x, p["ln"][1], epsilon), p["fc1_w"], p["fc1_b"], p["fc2_w"], p["fc2_b"])
