"""What SmolVLM2's checkpoints call their tensors, and where each one goes in `Params`.

There is one generation of names; the canonical ones are those without `model.` in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jaxphoton.layers.spec import by_path
from jaxphoton.models.llama import names as llama
from jaxphoton.models.llama.adapter_names import LlamaAdapterNames
from jaxphoton.models.naming import Placement, Source, Use, WeightsError, canonical
from jaxphoton.models.siglip import names as siglip
from jaxphoton.models.smolvlm.config import ModelConfig
from jaxphoton.models.smolvlm.params import abstract
from jaxphoton.models.tensors import OneForm

TOWER, DECODER, CONNECTOR = "vision_model", "text_model", "connector.modality_projection.proj"
EMBEDDINGS = f"{DECODER}.{llama.EMBEDDINGS}"
UNUSED = re.compile(r".*\.(?:inv_freq|position_ids)")  # buffers, which the settings say again


def canonical_names(names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
    """Canonical name -> its source, and the names that no table knows; names of buffers are in neither.

    Raises:
      WeightsError: these are not the tensors of such a model, or two of them are the same one.
    """
    kept = {name: plain(name) for name in names if UNUSED.fullmatch(name) is None}
    if missing := [name for name in (EMBEDDINGS, f"{CONNECTOR}.weight") if name not in kept.values()]:
        raise WeightsError(f"not a SmolVLM2 checkpoint: no {missing[0]}")
    sources, unknown = canonical(kept, kept.get, flat=(f"{TOWER}.{siglip.PATCHES}",))
    # Files of the smallest model may leave the head out though their settings do not say so.
    sources.setdefault(llama.HEAD, sources[EMBEDDINGS])
    return sources, unknown


def plain(name: str) -> str:
    return name.removeprefix("model.")


def placements(config: ModelConfig) -> tuple[Placement, ...]:
    """The placement of every tensor of a checkpoint of `config`; together they fill every leaf exactly."""
    vision = siglip.placements(config.vision, config.vision.num_hidden_layers, TOWER, "vision.tower")
    norm = (
        Placement(f"{TOWER}.post_layernorm.{kind}", "vision.post_ln", (row,))
        for row, kind in enumerate(("weight", "bias"))
    )
    connector = Placement(f"{CONNECTOR}.weight", "vision.proj_w")
    return (*vision, *norm, connector, *llama.placements(config.text, DECODER))


def uses(config: ModelConfig) -> dict[str, Use]:
    """The matrices that may be in few bits, by their path."""
    connector: dict[str, Use] = {"vision.proj_w": "vision"}
    return llama.uses(config.text) | siglip.uses("vision.tower") | connector


class SmolVLMTensors(OneForm):
    """`models.tensors.Tensors` of one model."""

    @property
    def adapters(self) -> LlamaAdapterNames:
        leaves = by_path(abstract(self._config))
        return LlamaAdapterNames(placements(self._config), leaves, plain, lambda name: False)

    def sources(self, names: Iterable[str]) -> tuple[dict[str, Source], list[str]]:
        return canonical_names(names)

    def placements(self, form: None) -> tuple[Placement, ...]:
        return placements(self._config)

    def uses(self) -> dict[str, Use]:
        return uses(self._config)
