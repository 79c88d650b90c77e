"""What Moondream's checkpoints call their tensors, and where each one goes in `Params`.

Two naming schemes exist. The published one is the canonical one here, without its prefix `model.`; the training-style
one is renamed. From canonical names placements lead to leaves: data, by which a checkpoint is checked as a whole before
any weight is read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Set

from jaxphoton.models.moondream.adapter_names import MoondreamAdapterNames
from jaxphoton.models.moondream.config import ModelConfig, MoeConfig, RegionConfig, TextConfig, VisionConfig
from jaxphoton.models.moondream.earlier import STORED_APART, apart
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.models.moondream.params import PUBLISHED, Form
from jaxphoton.models.naming import Index, Moved, Placement, Source, Use, WeightsError, canonical

_V = r"vision_encoder\.encoder\.model\.visual\."
_H = r"text_model\.transformer\.h\.(\d+)\."
_W = r"(weight|bias|scale|zero)"

# Training-style name -> canonical name.
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
    (rf"{_H}tau_(wq|wv|wqwv|alpha)", r"text.blocks.\1.attn.tau.\2"),
    (rf"{_H}kv_quantizer\.([kv])_scale", r"text.blocks.\1.attn.\2_scale"),
    (rf"{_H}gate\.{_W}", r"text.blocks.\1.mlp.router.\2"),
    (rf"{_H}mlp\.experts\.{_W}", r"text.blocks.\1.mlp.fc1.\2"),
    (rf"{_H}mlp\.output_experts\.{_W}", r"text.blocks.\1.mlp.fc2.\2"),
    (rf"{_H}moe_quant\.up_scale", r"text.blocks.\1.mlp.fc1.scale"),
    (rf"{_H}moe_quant\.down_scale", r"text.blocks.\1.mlp.fc2.scale"),
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
FUSED = {"wqwv": ("wq", "wv")}  # last part of a name -> those of the tensors that its halves are, in this order
TRANSPOSED_IN_TRAINING = frozenset({"region.coord_features", "region.size_features"})

# Buffers that some exports carry along; all are derived from the settings. Adapters are not among them: a checkpoint
# with an adapter that was silently left out would be another model.
IGNORED: tuple[str, ...] = (
    r"(?:.*\.)?kv_cache(?:\..*)?",
    r"(?:.*\.)?rotary(?:_emb)?(?:\..*)?",
    r"(?:.*\.)?(?:freqs_cis|inv_freq)",
    r"(?:.*\.)?(?:attn_mask|causal_mask|mask)",
)


def canonical_names(names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
    """Canonical name -> its source, and the names that no table knows; ignored names are in neither.

    The data decide the scheme: training-style files have a `text_model.transformer.`, published ones `text.blocks.`.

    Raises:
      WeightsError: the names follow neither scheme, or two of them mean the same tensor.
    """
    plain = {name: _plain(name) for name in names}
    kept = {name: short for name, short in plain.items() if not _matches(IGNORED, short)}
    training = any(short.startswith("text_model.transformer.") for short in kept.values())
    if not training and not any(short.startswith("text.blocks.") for short in kept.values()):
        raise WeightsError("not a Moondream checkpoint: no tensor is named text.blocks.* or text_model.transformer.*")
    if not training:
        return canonical(kept, lambda name: kept[name], FUSED)
    return canonical(kept, lambda name: _rename(kept[name]), FUSED, TRANSPOSED_IN_TRAINING)


def placements(config: ModelConfig, form: Form = PUBLISHED) -> tuple[Placement, ...]:
    """The placement of every tensor of a checkpoint of `config`; together they fill every leaf exactly."""
    return (*_vision(config.vision), *_text(config.text, form), *_region(config.region))


def uses(c: TextConfig) -> dict[str, Use]:
    """The matrices that may be in few bits, by their path. The patches' is small, and the picture's only way in."""
    found: dict[str, Use] = {"text.lm_head_w": "head"}
    found |= {f"vision.{name}_w": "vision" for name in ("qkv", "proj", "fc1", "fc2", "proj_fc1", "proj_fc2")}
    for i in range(c.n_layers):
        found |= {f"text.layers.{i}.{name}_w": "layers" for name in ("in", "out")}
        if c.moe is not None and i >= c.moe.start_layer:
            found |= {f"text.layers.{i}.experts.{name}_w": "experts" for name in ("fc1", "fc2")}
    return found


def _rename(name: str) -> str | None:
    for pattern, canonical_name in TRAINING_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(canonical_name)
    return None


def module_name(path: str) -> str:
    """The canonical name of a module of either scheme."""
    path = _plain(path)
    renamed = _rename(f"{path}.weight") or ""
    return renamed.removesuffix(".weight") if renamed.endswith(".weight") else path


def _plain(name: str) -> str:
    return name.replace("._orig_mod", "").removeprefix("model.")


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


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
        yield from _norm(f"{block}.ln", "text.ln", (i,))
        if c.tau_attn:
            yield Placement(f"{block}.attn.tau.wq", f"{layer}.tau_w", (slice(0, c.n_heads),))
            yield Placement(f"{block}.attn.tau.wv", f"{layer}.tau_w", (slice(c.n_heads, None),))
            yield Placement(f"{block}.attn.tau.alpha", "text.tau_alpha", (i,))
        if form.kv_scales:
            yield Placement(f"{block}.attn.k_scale", "text.kv_scale", (i, slice(0, 1)))
            yield Placement(f"{block}.attn.v_scale", "text.kv_scale", (i, slice(1, 2)))
        if c.moe is not None and i >= c.moe.start_layer:
            yield from _attention(block, layer, i - c.moe.start_layer)
            yield from _experts(c.moe, i)
        else:
            yield from _dense(c, i)
    yield from _norm("text.post_ln", "text.post_ln")
    yield from _linear("text.lm_head", "text.lm_head")


def _dense(c: TextConfig, i: int) -> Iterable[Placement]:
    """Attention and MLP, side by side in the same leaves."""
    block, layer, attended = f"text.blocks.{i}", f"text.layers.{i}", c.n_heads * c.head_dim
    for name, rows in (("attn.qkv", slice(0, c.qkv_dim)), ("mlp.fc1", slice(c.qkv_dim, None))):
        yield Placement(f"{block}.{name}.weight", f"{layer}.in_w", (rows,))
        yield Placement(f"{block}.{name}.bias", "text.in_b", (i, rows))
    for row, name, columns in ((0, "attn.proj", slice(0, attended)), (1, "mlp.fc2", slice(attended, None))):
        yield Placement(f"{block}.{name}.weight", f"{layer}.out_w", (slice(None), columns))
        yield Placement(f"{block}.{name}.bias", "text.out_b", (i, row))


def _attention(block: str, layer: str, row: int) -> Iterable[Placement]:
    """Of a layer with experts."""
    for name, weight, bias in (("qkv", "in_w", "qkv_b"), ("proj", "out_w", "proj_b")):
        yield Placement(f"{block}.attn.{name}.weight", f"{layer}.{weight}")
        yield Placement(f"{block}.attn.{name}.bias", f"text.{bias}", (row,))


def _experts(moe: MoeConfig, i: int) -> Iterable[Placement]:
    block, experts = f"text.blocks.{i}.mlp", f"text.layers.{i}.experts"
    yield Placement(f"{block}.router.weight", f"{experts}.router_w")
    yield Placement(f"{block}.router.bias", "text.router_b", (i - moe.start_layer,))
    for name in ("fc1", "fc2"):
        yield Placement(f"{block}.{name}.weight", f"{experts}.{name}_w")


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


class MoondreamTensors:
    """`models.tensors.Tensors` of one model."""

    def __init__(self, config: ModelConfig):
        self._config = config

    @property
    def adapters(self) -> MoondreamAdapterNames:
        return MoondreamAdapterNames(self._config.text, module_name)

    def sources(self, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
        return canonical_names(names)

    def fit(self, sources: Mapping[str, Source]) -> tuple[MoondreamFamily, Form, Set[str]]:
        """Whether the region heads read through a LayerNorm is settled by the weights.

        Scales of keys and values that are not there for all layers are left out.
        """
        config = self._config
        use_ln = any(name.startswith("region.ln.") for name in sources)
        config = dataclasses.replace(config, region=dataclasses.replace(config.region, use_ln=use_ln))
        scales = {f"text.blocks.{i}.attn.{kind}_scale" for i in range(config.text.n_layers) for kind in "kv"}
        kv_scales = scales <= sources.keys()
        return MoondreamFamily(config), Form(kv_scales), set() if kv_scales else scales

    def placements(self, form: Form | None) -> tuple[Placement, ...]:
        return placements(self._config, form or PUBLISHED)

    def stored_form(self, leaves: Iterable[str]) -> Form:
        return Form("text.kv_scale" in set(leaves))

    def uses(self) -> dict[str, Use]:
        return uses(self._config.text)

    def moved(self, leaves: Set[str]) -> tuple[Moved, ...]:
        return apart(self._config.text) if STORED_APART in leaves else ()
