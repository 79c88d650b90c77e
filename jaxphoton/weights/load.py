"""Parameters from a checkpoint: checked as a whole from the headers, then built and placed one leaf at a time."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.config import ModelConfig, load_config
from jaxphoton.model.params import Params, abstract
from jaxphoton.weights.checkpoint import Checkpoint, TensorEntry, WeightsError, open_checkpoint
from jaxphoton.weights.mapping import (
    Placement,
    Placing,
    Source,
    abstract_leaves,
    canonical_names,
    placed_shape,
    placements,
)

__all__ = ["WeightsError", "load_model", "load_params"]

DTYPES = ("bfloat16", "float16", "float32")
NAMES_SHOWN = 20


def load_model(
    path: str | Path, dtype: DTypeLike = jnp.bfloat16, sharding: Placing = None
) -> tuple[ModelConfig, Params]:
    """Settings and parameters of a local model: a converted checkpoint, a folder of safetensors, or one such file.

    A single file takes its settings from the `config.json` beside it.

    Raises:
      ConfigError: the settings are missing or wrong.
      WeightsError: the weights are missing, damaged, or those of another model.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder")
    config = load_config((path if path.is_dir() else path.parent) / "config.json")
    if (path / "params").is_dir():
        from jaxphoton.weights import orbax  # slow to import, and needed for converted checkpoints only

        return config, orbax.restore(path, config, dtype, sharding)
    return config, load_params(path, config, dtype, sharding)


def load_params(
    path: str | Path, config: ModelConfig, dtype: DTypeLike = jnp.bfloat16, sharding: Placing = None
) -> Params:
    """Parameters of `config` from a safetensors file or folder, cast to `dtype` (the Fourier features stay float32).

    The host holds one leaf at a time beside what is on the device already, and nothing refers to the files afterwards.

    Raises:
      WeightsError: a damaged file, or one error naming all missing, unexpected and misshapen tensors; nothing has
        been read then.
    """
    if jnp.dtype(dtype).name not in DTYPES:
        raise WeightsError(f"weights cannot be loaded as {jnp.dtype(dtype).name}; use one of {', '.join(DTYPES)}")
    leaves = abstract_leaves(config, dtype)
    checkpoint = open_checkpoint(path)
    plan = _plan(checkpoint, placements(config), leaves)
    arrays = []
    for name, leaf in leaves.items():
        buffer = _assemble(checkpoint, leaf, plan[name])
        # Waiting bounds host memory: a transfer in flight keeps its buffer alive.
        arrays.append(jax.block_until_ready(jax.device_put(buffer, sharding)))
        del buffer
    return jax.tree.unflatten(jax.tree.structure(abstract(config, dtype)), arrays)


def _plan(
    checkpoint: Checkpoint, table: tuple[Placement, ...], leaves: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, list[tuple[Placement, Source]]]:
    """Leaf -> the tensors that fill it; raises with everything that does not fit."""
    try:
        sources, unexpected = canonical_names(checkpoint)
    except WeightsError as error:
        raise WeightsError(f"{checkpoint.path}: {error}") from None
    plan: dict[str, list[tuple[Placement, Source]]] = defaultdict(list)
    missing, misfits = [], []
    for place in table:
        source = sources.pop(place.name, None)
        if source is None:
            missing.append(place.name)
            continue
        wanted = placed_shape(leaves[place.leaf].shape, place.index)
        misfit = _misfit(checkpoint.entry(source.name), wanted, source.transposed)
        if misfit:
            misfits.append(f"{source.name} ({misfit})")
        plan[place.leaf].append((place, source))
    unexpected += [source.name for source in sources.values()]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misfits}
    if any(faults.values()):
        lines = [_fault(kind, names) for kind, names in faults.items() if names]
        raise WeightsError("\n".join([f"{checkpoint.path}: the weights do not fit the model's settings", *lines]))
    return plan


def _misfit(entry: TensorEntry, wanted: tuple[int, ...], transposed: bool) -> str:
    """What keeps a tensor from its place, or an empty string. Axes of extent 1 may differ."""
    if not jnp.issubdtype(entry.dtype, jnp.floating):
        return f"{entry.dtype.name}, not a floating type"
    found = entry.shape[::-1] if transposed else entry.shape
    if [n for n in found if n != 1] != [n for n in wanted if n != 1]:
        return f"{list(entry.shape)} instead of {list(wanted[::-1] if transposed else wanted)}"
    return ""


def _assemble(checkpoint: Checkpoint, leaf: jax.ShapeDtypeStruct, parts: list[tuple[Placement, Source]]) -> np.ndarray:
    """One leaf in memory of its own: on CPU an array may keep the buffer that it is made from."""
    buffer = np.empty(leaf.shape, leaf.dtype)
    for place, source in parts:
        tensor = checkpoint.read(source.name)
        target = buffer[place.index]
        # Assignment casts in small blocks; `astype` would hold the tensor twice.
        target[...] = (tensor.T if source.transposed else tensor).reshape(target.shape)
    return buffer


def _fault(kind: str, names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    rest = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"  {len(names)} {kind}: {shown}{rest}"
