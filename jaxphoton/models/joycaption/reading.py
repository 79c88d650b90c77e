"""Settings of a model from a `config.json` in the LLaVA form of Hugging Face, and back.

LLaVA is a form, not a family: what is not SigLIP and Llama is refused by what differs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxphoton.config.fields import ConfigError, OtherFamily
from jaxphoton.messages import quoted
from jaxphoton.models.beside import TOKENS, added_tokens
from jaxphoton.models.joycaption.config import ModelConfig, SpecialIds
from jaxphoton.models.llama import reading as llama
from jaxphoton.models.llama.reading import chosen, ids_of, part
from jaxphoton.models.siglip import config as siglip
from jaxphoton.models.siglip.config import VisionConfig

ONLY: tuple[llama.Only, ...] = (
    ("vision_config", "model_type", "clip_vision_model", ("siglip_vision_model",)),
    *siglip.ONLY,
    *llama.ONLY,
    ("", "projector_hidden_act", "gelu", ("gelu",)),
    ("", "multimodal_projector_bias", True, (True,)),
    ("", "vision_feature_select_strategy", "default", ("full",)),
)


NAMES = tuple(SpecialIds(0, 0).named)


def beside(folder: Path) -> dict[str, Any]:
    """What the tokenizer of a model's folder says of the ids that its prompts have, if it is there.

    Raises:
      ConfigError: it cannot be read.
    """
    tokens = added_tokens(folder, NAMES) if (folder / "tokenizer.json").exists() else None
    return {} if tokens is None else {TOKENS: tokens}


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Settings from those of a `LlavaForConditionalGeneration`.

    Raises:
      OtherFamily: its parts are others than SigLIP and Llama, or put together in another way.
      ConfigError: a setting of the wrong kind or out of range, one that is missing and has no safe default, or some
        that do not fit together.
    """
    vision, text = part(data, "vision_config"), part(data, "text_config")
    llama.require_only("LLaVA", {"": data, "vision_config": vision, "text_config": text}, ONLY)
    ids = {name: text.get(name, data.get(name)) for name in ("bos_token_id", "eos_token_id")}
    ids["eos_token_id"] = ids_of(ids["eos_token_id"])
    given = {name: value for name, value in ids.items() if value is not None}
    given |= {
        name: data[name]
        for name in ("vision_feature_layer", "image_token_index", "tie_word_embeddings", "resample")
        if name in data
    }
    if "image_token_index" not in given and "image_token_id" in data:
        given["image_token_index"] = data["image_token_id"]
    if text.get("tie_word_embeddings") is True:
        given["tie_word_embeddings"] = True
    given["generation"] = llama.generation_config(data)
    config = ModelConfig(vision=VisionConfig(**chosen(VisionConfig, vision)), text=llama.text_config(text), **given)
    if TOKENS in data:
        _check_tokens(config, part(data, TOKENS))
    return config


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_dict`, in the newer form."""
    ids = {"bos_token_id": config.bos_token_id, "eos_token_id": list(config.eos_token_id)}
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": config.image_token_index,
        "tie_word_embeddings": config.tie_word_embeddings,
        "resample": config.resample,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": "full",
        "vision_config": dataclasses.asdict(config.vision) | {"model_type": "siglip_vision_model"},
        "text_config": llama.text_to_dict(config.text) | ids,
    } | llama.generation_to_dict(config.generation)


def _check_tokens(config: ModelConfig, found: dict[str, Any]) -> None:
    """Prompts have ids at fixed distances from those in the settings, which mean nothing in another vocabulary."""
    for name, index in SpecialIds(config.bos_token_id, config.image_token_index).named.items():
        if name not in found and "reserved" not in name:
            raise OtherFamily(f"a LLaVA that is not run here: its tokenizer has no {name}")
        if found.get(name, index) != index:
            ids = f"bos_token_id {config.bos_token_id}, image_token_index {config.image_token_index}"
            raise ConfigError(f"{name} of the tokenizer is {quoted(found[name])}, and by the settings {index} ({ids})")
