"""Adapters with random pairs, for any settings of a text decoder."""

from __future__ import annotations

import hashlib

import numpy as np

from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.models.moondream.config import TextConfig


def matrices(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """(rows, columns) of the matrices of the text decoder, behind the number of experts, by canonical name."""
    attended, shapes = config.n_heads * config.head_dim, {}
    for i in range(config.n_layers):
        block = f"text.blocks.{i}"
        shapes[f"{block}.attn.qkv"] = config.qkv_dim, config.dim
        shapes[f"{block}.attn.proj"] = config.dim, attended
        if config.moe is None:
            shapes[f"{block}.attn.proj@input"] = config.dim, config.dim
        if config.moe is None or i < config.moe.start_layer:
            shapes[f"{block}.mlp.fc1"] = config.ff_dim, config.dim
            shapes[f"{block}.mlp.fc2"] = config.dim, config.ff_dim
        else:
            count, inner = config.moe.num_experts, config.moe.expert_inner_dim
            shapes[f"{block}.mlp.fc1"] = count, 2 * inner, config.dim
            shapes[f"{block}.mlp.fc2"] = count, config.dim, inner
    return shapes


def drawn(config: TextConfig, seed: int, rank: int, kept: str = "") -> Adapter:
    """An adapter of all matrices whose name contains `kept`; of experts each has its share of the rank."""
    random, pairs = np.random.default_rng(seed), {}
    for name, (*experts, rows, columns) in matrices(config).items():
        each = -(-rank // config.moe.experts_per_token) if config.moe and experts else rank
        if kept in name:
            shapes = (*experts, each, columns), (*experts, rows, each)
            pairs[name] = LowRank(*(random.normal(0, 0.3, shape).astype(np.float32) for shape in shapes))
    digest = hashlib.sha256(repr((config, seed, rank, kept)).encode()).digest()
    return Adapter(f"drawn {seed}", digest, pairs, "")
