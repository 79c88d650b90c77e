"""A model from its files: parameters on a device, settings, tokenizer."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton import platform
from jaxphoton.config.quantization import Quantization
from jaxphoton.engine.executables import Executables, ExecutablesError
from jaxphoton.engine.places import Here
from jaxphoton.messages import quoted
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.params import Params
from jaxphoton.prompt.tokenizer import Tokenizer, load_tokenizer
from jaxphoton.requests.adapters import AdapterRegistry, GivenAdapters, named
from jaxphoton.requests.errors import EngineStartError, fault_of, forget_frames
from jaxphoton.weights import hub
from jaxphoton.weights.adapters import load_adapter
from jaxphoton.weights.load import load_model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

SPLIT = "a sharding must keep every parameter whole on each device (replicated): the programs do not split the work"


def load(
    path_or_id: str,
    revision: str | None,
    dtype: str | DTypeLike | None,
    device: str | platform.Device | None,
    sharding: jax.sharding.Sharding | None,
    float8_experts: bool,
    *,
    quantize: str | Quantization | None = None,
    coordinates: str,
) -> tuple[Params, ModelConfig, Tokenizer, Path]:
    """And where it lies. The arguments, and what is raised, are those of `Moondream.from_pretrained`."""
    if device is not None and sharding is not None:
        raise ValueError("give device or sharding, not both")
    if sharding is not None and not isinstance(sharding, jax.sharding.Sharding):
        raise TypeError(f"sharding must be a jax.sharding.Sharding, not {quoted(sharding)}")
    if sharding is not None and not sharding.is_fully_replicated:
        raise ValueError(f"{SPLIT}; got {sharding}")
    platform.use_compilation_cache()
    chosen = platform.find_device(device)
    kind = platform.default_dtype(chosen) if dtype is None else _dtype(dtype)
    path = hub.resolve(path_or_id, revision, float8_experts)
    try:
        family, params = load_model(path, kind, sharding or chosen, quantized=float8_experts, quantize=quantize)
    except jax.errors.JaxRuntimeError as error:
        forget_frames(error)
        raise EngineStartError(f"the parameters cannot be put on the device: {fault_of(error)}") from error
    config = family.config
    config = dataclasses.replace(config, region=dataclasses.replace(config.region, coord_divisor=coordinates))
    tokenizer = load_tokenizer(hub.resolve_tokenizer(path_or_id, path, family), config.text.vocab_size)
    return params, config, tokenizer, path


def read_adapters(
    path_or_id: str, revision: str | None, float8_experts: bool, adapters: GivenAdapters
) -> dict[str, Adapter]:
    """The adapters of a model that is still to be loaded, which takes longer.

    Raises:
      WeightsError, ConfigError: they cannot be read or do not fit the model, or there is no model.
      ValueError, TypeError: a name that is none, or what is no adapter.
    """
    family = hub.check(hub.resolve(path_or_id, revision, float8_experts))
    registry = AdapterRegistry(partial(load_adapter, family=family))
    return {name: registry.read(name, adapter) for name, adapter in named(adapters).items()}


def open_executables(
    folder: str | os.PathLike[str], device: str | platform.Device | None, sharding: jax.sharding.Sharding | None
) -> Executables:
    """Executables for a device; before weights are loaded, what can be known of them is checked.

    Raises:
      ExecutablesError: they are damaged, or not for this machine.
      ValueError: with a sharding.
    """
    if sharding is not None:
        raise ValueError("executables run on one device: give no sharding")
    stored, chosen = Executables.open(folder), platform.find_device(device)
    if chosen.id != min(each.id for each in jax.devices(chosen.platform)):
        raise ExecutablesError(
            f"executables run on the first device of a process, not on {chosen}; choose it by CUDA_VISIBLE_DEVICES"
        )
    stored.require(Here(jax.sharding.SingleDeviceSharding(chosen)).facts())
    return stored


def _dtype(dtype: str | DTypeLike) -> DTypeLike:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        return DTYPES[dtype]
    try:
        return jnp.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)} or a dtype, not {quoted(dtype)}") from None
