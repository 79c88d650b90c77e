"""Settings of the text decoder from the parts of a `config.json`, and back.

Releases of transformers before 5 write `rope_theta` and `rope_scaling`, later ones `rope_parameters`; both are read.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxphoton.config.fields import ConfigError, OtherFamily, require
from jaxphoton.messages import quoted
from jaxphoton.models.llama.config import GenerationConfig, RopeConfig, TextConfig

# (part, key, the class's default, the values that are run here), as `require_only` takes them.
Only = tuple[str, str, Any, tuple[Any, ...]]
ONLY: tuple[Only, ...] = (
    ("text_config", "model_type", "llama", ("llama",)),
    ("text_config", "hidden_act", "silu", ("silu",)),
    ("text_config", "attention_bias", False, (False,)),
    ("text_config", "mlp_bias", False, (False,)),
)


def require_only(what: str, parts: dict[str, dict[str, Any]], only: tuple[Only, ...]) -> None:
    """
    Args:
      what: such a model in words.
      parts: of a `config.json`, the whole file under "".

    Raises:
      OtherFamily: one that is another, named by what differs.
    """
    for part, key, default, allowed in only:
        value = parts[part].get(key, default)
        if value not in allowed:
            where = f"{part}.{key}" if part else key
            raise OtherFamily(f"a {what} that is not run here: {where} is {quoted(value)}, not {quoted(allowed[0])}")


def text_config(data: dict[str, Any]) -> TextConfig:
    """Settings from a `text_config`.

    Raises:
      ConfigError: one of the wrong kind or out of range, or one that is missing and has no safe default.
    """
    data = {name: value for name, value in data.items() if value is not None}
    fields = chosen(TextConfig, {name: value for name, value in data.items() if name != "rope"})
    heads = fields.get("num_attention_heads", 32)
    fields.setdefault("num_key_value_heads", heads)
    if "head_dim" not in fields and all(isinstance(n, int) and n > 0 for n in (heads, fields.get("hidden_size", 4096))):
        fields["head_dim"] = fields.get("hidden_size", 4096) // heads
    return TextConfig(**fields, rope=_rope(data))


def text_to_dict(config: TextConfig) -> dict[str, Any]:
    """The inverse of `text_config`, in the newer form."""
    text = dataclasses.asdict(config)
    return text | {"model_type": "llama", "rope_parameters": text.pop("rope")}


def generation_config(data: dict[str, Any]) -> GenerationConfig:
    """What a `generation_config.json` says, which is under this name in the settings.

    Raises:
      ConfigError: something of the wrong kind.
    """
    data = part(data, "generation_config")
    given = {name: data[name] for name in ("temperature", "top_p") if data.get(name) is not None}
    if data.get("do_sample") is False:  # what a sampler would take does not count then
        given = {"temperature": 0.0}
    return GenerationConfig(ids_of(data.get("eos_token_id")) or (), **given)


def generation_to_dict(config: GenerationConfig) -> dict[str, Any]:
    """The inverse of `generation_config`."""
    given = {name: value for name, value in dataclasses.asdict(config).items() if value not in (None, ())}
    return {"generation_config": given} if given else {}


def ids_of(value: Any) -> Any:
    """One id or a list of them as a tuple; None for none."""
    return tuple(value) if isinstance(value, list) else None if value is None else (value,)


def _rope(data: dict[str, Any]) -> RopeConfig:
    scaling = part(data, "rope_parameters") or part(data, "rope_scaling")
    theta: Any = scaling.get("rope_theta", data.get("rope_theta"))
    # The class's default would be wrong without a word: no published model of this family has it.
    require(theta is not None, "text_config has no rope_theta")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    needed = () if kind != "llama3" else tuple(f.name for f in dataclasses.fields(RopeConfig)[2:])
    if missing := [name for name in needed if name not in scaling]:
        raise ConfigError(f"text_config has the rotary positions of llama3 without {', '.join(missing)}")
    return RopeConfig(rope_theta=theta, rope_type=kind, **{name: scaling[name] for name in needed})


def chosen(kind: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """What a dataclass has fields for."""
    return {f.name: data[f.name] for f in dataclasses.fields(kind) if f.name in data}


def part(data: dict[str, Any], name: str) -> dict[str, Any]:
    """An object in the settings, empty where it is missing or null.

    Raises:
      ConfigError: it is something else.
    """
    value = data.get(name)
    require(value is None or isinstance(value, dict), f"{name} must be an object or null, not {quoted(value)}")
    return value or {}
