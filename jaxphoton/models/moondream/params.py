"""Parameters as pytrees, and `specs`, the one truth of their shapes, dtypes and logical axes.

Matrices are `Weight`s in the checkpoints' layout [out, in]: loading needs no transposed copy, and both operands of a
decode step's matrix-vector product are contiguous along the contracted axis. A decode step receives every
leaf as an argument and pays for each on the host, so only the large matrices of each text layer are leaves
of their own; everything small is stacked over layers and sliced statically. Vision layers are stacked whole:
the encoder scans over them.

Attention and MLP of a text layer read the same input and are added up: their matrices lie in one, rows under rows for
the input and columns beside columns for the output, so that a layer is two products. A bias is a whole row of its leaf:
a kernel takes the leaf as it is, where a part of a row would be copied first.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers import spec, vision_block
from jaxphoton.layers.adapters import ChosenPairs
from jaxphoton.layers.moe import ExpertParams
from jaxphoton.layers.spec import Joined, Specs
from jaxphoton.layers.weight import Leaf, Weight
from jaxphoton.models.moondream.config import ModelConfig, MoeConfig, RegionConfig, TextConfig, VisionConfig


@struct.dataclass
class VisionParams:
    """Vision encoder and projection. `ln` rows: (ln1, ln2) x (scale, bias)."""

    patch_w: Weight  # [E, channels * patch * patch], columns ordered channel, row, column
    patch_b: Leaf  # [E]
    pos_emb: Leaf  # [grid * grid, E]
    ln: Leaf  # [L, 2, 2, E]
    qkv_w: Weight  # [L, 3 * E, E]
    qkv_b: Leaf  # [L, 3 * E]
    proj_w: Weight  # [L, E, E]
    proj_b: Leaf  # [L, E]
    fc1_w: Weight  # [L, F, E]
    fc1_b: Leaf  # [L, F]
    fc2_w: Weight  # [L, E, F]
    fc2_b: Leaf  # [L, E]
    post_ln: Leaf  # [2, E] scale, bias
    proj_fc1_w: Weight  # [inner, 2 * E], global features first
    proj_fc1_b: Leaf  # [inner]
    proj_fc2_w: Weight  # [D, inner]
    proj_fc2_b: Leaf  # [D]


@struct.dataclass
class TextLayer:
    """The large matrices of one text layer, which is dense or has experts."""

    in_w: Weight  # [Q + F, D] with Q = (N + 2 K) * H: rows of q, k, v, then of fc1; with experts [Q, D]
    out_w: Weight  # [D, N * H + F]: columns of the attention's proj, then of fc2; with experts [D, N * H]
    tau_w: Weight | None  # [2 * N, Q]: the factors of q, then of v; None without tau attention
    experts: ExpertParams | None  # None where the layer is dense
    direct: ChosenPairs | None = None  # of adapters: what its input adds to its output, [D, D]


@struct.dataclass
class TextParams:
    """Text decoder. Of its L layers the first M are dense, with row i of `in_b` and `out_b`; layer i >= M has experts,
    and row i - M of `qkv_b`, `proj_b` and `router_b`. A leaf without rows is None."""

    wte: Leaf  # [V, D]
    layers: tuple[TextLayer, ...]
    ln: Leaf  # [L, 2, D] scale, bias
    in_b: Leaf  # [M, Q + F], of the rows of `in_w`
    out_b: Leaf  # [M, 2, D]: of proj and of fc2
    qkv_b: Leaf  # [L - M, Q]
    proj_b: Leaf  # [L - M, D]
    router_b: Leaf  # [L - M, E]
    tau_alpha: Leaf  # float32 [L, N]; None without tau attention
    kv_scale: Leaf  # float32 [L, 2] of float8 keys, values; None where the checkpoint has none
    post_ln: Leaf  # [2, D] scale, bias
    lm_head_w: Weight  # [V, D]
    lm_head_b: Leaf  # [V]


@struct.dataclass
class RegionParams:
    """Coordinate and size encoders and decoders; coordinate rows come first where two are joined.

    Linear decoders read `ln` of the hidden state directly: their `fc1_w` and `fc1_b` are None. `ln` is None unless
    the checkpoint has one: absent means identity, not unit weights.
    """

    coord_features: Leaf  # float32 [1, coord_feat_dim / 2]
    size_features: Leaf  # float32 [2, size_feat_dim / 2]
    coord_enc_w: Weight  # [D, coord_feat_dim]
    size_enc_w: Weight  # [D, size_feat_dim]
    enc_b: Leaf  # [2, D] coordinate, size
    fc1_w: Weight | None  # [2 * inner, D]
    fc1_b: Leaf  # [2 * inner]
    coord_w: Weight  # [bins, inner or D]
    size_w: Weight  # [2 * bins, inner or D]: width, then height
    head_b: Leaf  # [3 * bins]
    ln: Leaf  # [2, D] scale, bias


@struct.dataclass
class Params:
    """All parameters of one model."""

    vision: VisionParams
    text: TextParams
    region: RegionParams


@dataclass(frozen=True, slots=True)
class Form:
    """What a checkpoint decides beside the settings.

    Attributes:
      kv_scales: whether it has the scales of a float8 key/value cache.
    """

    kv_scales: bool = False


PUBLISHED = Form()


def specs(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16, form: Form = PUBLISHED) -> Params:
    """The parameter tree of `config` with `jaxphoton.layers.spec.Spec` leaves.

    What meets a number in float32 stays float32 in every dtype: Fourier features and `tau_alpha` make angles and
    factors of positions, scales restore float8. Matrices are plain; `jaxphoton.layers.spec.with_forms` makes others of
    them.
    """
    make = Specs(dtype)
    return Params(
        vision=_vision(config.vision, make),
        text=_text(config.text, make, form),
        region=_region(config.region, make),
    )


def abstract(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16, form: Form = PUBLISHED) -> Params:
    """`specs` as jax.ShapeDtypeStruct leaves."""
    return spec.abstract(specs(config, dtype, form))


def count(params: Params) -> int:
    """The number of parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _vision(c: VisionConfig, make: Specs) -> VisionParams:
    layers, dim, ff, inner = c.enc_n_layers, c.enc_dim, c.enc_ff_dim, c.proj_inner_dim
    return VisionParams(
        **vision_block.specs(make, layers, dim, ff, c.patch_dim, c.image_tokens),
        post_ln=make.leaf(_scale_bias=2, vision_embed=dim),
        proj_fc1_w=make.matrix(vision_mlp=inner, _maps=2 * dim),
        proj_fc1_b=make.leaf(vision_mlp=inner),
        proj_fc2_w=make.matrix(embed=c.proj_out_dim, vision_mlp=inner),
        proj_fc2_b=make.leaf(embed=c.proj_out_dim),
    )


