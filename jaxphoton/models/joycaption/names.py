"""What JoyCaption's checkpoints call their tensors, and where each one goes in `Params`.

Four generations of names exist (transformers 4, 4.52 to 5.0, 5.24, and what 5.24 writes); the canonical ones here are
those of 5.24 without `model.` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set

from jaxphoton.models.joycaption.config import ModelConfig, TextConfig
from jaxphoton.models.naming import Index, Moved, Placement, Source, Use, WeightsError, canonical
from jaxphoton.models.protocol import Family

# Beginnings of names of older generations, and what these are today; each is applied once, in this order.
RENAMED: tuple[tuple[str, str], ...] = (
    ("model.", ""),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "language_model."),
    ("vision_tower.vision_model.", "vision_tower."),
)
PATCHES = "vision_tower.embeddings.patch_embedding.weight"
HEAD, EMBEDDINGS = "lm_head.weight", "language_model.embed_tokens.weight"
# In every file, and never run: what follows the layer that the projector reads. Buffers are derived from the settings.
UNUSED = re.compile(r"vision_tower\.(?:post_layernorm|head)\..*|.*\.(?:inv_freq|position_ids)")
LAYER = re.compile(r"vision_tower\.encoder\.layers\.(\d+)\..*")


def canonical_names(config: ModelConfig, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
    """Canonical name -> its source, and the names that no table knows; names of what is never run are in neither.

    Raises:
      WeightsError: these are not the tensors of such a model, or two of them are the same one.
    """
    kept = {name: short for name in names if not _is_unused(config, short := _plain(name))}
    if EMBEDDINGS not in kept.values() or not any(short.startswith("vision_tower.") for short in kept.values()):
        raise WeightsError(f"not a JoyCaption checkpoint: no {EMBEDDINGS} or no vision_tower.*")
    sources, unknown = canonical(kept, kept.get, flat=(PATCHES,))
    if config.tie_word_embeddings and HEAD not in sources:
        sources[HEAD] = sources[EMBEDDINGS]
    return sources, unknown


def placements(config: ModelConfig) -> tuple[Placement, ...]:
    """The placement of every tensor of a checkpoint of `config`; together they fill every leaf exactly."""
    return (*_vision(config), *_text(config.text))


def uses(config: ModelConfig) -> dict[str, Use]:
    """The matrices that may be in few bits, by their path. The patches' is small, and the picture's only way in."""
    found: dict[str, Use] = {"text.lm_head_w": "head"}
    found |= {f"vision.{name}_w": "vision" for name in ("qkv", "proj", "fc1", "fc2", "proj_fc1", "proj_fc2")}
    for i in range(config.text.num_hidden_layers):
        found |= {f"text.layers.{i}.{name}_w": "layers" for name in ("qkv", "out", "up", "down")}
    return found


def _plain(name: str) -> str:
    for old, new in RENAMED:
        if name.startswith(old):
            name = new + name.removeprefix(old)
    return name


def _is_unused(config: ModelConfig, name: str) -> bool:
    layer = LAYER.fullmatch(name)
    beyond = layer is not None and config.vision_layers <= int(layer[1]) < config.vision.num_hidden_layers
    return beyond or UNUSED.fullmatch(name) is not None


def _vision(config: ModelConfig) -> Iterable[Placement]:
    dim = config.vision.hidden_size
    yield from _linear("vision_tower.embeddings.patch_embedding", "vision.patch")
    yield Placement("vision_tower.embeddings.position_embedding.weight", "vision.pos_emb")
    for i in range(config.vision_layers):
        layer = f"vision_tower.encoder.layers.{i}"
        for j in (0, 1):
            for row, kind in enumerate(("weight", "bias")):
                yield Placement(f"{layer}.layer_norm{j + 1}.{kind}", "vision.ln", (i, j, row))
        for part, name in enumerate("qkv"):
            rows = slice(part * dim, (part + 1) * dim)
            yield from _linear(f"{layer}.self_attn.{name}_proj", "vision.qkv", (i, rows))
        for name, leaf in (("self_attn.out_proj", "proj"), ("mlp.fc1", "fc1"), ("mlp.fc2", "fc2")):
            yield from _linear(f"{layer}.{name}", f"vision.{leaf}", (i,))
    for i in (1, 2):
        yield from _linear(f"multi_modal_projector.linear_{i}", f"vision.proj_fc{i}")


def _text(c: TextConfig) -> Iterable[Placement]:
    q, kv, ff = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, c.intermediate_size
    rows = {"q": slice(0, q), "k": slice(q, q + kv), "v": slice(q + kv, q + 2 * kv)}
    yield Placement(EMBEDDINGS, "text.wte")
    for i in range(c.num_hidden_layers):
        layer, leaf = f"language_model.layers.{i}", f"text.layers.{i}"
        for j, name in enumerate(("input_layernorm", "post_attention_layernorm")):
            yield Placement(f"{layer}.{name}.weight", "text.norm", (i, j))
        for name in "qkv":
            yield Placement(f"{layer}.self_attn.{name}_proj.weight", f"{leaf}.qkv_w", (rows[name],))
        yield Placement(f"{layer}.self_attn.o_proj.weight", f"{leaf}.out_w")
        for name, half in (("gate", slice(0, ff)), ("up", slice(ff, 2 * ff))):
            yield Placement(f"{layer}.mlp.{name}_proj.weight", f"{leaf}.up_w", (half,))
        yield Placement(f"{layer}.mlp.down_proj.weight", f"{leaf}.down_w")
    yield Placement("language_model.norm.weight", "text.post_norm")
    yield Placement(HEAD, "text.lm_head_w")


def _linear(name: str, leaf: str, index: Index = ()) -> Iterable[Placement]:
    yield Placement(f"{name}.weight", f"{leaf}_w", index)
    yield Placement(f"{name}.bias", f"{leaf}_b", index)


class JoyCaptionTensors:
    """`models.tensors.Tensors` of one model, but for adapters."""

    def __init__(self, family: Family):
        self._family, self._config = family, family.config

    def sources(self, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
        return canonical_names(self._config, names)

    def fit(self, sources: Mapping[str, Source]) -> tuple[Family, None, Set[str]]:
        """Nothing is left to the tensors."""
        return self._family, None, frozenset()

    def placements(self, form: None) -> tuple[Placement, ...]:
        return placements(self._config)

    def stored_form(self, leaves: Iterable[str]) -> None:
        return None

    def uses(self) -> dict[str, Use]:
        return uses(self._config)

    def moved(self, leaves: Set[str]) -> tuple[Moved, ...]:
        return ()
