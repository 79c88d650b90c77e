"""Name tables as data: what a checkpoint calls a tensor, and where it goes in the parameter tree.

Two naming schemes exist. The published one is the canonical one here, without its prefix `model.`; the training-style
one is renamed by a table. A canonical name then has one placement: a leaf of `Params` and an index into it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.config import ModelConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.model.params import abstract
from jaxphoton.weights.checkpoint import WeightsError

Index = tuple[int | slice, ...]
Placing = jax.Device | jax.sharding.Sharding | None  # where leaves go; None is the default device

_V = r"vision_encoder\.encoder\.model\.visual\."
_H = r"text_model\.transformer\.h\.(\d+)\."
_W = r"(weight|bias)"

# Training-style name -> canonical name. Moondream 3's rows are here too; its fused `tau_wqwv` is two tensors in one
# and needs a placement of its own.
TRAINING_NAMES: tuple[tuple[str, str], ...] = (
    (rf"{_V}patch_embed\.linear\.{_W}", r"vision.patch_emb.\1"),
    (rf"{_V}pos_embed", r"vision.pos_emb"),
    (rf"{_V}blocks\.(\d+)\.norm([12])\.{_W}", r"vision.blocks.\1.ln\2.\3"),
    (rf"{_V}blocks\.(\d+)\.(attn\.(?:qkv|proj)|mlp\.fc[12])\.{_W}", r"vision.blocks.\1.\2.\3"),
    (rf"{_V}norm\.{_W}", r"vision.post_ln.\1"),
    (rf"vision_encoder\.projection\.mlp\.(fc[12])\.{_W}", r"vision.proj_mlp.\1.\2"),
    (r"text_model\.transformer\.embd\.wte\.weight", r"text.wte"),
    (rf"{_H}ln\.{_W}", r"text.blocks.\1.ln.\2"),
    (rf"{_H}mixer\.Wqkv\.{_W}", r"text.blocks.\1.attn.qkv.\2"),
    (rf"{_H}mixer\.out_proj\.{_W}", r"text.blocks.\1.attn.proj.\2"),
    (rf"{_H}mlp\.(fc[12])\.{_W}", r"text.blocks.\1.mlp.\2.\3"),
    (rf"{_H}tau_(wq|wv|alpha)", r"text.blocks.\1.attn.tau.\2"),
    (rf"{_H}gate\.{_W}", r"text.blocks.\1.mlp.router.\2"),
    (rf"{_H}mlp\.experts\.weight", r"text.blocks.\1.mlp.fc1.weight"),
    (rf"{_H}mlp\.output_experts\.weight", r"text.blocks.\1.mlp.fc2.weight"),
    (rf"text_model\.lm_head\.ln\.{_W}", r"text.post_ln.\1"),
    (rf"text_model\.lm_head\.linear\.{_W}", r"text.lm_head.\1"),
    (r"region_model\.coordinate_features\.weight", r"region.coord_features"),
    (r"region_model\.size_features\.weight", r"region.size_features"),
    (rf"region_model\.coordinate_encoder\.{_W}", r"region.coord_encoder.\1"),
    (rf"region_model\.size_encoder\.{_W}", r"region.size_encoder.\1"),
    (rf"region_model\.coordinate_decoder\.(fc[12])\.{_W}", r"region.coord_decoder.\1.\2"),
    (rf"region_model\.size_decoder\.(fc[12])\.{_W}", r"region.size_decoder.\1.\2"),
    (rf"region_model\.coordinate_head\.{_W}", r"region.coord_decoder.\1"),
    (rf"region_model\.size_head\.{_W}", r"region.size_decoder.\1"),
    (rf"region_model\.ln\.{_W}", r"region.ln.\1"),
)
TRANSPOSED_IN_TRAINING = frozenset({"region.coord_features", "region.size_features"})

# Buffers that some exports carry along; all are derived from the settings. Adapters are not among them: a checkpoint
# with an adapter that was silently left out would be another model.
IGNORED: tuple[str, ...] = (
    r"(?:.*\.)?kv_cache(?:\..*)?",
    r"(?:.*\.)?rotary(?:_emb)?(?:\..*)?",
    r"(?:.*\.)?(?:freqs_cis|inv_freq)",
    r"(?:.*\.)?(?:attn_mask|causal_mask|mask)",
)


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of a checkpoint: its name there, and whether its two axes are swapped."""

    name: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the canonical tensor `name` goes: `leaf` as a dotted path in `Params`, and the part of it."""

    name: str
    leaf: str
    index: Index = ()


def canonical_names(names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
    """Canonical name -> its source, and the names that no table knows; ignored names are in neither.

    The data decide the scheme: training-style files have a `text_model.transformer.`, published ones `text.blocks.`.

    Raises:
      WeightsError: the names follow neither scheme, or two of them mean the same tensor.
    """
    plain = {name: name.replace("._orig_mod", "").removeprefix("model.") for name in names}
    kept = {name: short for name, short in plain.items() if not _matches(IGNORED, short)}
    training = any(short.startswith("text_model.transformer.") for short in kept.values())
    if not training and not any(short.startswith("text.blocks.") for short in kept.values()):
        raise WeightsError("not a Moondream checkpoint: no tensor is named text.blocks.* or text_model.transformer.*")
    sources: dict[str, Source] = {}
    unknown: list[str] = []
    for name, short in kept.items():
        canonical = _rename(short) if training else short
        if canonical is None:
            unknown.append(name)
        elif canonical in sources:
            raise WeightsError(f"tensors {sources[canonical].name!r} and {name!r} are both {canonical!r}")
        else:
            sources[canonical] = Source(name, transposed=training and canonical in TRANSPOSED_IN_TRAINING)
    return sources, unknown


def abstract_leaves(config: ModelConfig, dtype: DTypeLike = jnp.bfloat16) -> dict[str, jax.ShapeDtypeStruct]:
    """Dotted path -> shape and dtype, in the order of the tree's leaves.

    Raises:
      WeightsError: this version cannot build the model.
    """
    try:
        tree = abstract(config, dtype)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def placements(config: ModelConfig) -> tuple[Placement, ...]:
    """The placement of every tensor of a checkpoint of `config`; together they fill every leaf exactly.

    Raises:
      WeightsError: this version cannot build the model.
    """
    shapes = {leaf: struct.shape for leaf, struct in abstract_leaves(config).items()}
    table = (*_vision(config.vision), *_text(config.text), *_region(config.region))
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


def _text(c: TextConfig) -> Iterable[Placement]:
    yield Placement("text.wte", "text.wte")
    for i in range(c.n_layers):
        block = f"text.blocks.{i}"
        for name, leaf in (("attn.qkv", "qkv"), ("attn.proj", "proj"), ("mlp.fc1", "fc1"), ("mlp.fc2", "fc2")):
            yield Placement(f"{block}.{name}.weight", f"text.layers.{i}.{leaf}_w")
        yield from _norm(f"{block}.ln", "text.ln", (i,))
        yield Placement(f"{block}.attn.qkv.bias", "text.attn_bias", (i, slice(0, c.qkv_dim)))
        yield Placement(f"{block}.attn.proj.bias", "text.attn_bias", (i, slice(c.qkv_dim, None)))
        yield Placement(f"{block}.mlp.fc1.bias", "text.mlp_bias", (i, slice(0, c.ff_dim)))
        yield Placement(f"{block}.mlp.fc2.bias", "text.mlp_bias", (i, slice(c.ff_dim, None)))
    yield from _norm("text.post_ln", "text.post_ln")
    yield from _linear("text.lm_head", "text.lm_head")


def _region(c: RegionConfig) -> Iterable[Placement]:
    joined = (
        ("coord", 0, slice(0, c.inner_dim), slice(0, c.coord_out_dim)),
        ("size", 1, slice(c.inner_dim, None), slice(c.coord_out_dim, None)),
    )
    for kind, row, inner, bins in joined:
        yield Placement(f"region.{kind}_features", f"region.{kind}_features")
        yield Placement(f"region.{kind}_encoder.weight", f"region.{kind}_enc_w")
        yield Placement(f"region.{kind}_encoder.bias", "region.enc_b", (row,))
        yield from _linear(f"region.{kind}_decoder.fc1", "region.fc1", (inner,))
        yield Placement(f"region.{kind}_decoder.fc2.weight", f"region.{kind}_w")
        yield Placement(f"region.{kind}_decoder.fc2.bias", "region.head_b", (bins,))


def _linear(name: str, leaf: str, index: Index = ()) -> Iterable[Placement]:
    yield Placement(f"{name}.weight", f"{leaf}_w", index)
    yield Placement(f"{name}.bias", f"{leaf}_b", index)


def _norm(name: str, leaf: str, index: Index = ()) -> Iterable[Placement]:
    yield Placement(f"{name}.weight", leaf, (*index, 0))
    yield Placement(f"{name}.bias", leaf, (*index, 1))


def _rename(name: str) -> str | None:
    for pattern, canonical in TRAINING_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(canonical)
    return None


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
