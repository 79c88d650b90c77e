"""Placements as data: where the tensor of a canonical name goes, a leaf of `Params` and an index into it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.models.moondream.config import ModelConfig, MoeConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.moondream.params import Params, abstract

Index = tuple[int | slice, ...]
Placing = jax.Device | jax.sharding.Sharding | None  # where leaves go; None is the default device


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the canonical tensor `name` goes: `leaf` as a dotted path in `Params`, and the part of it."""

    name: str
    leaf: str
    index: Index = ()


@dataclass(frozen=True, slots=True)
class Form:
    """What the tensors of a checkpoint decide beside the settings: float8 experts, scales of float8 keys and values."""

    float8_experts: bool = False
    kv_scales: bool = False


def abstract_tree(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16, form: Form = Form()) -> Params:
    """`abstract` of a checkpoint's form."""
    return abstract(config, dtype, form.float8_experts, form.kv_scales)


def abstract_leaves(
    config: ModelConfig, dtype: DTypeLike = jnp.bfloat16, form: Form = Form()
) -> dict[str, jax.ShapeDtypeStruct]:
    """Dotted path -> shape and dtype, in the order of the tree's leaves."""
    return by_path(abstract_tree(config, dtype, form))


def by_path(params: Params) -> dict[str, Any]:
    """Dotted path -> leaf, in the order of the tree's leaves."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def placements(config: ModelConfig, form: Form = Form()) -> tuple[Placement, ...]:
    """The placement of every tensor of a checkpoint of `config`; together they fill every leaf exactly."""
    shapes = {leaf: struct.shape for leaf, struct in abstract_leaves(config, form=form).items()}
    table = (*_vision(config.vision), *_text(config.text, form), *_region(config.region))
    filled = Counter[str]()
    for place in table:
        filled[place.leaf] += math.prod(placed_shape(shapes[place.leaf], place.index))
    assert filled == {leaf: math.prod(shape) for leaf, shape in shapes.items()}, "placements do not fill the tree"
    return table


def placed_shape(shape: tuple[int, ...], index: Index) -> tuple[int, ...]:
    """The shape of `leaf[index]` for a leaf of `shape`."""
    head = [len(range(*part.indices(n))) for part, n in zip(index, shape, strict=False) if isinstance(part, slice)]
    return (*head, *shape[len(index) :])


def _vision(c: VisionConfig) -> Iterable[Placement]:
    yield from _linear("vision.patch_emb", "vision.patch")
    yield Placement("vision.pos_emb", "vision.pos_emb")
    for i in range(c.enc_n_layers):
        block = f"vision.blocks.{i}"
        for j in (0, 1):
            yield from _norm(f"{block}.ln{j + 1}", "vision.ln", (i, j))
        for name, leaf in (("attn.qkv", "qkv"), ("attn.proj", "proj"), ("mlp.fc1", "fc1"), ("mlp.fc2", "fc2")):
            yield from _linear(f"{block}.{name}", f"vision.{leaf}", (i,))
    yield from _norm("vision.post_ln", "vision.post_ln")
    yield from _linear("vision.proj_mlp.fc1", "vision.proj_fc1")
    yield from _linear("vision.proj_mlp.fc2", "vision.proj_fc2")


def _text(c: TextConfig, form: Form) -> Iterable[Placement]:
    yield Placement("text.wte", "text.wte")
    for i in range(c.n_layers):
        block, layer = f"text.blocks.{i}", f"text.layers.{i}"
        yield Placement(f"{block}.attn.qkv.weight", f"{layer}.qkv_w")
        yield Placement(f"{block}.attn.proj.weight", f"{layer}.proj_w")
        yield from _norm(f"{block}.ln", "text.ln", (i,))
        yield Placement(f"{block}.attn.qkv.bias", "text.attn_bias", (i, slice(0, c.qkv_dim)))
        yield Placement(f"{block}.attn.proj.bias", "text.attn_bias", (i, slice(c.qkv_dim, None)))
        if c.tau_attn:
            yield Placement(f"{block}.attn.tau.wq", f"{layer}.tau_w", (slice(0, c.n_heads),))
            yield Placement(f"{block}.attn.tau.wv", f"{layer}.tau_w", (slice(c.n_heads, None),))
            yield Placement(f"{block}.attn.tau.alpha", "text.tau_alpha", (i,))
        if form.kv_scales:
            yield Placement(f"{block}.attn.k_scale", "text.kv_scale", (i, slice(0, 1)))
            yield Placement(f"{block}.attn.v_scale", "text.kv_scale", (i, slice(1, 2)))
        if c.moe is not None and i >= c.moe.start_layer:
            yield from _experts(c.moe, i, form)
        else:
            yield from _dense(c, i)
    yield from _norm("text.post_ln", "text.post_ln")
    yield from _linear("text.lm_head", "text.lm_head")


def _dense(c: TextConfig, i: int) -> Iterable[Placement]:
    for name, rows in (("fc1", slice(0, c.ff_dim)), ("fc2", slice(c.ff_dim, None))):
        yield Placement(f"text.blocks.{i}.mlp.{name}.weight", f"text.layers.{i}.{name}_w")
        yield Placement(f"text.blocks.{i}.mlp.{name}.bias", "text.mlp_bias", (i, rows))


def _experts(moe: MoeConfig, i: int, form: Form) -> Iterable[Placement]:
    block, experts = f"text.blocks.{i}.mlp", f"text.layers.{i}.experts"
    yield Placement(f"{block}.router.weight", f"{experts}.router_w")
    yield Placement(f"{block}.router.bias", "text.router_b", (i - moe.start_layer,))
    for name in ("fc1", "fc2"):
        yield Placement(f"{block}.{name}.weight", f"{experts}.{name}_w")
        if form.float8_experts:
            yield Placement(f"{block}.{name}.scale", f"{experts}.{name}_scale")


def _region(c: RegionConfig) -> Iterable[Placement]:
    joined = (
        ("coord", 0, slice(0, c.inner_dim), slice(0, c.coord_out_dim)),
        ("size", 1, slice(c.inner_dim, None), slice(c.coord_out_dim, None)),
    )
    for kind, row, inner, bins in joined:
        yield Placement(f"region.{kind}_features", f"region.{kind}_features")
        yield Placement(f"region.{kind}_encoder.weight", f"region.{kind}_enc_w")
        yield Placement(f"region.{kind}_encoder.bias", "region.enc_b", (row,))
        head = f"region.{kind}_decoder"
        if c.decoder_arch == "mlp":
            yield from _linear(f"{head}.fc1", "region.fc1", (inner,))
            head = f"{head}.fc2"
        yield Placement(f"{head}.weight", f"region.{kind}_w")
        yield Placement(f"{head}.bias", "region.head_b", (bins,))
    if c.use_ln:
        yield from _norm("region.ln", "region.ln")


def _linear(name: str, leaf: str, index: Index = ()) -> Iterable[Placement]:
    yield Placement(f"{name}.weight", f"{leaf}_w", index)
    yield Placement(f"{name}.bias", f"{leaf}_b", index)


def _norm(name: str, leaf: str, index: Index = ()) -> Iterable[Placement]:
    yield Placement(f"{name}.weight", leaf, (*index, 0))
    yield Placement(f"{name}.bias", leaf, (*index, 1))
