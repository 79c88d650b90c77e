"""Parameters as pytrees, and `abstract`, the one truth of their shapes.

Matrices keep the checkpoints' layout [out, in]: loading needs no transposed copy, and both operands of a
decode step's matrix-vector product are contiguous along the contracted axis. A decode step receives every
leaf as an argument and pays for each on the host, so only the large matrices of each text layer are leaves
of their own; everything small is stacked over layers and sliced statically. Vision layers are stacked whole:
the encoder scans over them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.config import ModelConfig, RegionConfig, TextConfig, VisionConfig

Leaf = Any  # jax.Array, or jax.ShapeDtypeStruct in an abstract tree


@struct.dataclass
class VisionParams:
    """Vision encoder and projection. `ln` rows: (ln1, ln2) x (scale, bias)."""

    patch_w: Leaf  # [E, channels * patch * patch], columns ordered channel, row, column
    patch_b: Leaf  # [E]
    pos_emb: Leaf  # [grid * grid, E]
    ln: Leaf  # [L, 2, 2, E]
    qkv_w: Leaf  # [L, 3 * E, E]
    qkv_b: Leaf  # [L, 3 * E]
    proj_w: Leaf  # [L, E, E]
    proj_b: Leaf  # [L, E]
    fc1_w: Leaf  # [L, F, E]
    fc1_b: Leaf  # [L, F]
    fc2_w: Leaf  # [L, E, F]
    fc2_b: Leaf  # [L, E]
    post_ln: Leaf  # [2, E] scale, bias
    proj_fc1_w: Leaf  # [inner, 2 * E], global features first
    proj_fc1_b: Leaf  # [inner]
    proj_fc2_w: Leaf  # [D, inner]
    proj_fc2_b: Leaf  # [D]


@struct.dataclass
class TextLayer:
    """The large matrices of one dense text layer."""

    qkv_w: Leaf  # [(N + 2 K) * H, D]
    proj_w: Leaf  # [D, N * H]
    fc1_w: Leaf  # [F, D]
    fc2_w: Leaf  # [D, F]


@struct.dataclass
class TextParams:
    """Text decoder."""

    wte: Leaf  # [V, D]
    layers: tuple[TextLayer, ...]
    ln: Leaf  # [L, 2, D] scale, bias
    attn_bias: Leaf  # [L, (N + 2 K) * H + D]: qkv, then proj
    mlp_bias: Leaf  # [L, F + D]: fc1, then fc2
    post_ln: Leaf  # [2, D] scale, bias
    lm_head_w: Leaf  # [V, D]
    lm_head_b: Leaf  # [V]


@struct.dataclass
class RegionParams:
    """Coordinate and size encoders and decoders; coordinate rows come first where two are joined.

    With `decoder_arch` "linear" `fc1_w` and `fc1_b` are None; `ln` is None unless the checkpoint has one:
    absent means identity, not unit weights.
    """

    coord_features: Leaf  # float32 [1, coord_feat_dim / 2]
    size_features: Leaf  # float32 [2, size_feat_dim / 2]
    coord_enc_w: Leaf  # [D, coord_feat_dim]
    size_enc_w: Leaf  # [D, size_feat_dim]
    enc_b: Leaf  # [2, D] coordinate, size
    fc1_w: Leaf  # [2 * inner, D]
    fc1_b: Leaf  # [2 * inner]
    coord_w: Leaf  # [bins, inner or D]
    size_w: Leaf  # [2 * bins, inner or D]: width, then height
    head_b: Leaf  # [3 * bins]
    ln: Leaf  # [2, D] scale, bias


@struct.dataclass
class Params:
    """All parameters of one model."""

    vision: VisionParams
    text: TextParams
    region: RegionParams


def abstract(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """The parameter tree of `config` as jax.ShapeDtypeStruct leaves.

    The Fourier features stay float32 in every dtype: their product with 2 pi is an angle.

    Raises:
      ValueError: the configuration asks for a part that this version does not have.
    """
    if config.text.moe is not None or config.text.tau_attn or config.region.decoder_arch != "mlp":
        raise ValueError("Moondream 3 models (mixture of experts, tau attention) are not supported yet")
    shape = _Shapes(dtype)
    return Params(
        vision=_vision(config.vision, shape), text=_text(config.text, shape), region=_region(config.region, shape)
    )


def count(params: Params) -> int:
    """The number of parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


class _Shapes:
    def __init__(self, dtype: DTypeLike):
        self._dtype = jnp.dtype(dtype)

    def __call__(self, *dims: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, self._dtype)

    def float32(self, *dims: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, jnp.dtype(jnp.float32))


def _vision(c: VisionConfig, shape: _Shapes) -> VisionParams:
    layers, dim, ff, inner = c.enc_n_layers, c.enc_dim, c.enc_ff_dim, c.proj_inner_dim
    return VisionParams(
        patch_w=shape(dim, c.patch_dim),
        patch_b=shape(dim),
        pos_emb=shape(c.image_tokens, dim),
        ln=shape(layers, 2, 2, dim),
        qkv_w=shape(layers, 3 * dim, dim),
        qkv_b=shape(layers, 3 * dim),
        proj_w=shape(layers, dim, dim),
        proj_b=shape(layers, dim),
        fc1_w=shape(layers, ff, dim),
        fc1_b=shape(layers, ff),
        fc2_w=shape(layers, dim, ff),
        fc2_b=shape(layers, dim),
        post_ln=shape(2, dim),
        proj_fc1_w=shape(inner, 2 * dim),
        proj_fc1_b=shape(inner),
        proj_fc2_w=shape(c.proj_out_dim, inner),
        proj_fc2_b=shape(c.proj_out_dim),
    )


def _text(c: TextConfig, shape: _Shapes) -> TextParams:
    layer = TextLayer(
        qkv_w=shape(c.qkv_dim, c.dim),
        proj_w=shape(c.dim, c.n_heads * c.head_dim),
        fc1_w=shape(c.ff_dim, c.dim),
        fc2_w=shape(c.dim, c.ff_dim),
    )
    return TextParams(
        wte=shape(c.vocab_size, c.dim),
        layers=(layer,) * c.n_layers,
        ln=shape(c.n_layers, 2, c.dim),
        attn_bias=shape(c.n_layers, c.qkv_dim + c.dim),
        mlp_bias=shape(c.n_layers, c.ff_dim + c.dim),
        post_ln=shape(2, c.dim),
        lm_head_w=shape(c.vocab_size, c.dim),
        lm_head_b=shape(c.vocab_size),
    )


def _region(c: RegionConfig, shape: _Shapes) -> RegionParams:
    return RegionParams(
        coord_features=shape.float32(1, c.coord_feat_dim // 2),
        size_features=shape.float32(2, c.size_feat_dim // 2),
        coord_enc_w=shape(c.dim, c.coord_feat_dim),
        size_enc_w=shape(c.dim, c.size_feat_dim),
        enc_b=shape(2, c.dim),
        fc1_w=shape(2 * c.inner_dim, c.dim),
        fc1_b=shape(2 * c.inner_dim),
        coord_w=shape(c.coord_out_dim, c.inner_dim),
        size_w=shape(c.size_out_dim, c.inner_dim),
        head_b=shape(c.coord_out_dim + c.size_out_dim),
        ln=None,
    )
