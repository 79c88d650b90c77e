"""Parameters as pytrees, and `specs`, the one truth of their shapes, dtypes and logical axes.

Matrices are `Weight`s in the checkpoints' layout [out, in]. What reads the same input lies in one matrix, rows under
rows: q, k and v, and the gate and the values of an MLP, so that a decode step has four products a layer. Vision layers
are stacked whole, since the encoder scans over them; of its layers only those that are run are there.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from jaxphoton.layers import spec, vision_block
from jaxphoton.layers.spec import Joined, Specs
from jaxphoton.layers.weight import Leaf, Weight
from jaxphoton.models.joycaption.config import ModelConfig, TextConfig


@struct.dataclass
class VisionParams:
    """Vision encoder and projector. `ln` rows: (ln1, ln2) x (scale, bias)."""

    patch_w: Weight  # [E, 3 * patch * patch], columns ordered channel, row, column
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
    proj_fc1_w: Weight  # [D, E]
    proj_fc1_b: Leaf  # [D]
    proj_fc2_w: Weight  # [D, D]
    proj_fc2_b: Leaf  # [D]


@struct.dataclass
class TextLayer:
    """The matrices of one text layer."""

    qkv_w: Weight  # [(N + 2 K) * H, D]: rows of q, k, v
    out_w: Weight  # [D, N * H]
    up_w: Weight  # [2 * F, D]: rows of the gate, then of the values
    down_w: Weight  # [D, F]


@struct.dataclass
class TextParams:
    """Text decoder."""

    wte: Leaf  # [V, D]
    layers: tuple[TextLayer, ...]
    norm: Leaf  # [L, 2, D]: before the attention, before the MLP
    post_norm: Leaf  # [D]
    lm_head_w: Weight  # [V, D]


@struct.dataclass
class Params:
    """All parameters of one model."""

    vision: VisionParams
    text: TextParams


def specs(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """The parameter tree of `config` with `jaxphoton.layers.spec.Spec` leaves; matrices are plain."""
    make = Specs(dtype)
    return Params(vision=_vision(config, make), text=_text(config.text, make))


def abstract(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> Params:
    """`specs` as jax.ShapeDtypeStruct leaves."""
    return spec.abstract(specs(config, dtype))


def qkv(c: TextConfig) -> Joined:
    """The rows of q, k and v."""
    kv = c.num_key_value_heads * c.head_dim
    return Joined(("heads", c.num_attention_heads * c.head_dim), ("kv_heads", kv), ("kv_heads", kv))


def _vision(config: ModelConfig, make: Specs) -> VisionParams:
    c, layers, width = config.vision, config.vision_layers, config.text.hidden_size
    dim, ff = c.hidden_size, c.intermediate_size
    return VisionParams(
        **vision_block.specs(make, layers, dim, ff, c.patch_dim, c.image_tokens),
        proj_fc1_w=make.matrix(vision_mlp=width, vision_embed=dim),
        proj_fc1_b=make.leaf(vision_mlp=width),
        proj_fc2_w=make.matrix(embed=width, vision_mlp=width),
        proj_fc2_b=make.leaf(embed=width),
    )


def _text(c: TextConfig, make: Specs) -> TextParams:
    dim, ff = c.hidden_size, c.intermediate_size
    layer = TextLayer(
        qkv_w=make.matrix(inputs=qkv(c), embed=dim),
        out_w=make.matrix(embed=dim, heads=c.num_attention_heads * c.head_dim),
        up_w=make.matrix(inputs=Joined(("mlp", ff), ("mlp", ff)), embed=dim),
        down_w=make.matrix(embed=dim, mlp=ff),
    )
    return TextParams(
        wte=make.leaf(vocab=c.vocab_size, embed=dim),
        layers=(layer,) * c.num_hidden_layers,
        norm=make.leaf(layers=c.num_hidden_layers, _which=2, embed=dim),
        post_norm=make.leaf(embed=dim),
        lm_head_w=make.matrix(vocab=c.vocab_size, embed=dim),
    )
