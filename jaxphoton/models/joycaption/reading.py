"""Settings of a model from a `config.json` in the LLaVA form of Hugging Face, and back.

Releases of transformers before 5 write `rope_theta` and `rope_scaling`, later ones `rope_parameters`; both are read.
LLaVA is a form, not a family: what is not SigLIP and Llama is refused by what differs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxphoton.config.fields import ConfigError, OtherFamily, require
from jaxphoton.messages import quoted
from jaxphoton.models.joycaption.config import ModelConfig, RopeConfig, TextConfig, VisionConfig

# (part, key, the class's default, the values that are run here); the part "" is the whole file.
ONLY: tuple[tuple[str, str, Any, tuple[Any, ...]], ...] = (
    ("vision_config", "model_type", "clip_vision_model", ("siglip_vision_model",)),
    ("vision_config", "hidden_act", "gelu_pytorch_tanh", ("gelu_pytorch_tanh",)),
    ("vision_config", "num_channels", 3, (3,)),
    ("vision_config", "layer_norm_eps", 1e-6, (1e-6,)),
    ("text_config", "model_type", "llama", ("llama",)),
    ("text_config", "hidden_act", "silu", ("silu",)),
    ("text_config", "attention_bias", False, (False,)),
    ("text_config", "mlp_bias", False, (False,)),
    ("", "projector_hidden_act", "gelu", ("gelu",)),
    ("", "multimodal_projector_bias", True, (True,)),
    ("", "vision_feature_select_strategy", "default", ("full",)),
)


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Settings from those of a `LlavaForConditionalGeneration`.

    Raises:
      OtherFamily: its parts are others than SigLIP and Llama, or put together in another way.
      ConfigError: a setting of the wrong kind or out of range, one that is missing and has no safe default, or some
        that do not fit together.
    """
    parts = {"": data, "vision_config": _object(data, "vision_config"), "text_config": _object(data, "text_config")}
    for part, key, default, allowed in ONLY:
        value = parts[part].get(key, default)
        if value not in allowed:
            where = f"{part}.{key}" if part else key
            raise OtherFamily(f"a LLaVA that is not run here: {where} is {quoted(value)}, not {quoted(allowed[0])}")
    text = dict(parts["text_config"])
    ids = {name: text.get(name, data.get(name)) for name in ("bos_token_id", "eos_token_id")}
    if (end := ids["eos_token_id"]) is not None:
        ids["eos_token_id"] = tuple(end) if isinstance(end, list) else (end,)
    given = {name: value for name, value in ids.items() if value is not None}
    given |= {
        name: data[name]
        for name in ("vision_feature_layer", "image_token_index", "tie_word_embeddings")
        if name in data
    }
    if "image_token_index" not in given and "image_token_id" in data:
        given["image_token_index"] = data["image_token_id"]
    if text.get("tie_word_embeddings") is True:
        given["tie_word_embeddings"] = True
    return ModelConfig(vision=_vision(parts["vision_config"]), text=_text(text), **given)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_dict`, in the newer form."""
    text = dataclasses.asdict(config.text)
    text |= {"model_type": "llama", "rope_parameters": text.pop("rope")}
    text |= {"bos_token_id": config.bos_token_id, "eos_token_id": list(config.eos_token_id)}
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": config.image_token_index,
        "tie_word_embeddings": config.tie_word_embeddings,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": "full",
        "vision_config": dataclasses.asdict(config.vision) | {"model_type": "siglip_vision_model"},
        "text_config": text,
    }


def _vision(data: dict[str, Any]) -> VisionConfig:
    return VisionConfig(**_chosen(VisionConfig, data))


def _text(data: dict[str, Any]) -> TextConfig:
    data = {name: value for name, value in data.items() if value is not None}
    fields = _chosen(TextConfig, {name: value for name, value in data.items() if name != "rope"})
    heads = fields.get("num_attention_heads", 32)
    fields.setdefault("num_key_value_heads", heads)
    if "head_dim" not in fields and all(isinstance(n, int) and n > 0 for n in (heads, fields.get("hidden_size", 4096))):
        fields["head_dim"] = fields.get("hidden_size", 4096) // heads
    return TextConfig(**fields, rope=_rope(data))


def _rope(data: dict[str, Any]) -> RopeConfig:
    scaling = _object(data, "rope_parameters") or _object(data, "rope_scaling")
    theta: Any = scaling.get("rope_theta", data.get("rope_theta"))
    # The class's default would be wrong without a word: no published model of this family has it.
    require(theta is not None, "text_config has no rope_theta")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    needed = () if kind != "llama3" else tuple(f.name for f in dataclasses.fields(RopeConfig)[2:])
    if missing := [name for name in needed if name not in scaling]:
        raise ConfigError(f"text_config has the rotary positions of llama3 without {', '.join(missing)}")
    return RopeConfig(rope_theta=theta, rope_type=kind, **{name: scaling[name] for name in needed})


def _chosen(kind: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """What a dataclass has fields for."""
    return {f.name: data[f.name] for f in dataclasses.fields(kind) if f.name in data}


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    require(value is None or isinstance(value, dict), f"{name} must be an object or null, not {quoted(value)}")
    return value or {}
