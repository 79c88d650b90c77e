"""Converted checkpoints of earlier versions: how their leaves become today's."""

from __future__ import annotations

from collections.abc import Iterable

from jaxphoton.models.moondream.config import TextConfig
from jaxphoton.models.naming import Moved

STORED_APART = "text.attn_bias"  # until November 2026


def apart(c: TextConfig) -> tuple[Moved, ...]:
    """From the leaves in which attention and MLP of a layer were matrices of their own, and biases joined by these."""
    dense = c.n_layers if c.moe is None else c.moe.start_layer
    return tuple(move for i in range(c.n_layers) for move in (_dense(c, i) if i < dense else _experts(c, i, i - dense)))


def _dense(c: TextConfig, i: int) -> Iterable[Moved]:
    layer, heads = f"text.layers.{i}", c.n_heads * c.head_dim
    dense = c.n_layers if c.moe is None else c.moe.start_layer
    attention, mlp = (c.n_layers, c.qkv_dim + c.dim), (dense, c.ff_dim + c.dim)
    qkv, fc1 = slice(0, c.qkv_dim), slice(c.qkv_dim, None)
    proj, fc2 = (slice(None), slice(0, heads)), (slice(None), slice(heads, None))
    yield Moved(f"{layer}.qkv_w", (c.qkv_dim, c.dim), f"{layer}.in_w", (), (qkv,))
    yield Moved(f"{layer}.fc1_w", (c.ff_dim, c.dim), f"{layer}.in_w", (), (fc1,))
    yield Moved(f"{layer}.proj_w", (c.dim, heads), f"{layer}.out_w", (), proj)
    yield Moved(f"{layer}.fc2_w", (c.dim, c.ff_dim), f"{layer}.out_w", (), fc2)
    yield Moved("text.attn_bias", attention, "text.in_b", (i, qkv), (i, qkv))
    yield Moved("text.mlp_bias", mlp, "text.in_b", (i, slice(0, c.ff_dim)), (i, fc1))
    yield Moved("text.attn_bias", attention, "text.out_b", (i, slice(c.qkv_dim, None)), (i, 0))
    yield Moved("text.mlp_bias", mlp, "text.out_b", (i, slice(c.ff_dim, None)), (i, 1))


def _experts(c: TextConfig, i: int, row: int) -> Iterable[Moved]:
    layer, attention = f"text.layers.{i}", (c.n_layers, c.qkv_dim + c.dim)
    yield Moved(f"{layer}.qkv_w", (c.qkv_dim, c.dim), f"{layer}.in_w")
    yield Moved(f"{layer}.proj_w", (c.dim, c.n_heads * c.head_dim), f"{layer}.out_w")
    yield Moved("text.attn_bias", attention, "text.qkv_b", (i, slice(0, c.qkv_dim)), (row,))
    yield Moved("text.attn_bias", attention, "text.proj_b", (i, slice(c.qkv_dim, None)), (row,))
