"""A model from its files: parameters on a device, settings, tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxphoton import distributed, platform
from jaxphoton.config import EngineConfig
from jaxphoton.config.quantization import Quantization
from jaxphoton.engine.agreement import require_all
from jaxphoton.engine.executables import Executables, ExecutablesError
from jaxphoton.engine.places import Here
from jaxphoton.layers.mesh import RULES, Split, check_names, engine_split
from jaxphoton.layers.spec import by_path, like
from jaxphoton.messages import quoted
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.protocol import Family
from jaxphoton.prompt.tokenizer import Tokenizer, load_tokenizer
from jaxphoton.requests.adapters import AdapterRegistry, GivenAdapters, named
from jaxphoton.requests.errors import EngineStartError, fault_of, forget_frames
from jaxphoton.weights import hub
from jaxphoton.weights.adapters import load_adapter
from jaxphoton.weights.load import load_model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

SPLIT = (
    "a sharding must keep every parameter whole on each device (replicated): the programs do not split the work; for "
    "that there is mesh"
)
NO_MESH = "mesh_rules are those of a mesh, and there is none"
MeshRules = Mapping[str, tuple[str, ...]] | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a model is made of.

    Attributes:
      path: where it lies.
      split: how the parameters lie on a mesh; None without one.
    """

    params: Any
    config: Any
    tokenizer: Tokenizer
    path: Path
    split: Split | None


def load(
    path_or_id: str,
    revision: str | None,
    dtype: str | DTypeLike | None,
    device: str | platform.Device | None,
    sharding: jax.sharding.Sharding | None,
    float8_experts: bool,
    *,
    mesh: str | Mesh | None = None,
    mesh_rules: MeshRules = None,
    quantize: str | Quantization | None = None,
    coordinates: str,
) -> Loaded:
    """The arguments, and what is raised, are those of `Model.from_pretrained`."""
    _check_places(device, sharding, mesh)
    if mesh is None and mesh_rules is not None:
        raise ValueError(NO_MESH)
    platform.use_compilation_cache()
    over = None if mesh is None else platform.find_mesh(mesh)
    require_all(over, distributed.peers())
    chosen = platform.find_device(device) if over is None else over.local_devices[0]
    kind = platform.default_dtype(chosen) if dtype is None else _dtype(dtype)
    path = hub.resolve(path_or_id, revision, float8_experts)
    split = None if over is None else split_for(hub.check(path), over, mesh_rules)
    try:
        place = sharding or split or chosen
        family, params = load_model(path, kind, place, quantized=float8_experts, quantize=quantize)
    except jax.errors.JaxRuntimeError as error:
        forget_frames(error)
        raise EngineStartError(f"the parameters cannot be put on the device: {fault_of(error)}") from error
    family = family.with_coordinates(coordinates)
    tokenizer = load_tokenizer(hub.resolve_tokenizer(path_or_id, path, family), family.vocab_size)
    return Loaded(params, family.config, tokenizer, path, split)


def split_for(family: Family, mesh: str | Mesh, rules: MeshRules) -> Split:
    """How the parameters of a family lie on a mesh.

    Raises:
      MeshError: it does not fit the family or this machine, or the rules are of other axes than `layers.mesh.RULES`.
      TypeError: it is none, or they are.
    """
    check_names(rules, RULES)  # a program sums over no others
    return engine_split(platform.find_mesh(mesh), family.network.counts(), rules)


def specs_of(family: Family, params: Any) -> Any:
    """The specs of parameters, with plain matrices."""
    return family.network.specs(family.network.dtype(params), family.tensors.stored_form(by_path(params)))


def in_own_order(family: Family, params: Any, split: Split | None) -> Iterator[np.ndarray]:
    """The leaves of parameters one by one on the host, in the order of `jaxphoton.functional` on a mesh too."""
    leaves = jax.tree.leaves(params)
    if split is None:
        yield from map(np.asarray, leaves)
        return
    specs = jax.tree.leaves(like(specs_of(family, params), params))
    for leaf, spec in zip(leaves, specs, strict=True):
        yield split.restored(np.asarray(leaf), spec)


def _check_places(
    device: str | platform.Device | None, sharding: jax.sharding.Sharding | None, mesh: str | Mesh | None
) -> None:
    if sum(place is not None for place in (device, sharding, mesh)) > 1:
        raise ValueError("give device, sharding or mesh, not several of them")
    if sharding is not None and not isinstance(sharding, jax.sharding.Sharding):
        raise TypeError(f"sharding must be a jax.sharding.Sharding, not {quoted(sharding)}")
    if sharding is not None and not sharding.is_fully_replicated:
        raise ValueError(f"{SPLIT}; got {sharding}")


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


def check_engine(engine: Any) -> None:
    if not isinstance(engine, EngineConfig):
        raise TypeError(f"the settings of the engine must be an EngineConfig, not {type(engine).__name__}")


def open_executables(
    folder: str | os.PathLike[str],
    device: str | platform.Device | None,
    sharding: jax.sharding.Sharding | None,
    mesh: str | Mesh | None = None,
) -> Executables:
    """Executables for a device; before weights are loaded, what can be known of them is checked.

    Raises:
      ExecutablesError: they are damaged, or not for this machine.
      ValueError: with a sharding or a mesh.
    """
    if sharding is not None or mesh is not None:
        raise ValueError(f"executables run on one device: give no {'sharding' if mesh is None else 'mesh'}")
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
