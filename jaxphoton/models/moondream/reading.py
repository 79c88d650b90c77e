"""Settings of a model from files in the upstream form, and back."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from jaxphoton.config.fields import ConfigError, OtherFamily, require
from jaxphoton.files import FileError, read_json
from jaxphoton.messages import escaped, listed, quoted
from jaxphoton.models.moondream.config import (
    ModelConfig,
    MoeConfig,
    RegionConfig,
    TextConfig,
    TokenizerConfig,
    VisionConfig,
)
from jaxphoton.models.moondream.templates import id_lists
from jaxphoton.models.registry import MAX_BYTES, checked_type

T = TypeVar("T")

# The wrapper's `model_type` names the defaults of an empty inner object (published Moondream 2 files have one).
MODEL_TYPES = {"moondream1": "moondream2", "moondream2": "moondream2", "moondream3": "moondream3"}
PARTS = {"vision": VisionConfig, "text": TextConfig, "region": RegionConfig, "tokenizer": TokenizerConfig}


def load_config(path: str | Path) -> ModelConfig:
    """Reads a `config.json` in the upstream form (or one of the bare files in `configs/`).

    Raises:
      ConfigError: no such regular file, not JSON, of a model of another family, with an unknown setting or one of the
        wrong kind or out of range, or with settings that do not fit together.
    """
    try:
        return config_from_dict(read_json(path, MAX_BYTES))
    except (FileError, ConfigError) as error:
        kind = OtherFamily if isinstance(error, OtherFamily) else ConfigError
        raise kind(f"{escaped(path)}: {error}") from None


def named_config(name: str) -> ModelConfig:
    """The settings of a released family: `moondream2`, `moondream-0.5b`, `moondream3`."""
    return config_from_dict(_packaged(name))


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """Settings from the upstream dictionary: a wrapper with an inner `config`, or the inner object alone.

    What the inner object leaves out comes from the family that `model_type` names (Moondream 2 by default).
    """
    require(isinstance(data, dict), f"settings must be a JSON object, not {quoted(data)}")
    base = _packaged(_family(data))["config"]
    inner = _object(data["config"], "config") if "config" in data else data
    given = {name: _object(inner.get(name), name) for name in PARTS}
    merged = {name: {**base.get(name, {}), **given[name]} for name in PARTS}
    if isinstance(merged["text"].get("moe"), dict):
        merged["text"]["moe"] = _build(MoeConfig, merged["text"]["moe"], "text.moe")
    config = ModelConfig(**{name: _build(kind, merged[name], name) for name, kind in PARTS.items()})
    _check_ids(config.tokenizer, config.text.vocab_size)
    return config


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """The inverse of `config_from_dict`, in the upstream form."""
    return {"model_type": "moondream3" if config.text.moe else "moondream1", "config": dataclasses.asdict(config)}


def _check_ids(tokens: TokenizerConfig, vocab_size: int) -> None:
    special = {f"tokenizer.{f.name}": [getattr(tokens, f.name)] for f in dataclasses.fields(tokens) if f.type == "int"}
    for name, ids in (*special.items(), *id_lists(tokens.templates)):
        beyond = next((index for index in ids if index >= vocab_size), None)
        if beyond is not None:
            raise ConfigError(f"{name} holds {beyond}, which is no token id: text.vocab_size is {vocab_size}")


def _family(data: dict[str, Any]) -> str:
    kind = checked_type(data)
    if kind not in MODEL_TYPES:
        raise OtherFamily(f"not a Moondream model: {kind}; those are {', '.join(MODEL_TYPES)}")
    return MODEL_TYPES[kind]


def _object(value: Any, where: str) -> dict[str, Any]:
    require(value is None or isinstance(value, dict), f"{where} must be an object or null, not {quoted(value)}")
    return value or {}


def _packaged(name: str) -> dict[str, Any]:
    file = resources.files("jaxphoton").joinpath("configs", f"{name}.json")
    if not file.is_file():
        raise ConfigError(f"unknown model family {name!r}")
    return json.loads(file.read_text(encoding="utf-8"))


def _build(cls: type[T], values: dict[str, Any], where: str) -> T:
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known - {"group_size"})
    if unknown:
        raise ConfigError(f"unknown settings in {where}: {listed(unknown)}")
    return cls(**{name: value for name, value in values.items() if name in known})