def _text(c: TextConfig, make: Specs, form: Form) -> TextParams:
    dense = c.n_layers if c.moe is None else c.moe.start_layer
    experts = c.n_layers - dense
    return TextParams(
        wte=make.leaf(vocab=c.vocab_size, embed=c.dim),
        layers=tuple(_layer(c, None if i < dense else c.moe, make) for i in range(c.n_layers)),
        ln=make.leaf(layers=c.n_layers, _scale_bias=2, embed=c.dim),
        in_b=make.leaf(layers=dense, inputs=inputs(c)) if dense else None,
        out_b=make.leaf(layers=dense, _part=2, embed=c.dim) if dense else None,
        qkv_b=make.leaf(layers=experts, inputs=qkv(c)) if experts else None,
        proj_b=make.leaf(layers=experts, embed=c.dim) if experts else None,
        router_b=make.leaf(layers=experts, _experts=c.moe.num_experts) if c.moe else None,
        tau_alpha=make.float32(layers=c.n_layers, heads=c.n_heads) if c.tau_attn else None,
        kv_scale=make.float32(layers=c.n_layers, _keys_values=2) if form.kv_scales else None,
        post_ln=make.leaf(_scale_bias=2, embed=c.dim),
        lm_head_w=make.matrix(vocab=c.vocab_size, embed=c.dim),
        lm_head_b=make.leaf(_vocab=c.vocab_size),
    )


def _layer(c: TextConfig, moe: MoeConfig | None, make: Specs) -> TextLayer:
    attended = c.n_heads * c.head_dim
    if moe:
        into, out = make.matrix(inputs=qkv(c), embed=c.dim), make.matrix(embed=c.dim, heads=attended)
    else:
        into = make.matrix(inputs=inputs(c), embed=c.dim)
        out = make.matrix(embed=c.dim, outputs=outputs(c))
    return TextLayer(
        in_w=into,
        out_w=out,
        # Every factor reads all heads.
        tau_w=make.matrix(_factors=2 * c.n_heads, inputs=qkv(c)) if c.tau_attn else None,
        experts=_experts(c.dim, moe, make) if moe else None,
    )


def qkv(c: TextConfig) -> Joined:
    """The rows of q, k and v."""
    kv = c.n_kv_heads * c.head_dim
    return Joined(("heads", c.n_heads * c.head_dim), ("kv_heads", kv), ("kv_heads", kv))


def inputs(c: TextConfig) -> Joined:
    """The rows of a dense layer's input matrix."""
    return Joined(*qkv(c).parts, ("mlp", c.ff_dim))


def outputs(c: TextConfig) -> Joined:
    """The columns of its output matrix."""
    return Joined(("heads", c.n_heads * c.head_dim), ("mlp", c.ff_dim))


def expert_inputs(moe: MoeConfig) -> Joined:
    """The rows of an expert's first matrix."""
    return Joined(*(("expert_mlp", moe.expert_inner_dim),) * 2)


def _experts(dim: int, moe: MoeConfig, make: Specs) -> ExpertParams:
    count, inner = moe.num_experts, moe.expert_inner_dim
    return ExpertParams(
        # Every device chooses among all of them.
        router_w=make.matrix(_experts=count, embed=dim),
        fc1_w=make.matrix(experts=count, inputs=expert_inputs(moe), embed=dim),
        fc2_w=make.matrix(experts=count, embed=dim, expert_mlp=inner),
    )


def _region(c: RegionConfig, make: Specs) -> RegionParams:
    mlp = c.decoder_arch == "mlp"
    # Whole on every device of a mesh: a decode step reads the heads in a branch, where none may wait for another.
    features = {"_inner": c.inner_dim} if mlp else {"embed": c.dim}
    return RegionParams(
        coord_features=make.float32(_values=1, _features=c.coord_feat_dim // 2),
        size_features=make.float32(_values=2, _features=c.size_feat_dim // 2),
        coord_enc_w=make.matrix(embed=c.dim, _features=c.coord_feat_dim),
        size_enc_w=make.matrix(embed=c.dim, _features=c.size_feat_dim),
        enc_b=make.leaf(_kind=2, embed=c.dim),
        fc1_w=make.matrix(_inner=2 * c.inner_dim, embed=c.dim) if mlp else None,
        fc1_b=make.leaf(_inner=2 * c.inner_dim) if mlp else None,
        coord_w=make.matrix(bins=c.coord_out_dim, **features),
        size_w=make.matrix(bins=c.size_out_dim, **features),
        head_b=make.leaf(_bins=c.coord_out_dim + c.size_out_dim),
        ln=make.leaf(_scale_bias=2, embed=c.dim) if c.use_ln else None,
    )
