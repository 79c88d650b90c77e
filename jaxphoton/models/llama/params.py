"""Parameters of the text decoder as a pytree, and `specs`, the one truth of their shapes, dtypes and logical axes.

Matrices are `Weight`s in the checkpoints' layout [out, in]. What reads the same input lies in one matrix, rows under
rows: q, k and v, and the gate and the values of an MLP, so that a decode step has four products a layer.
"""

from __future__ import annotations

from flax import struct

from jaxphoton.layers.spec import Joined, Specs
from jaxphoton.layers.weight import Leaf, Weight
from jaxphoton.models.llama.config import TextConfig


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


def qkv(c: TextConfig) -> Joined:
    """The rows of q, k and v."""
    kv = c.num_key_value_heads * c.head_dim
    return Joined(("heads", c.num_attention_heads * c.head_dim), ("kv_heads", kv), ("kv_heads", kv))


def qkv_rows(c: TextConfig) -> dict[str, slice]:
    """Where those of each lie."""
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    return {"q": slice(0, q), "k": slice(q, q + kv), "v": slice(q + kv, q + 2 * kv)}


def gate_up(c: TextConfig) -> Joined:
    """The rows of the gate and of the values."""
    return Joined(("mlp", c.intermediate_size), ("mlp", c.intermediate_size))


def gate_up_rows(c: TextConfig) -> dict[str, slice]:
    """Where those of each lie, by their names in a checkpoint."""
    ff = c.intermediate_size
    return {"gate": slice(0, ff), "up": slice(ff, 2 * ff)}


def specs(c: TextConfig, make: Specs) -> TextParams:
    """The text decoder with `jaxphoton.layers.spec.Spec` leaves; matrices are plain."""
    dim, ff = c.hidden_size, c.intermediate_size
    layer = TextLayer(
        qkv_w=make.matrix(inputs=qkv(c), embed=dim),
        out_w=make.matrix(embed=dim, heads=c.num_attention_heads * c.head_dim),
        up_w=make.matrix(inputs=gate_up(c), embed=dim),
        down_w=make.matrix(embed=dim, mlp=ff),
    )
    return TextParams(
        wte=make.leaf(vocab=c.vocab_size, embed=dim),
        layers=(layer,) * c.num_hidden_layers,
        norm=make.leaf(layers=c.num_hidden_layers, _which=2, embed=dim),
        post_norm=make.leaf(embed=dim),
        lm_head_w=make.matrix(vocab=c.vocab_size, embed=dim),
    )
