"""The functions of `jaxphoton.weights` for Moondreams that are given as their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.family import MoondreamFamily
from jaxphoton.weights import hub, load, orbax


def load_model(path: str | Path, *args: Any, **options: Any) -> tuple[ModelConfig, Any]:
    family, params = load.load_model(path, *args, **options)
    return family.config, params


def load_params(path: str | Path, config: ModelConfig, *args: Any, **options: Any) -> Any:
    return load.load_params(path, MoondreamFamily(config), *args, **options)


def save(folder: str | Path, params: Any, config: ModelConfig, tokenizer_file: str | Path | None = None) -> Path:
    return orbax.save(folder, params, MoondreamFamily(config), tokenizer_file)


def restore(folder: str | Path, config: ModelConfig, dtype: Any = jnp.bfloat16, sharding: Any = None) -> Any:
    return orbax.restore(folder, MoondreamFamily(config), dtype, sharding)


def resolve_tokenizer(model: str | Path, folder: str | Path, config: ModelConfig) -> Path:
    return hub.resolve_tokenizer(model, folder, MoondreamFamily(config))
