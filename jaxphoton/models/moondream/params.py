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

from jaxphoton.layers.moe import ExpertParams
from jaxphoton.models.moondream.config import ModelConfig, MoeConfig, RegionConfig, TextConfig, VisionConfig

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
    """The large matrices of one text layer. It is dense, or it has experts: the other's fields are None."""

    qkv_w: Leaf  # [(N + 2 K) * H, D]
    proj_w: Leaf  # [D, N * H]
    tau_w: Leaf  # [2 * N, (N + 2 K) * H]: the factors of q, then of v; None without tau attention
    fc1_w: Leaf  # [F, D]
    fc2_w: Leaf  # [D, F]
    experts: ExpertParams | None


@struct.dataclass
class TextParams:
    """Text decoder. Of its L layers the first M are dense; layer i >= M has experts and row i - M in `router_b`."""

    wte: Leaf  # [V, D]
    layers: tuple[TextLayer, ...]
    ln: Leaf  # [L, 2, D] scale, bias
    attn_bias: Leaf  # [L, (N + 2 K) * H + D]: qkv, then proj
    mlp_bias: Leaf  # [M, F + D]: fc1, then fc2; None where no layer is dense
    tau_alpha: Leaf  # float32 [L, N]; None without tau attention
    router_b: Leaf  # [L - M, E]; None without experts
    kv_scale: Leaf  # float32 [L, 2] of float8 keys, values; None where the checkpoint has none
    post_ln: Leaf  # [2, D] scale, bias
    lm_head_w: Leaf  # [V, D]
    lm_head_b: Leaf  # [V]


@struct.dataclass
class RegionParams:
    """Coordinate and size encoders and decoders; coordinate rows come first where two are joined.

    Linear decoders read `ln` of the hidden state directly: their `fc1_w` and `fc1_b` are None. `ln` is None unless
    the checkpoint has one: absent means identity, not unit weights.
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


def abstract(
    config: ModelConfig,
    dtype: DTypeLike = jnp.bfloat16,
    float8_experts: bool = False,
    kv_scales: bool = False,
) -> Params:
    """The parameter tree of `config` as jax.ShapeDtypeStruct leaves.

    What meets a number in float32 stays float32 in every dtype: Fourier features and `tau_alpha` make angles and
    factors of positions, scales restore float8.

    Args:
      float8_experts: the experts' matrices in float8_e4m3fn with row scales, not in `dtype`.
      kv_scales: with the scales of a float8 key/value cache.
    """
    shape = _Shapes(dtype)
    experts = _Shapes(jnp.float8_e4m3fn if float8_experts else dtype)
    return Params(
        vision=_vision(config.vision, shape),
        text=_text(config.text, shape, experts, kv_scales),
        region=_region(config.region, shape),
    )


def count(params: Params) -> int:
    """The number of parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


class _Shapes:
    def __init__(self, dtype: DTypeLike):
        self.dtype = jnp.dtype(dtype)

    def __call__(self, *dims: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, self.dtype)

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


def _text(c: TextConfig, shape: _Shapes, experts: _Shapes, kv_scales: bool) -> TextParams:
    dense = c.n_layers if c.moe is None else c.moe.start_layer
    return TextParams(
        wte=shape(c.vocab_size, c.dim),
        layers=tuple(_layer(c, None if i < dense else c.moe, shape, experts) for i in range(c.n_layers)),
        ln=shape(c.n_layers, 2, c.dim),
        attn_bias=shape(c.n_layers, c.qkv_dim + c.dim),
        mlp_bias=shape(dense, c.ff_dim + c.dim) if dense else None,
        tau_alpha=shape.float32(c.n_layers, c.n_heads) if c.tau_attn else None,
        router_b=shape(c.n_layers - dense, c.moe.num_experts) if c.moe else None,
        kv_scale=shape.float32(c.n_layers, 2) if kv_scales else None,
        post_ln=shape(2, c.dim),
        lm_head_w=shape(c.vocab_size, c.dim),
        lm_head_b=shape(c.vocab_size),
    )


def _layer(c: TextConfig, moe: MoeConfig | None, shape: _Shapes, experts: _Shapes) -> TextLayer:
    return TextLayer(
        qkv_w=shape(c.qkv_dim, c.dim),
        proj_w=shape(c.dim, c.n_heads * c.head_dim),
        tau_w=shape(2 * c.n_heads, c.qkv_dim) if c.tau_attn else None,
        fc1_w=None if moe else shape(c.ff_dim, c.dim),
        fc2_w=None if moe else shape(c.dim, c.ff_dim),
        experts=_experts(c.dim, moe, shape, experts) if moe else None,
    )


def _experts(dim: int, moe: MoeConfig, shape: _Shapes, experts: _Shapes) -> ExpertParams:
    count, inner = moe.num_experts, moe.expert_inner_dim
    scaled = experts.dtype == jnp.float8_e4m3fn
    return ExpertParams(
        router_w=shape(count, dim),
        fc1_w=experts(count, 2 * inner, dim),
        fc2_w=experts(count, dim, inner),
        fc1_scale=shape.float32(count, 2 * inner) if scaled else None,
        fc2_scale=shape.float32(count, dim) if scaled else None,
    )


def _region(c: RegionConfig, shape: _Shapes) -> RegionParams:
    mlp = c.decoder_arch == "mlp"
    features = c.inner_dim if mlp else c.dim
    return RegionParams(
        coord_features=shape.float32(1, c.coord_feat_dim // 2),
        size_features=shape.float32(2, c.size_feat_dim // 2),
        coord_enc_w=shape(c.dim, c.coord_feat_dim),
        size_enc_w=shape(c.dim, c.size_feat_dim),
        enc_b=shape(2, c.dim),
        fc1_w=shape(2 * c.inner_dim, c.dim) if mlp else None,
        fc1_b=shape(2 * c.inner_dim) if mlp else None,
        coord_w=shape(c.coord_out_dim, features),
        size_w=shape(c.size_out_dim, features),
        head_b=shape(c.coord_out_dim + c.size_out_dim),
        ln=shape(2, c.dim) if c.use_ln else None,
    )
