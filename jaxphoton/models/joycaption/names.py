"""What JoyCaption's checkpoints call their tensors, and where each one goes in `Params`.

Four generations of names exist (transformers 4, 4.52 to 5.0, 5.24, and what 5.24 writes); the canonical ones here are
those of 5.24 without `model.` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jaxphoton.layers.spec import by_path
from jaxphoton.models.joycaption.config import ModelConfig
from jaxphoton.models.joycaption.params import abstract
from jaxphoton.models.llama import names as llama
from jaxphoton.models.llama.adapter_names import LlamaAdapterNames
from jaxphoton.models.naming import Placement, Source, Use, WeightsError, canonical, linear
from jaxphoton.models.siglip import names as siglip
from jaxphoton.models.tensors import OneForm

# Beginnings of names of older generations, and what these are today; each is applied once, in this order.
RENAMED: tuple[tuple[str, str], ...] = (
    ("model.", ""),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "language_model."),
    ("vision_tower.vision_model.", "vision_tower."),
)
TOWER, DECODER, PROJECTOR = "vision_tower", "language_model", "multi_modal_projector"
EMBEDDINGS = f"{DECODER}.{llama.EMBEDDINGS}"
# In every file, and never run: what follows the layer that the projector reads. Buffers are derived from the settings.
UNUSED = re.compile(rf"{TOWER}\.(?:post_layernorm|head)\..*|.*\.(?:inv_freq|position_ids)")


def canonical_names(config: ModelConfig, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
    """Canonical name -> its source, and the names that no table knows; names of what is never run are in neither.

    Raises:
      WeightsError: these are not the tensors of such a model, or two of them are the same one.
    """
    kept = {name: short for name in names if not _is_unused(config, short := plain(name))}
    if EMBEDDINGS not in kept.values() or not any(short.startswith(f"{TOWER}.") for short in kept.values()):
        raise WeightsError(f"not a JoyCaption checkpoint: no {EMBEDDINGS} or no {TOWER}.*")
    sources, unknown = canonical(kept, kept.get, flat=(f"{TOWER}.{siglip.PATCHES}",))
    if config.tie_word_embeddings and llama.HEAD not in sources:
        sources[llama.HEAD] = sources[EMBEDDINGS]
    return sources, unknown


def placements(config: ModelConfig) -> tuple[Placement, ...]:
    """The placement of every tensor of a checkpoint of `config`; together they fill every leaf exactly."""
    vision = siglip.placements(config.vision, config.vision_layers, TOWER, "vision.tower")
    projector = (each for i in (1, 2) for each in linear(f"{PROJECTOR}.linear_{i}", f"vision.proj_fc{i}"))
    return (*vision, *projector, *llama.placements(config.text, DECODER))


def uses(config: ModelConfig) -> dict[str, Use]:
    """The matrices that may be in few bits, by their path."""
    projector: dict[str, Use] = {f"vision.proj_fc{i}_w": "vision" for i in (1, 2)}
    return llama.uses(config.text) | siglip.uses("vision.tower") | projector


def plain(name: str) -> str:
    """The canonical name of a tensor of any generation."""
    for old, new in RENAMED:
        if name.startswith(old):
            name = new + name.removeprefix(old)
    return name


def _is_unused(config: ModelConfig, name: str) -> bool:
    beyond = siglip.is_beyond(config.vision, config.vision_layers, name.removeprefix(f"{TOWER}."))
    return name.startswith(f"{TOWER}.") and beyond or UNUSED.fullmatch(name) is not None


class JoyCaptionTensors(OneForm):
    """`models.tensors.Tensors` of one model."""

    @property
    def adapters(self) -> LlamaAdapterNames:
        leaves = by_path(abstract(self._config))
        return LlamaAdapterNames(placements(self._config), leaves, plain, lambda name: _is_unused(self._config, name))

    def sources(self, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
        return canonical_names(self._config, names)

    def placements(self, form: None) -> tuple[Placement, ...]:
        return placements(self._config)

    def uses(self) -> dict[str, Use]:
        return uses(self._config)
