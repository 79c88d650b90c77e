"""Names of tensors: what a checkpoint calls each one, brought to one scheme by a table.

Two schemes exist. The published one is the canonical one here, without its prefix `model.`; the training-style one
is renamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from jaxphoton.messages import quoted
from jaxphoton.weights.mapped import WeightsError

_V = r"vision_encoder\.encoder\.model\.visual\."
_H = r"text_model\.transformer\.h\.(\d+)\."
_W = r"(weight|bias)"

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
    (rf"{_H}mlp\.experts\.weight", r"text.blocks.\1.mlp.fc1.weight"),
    (rf"{_H}mlp\.output_experts\.weight", r"text.blocks.\1.mlp.fc2.weight"),
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


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of a checkpoint: its name there, whether its two axes are swapped, and which half of its rows it is."""

    name: str
    transposed: bool = False
    half: int | None = None


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
            continue
        transposed = training and canonical in TRANSPOSED_IN_TRAINING
        for part, half in _halves(canonical):
            if part in sources:
                raise WeightsError(f"tensors {quoted(sources[part].name)} and {quoted(name)} are both {quoted(part)}")
            sources[part] = Source(name, transposed, half)
    return sources, unknown


def _halves(name: str) -> list[tuple[str, int | None]]:
    """The canonical names that `name` stands for: its own, or those of the two halves of a fused tensor."""
    front, _, last = name.rpartition(".")
    return [(f"{front}.{part}", half) for half, part in enumerate(FUSED[last])] if last in FUSED else [(name, None)]


def _rename(name: str) -> str | None:
    for pattern, canonical in TRAINING_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(canonical)
    return None


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
