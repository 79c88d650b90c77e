"""Parameters from a checkpoint: checked as a whole from the headers, then built and placed one leaf at a time."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.messages import escaped, listed, quoted, short
from jaxphoton.models.moondream.config import ModelConfig
from jaxphoton.models.moondream.params import Params
from jaxphoton.models.moondream.reading import load_config, settings_file
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError, open_checkpoint
from jaxphoton.weights.float8 import dequantise, require_float8
from jaxphoton.weights.mapped import TensorEntry
from jaxphoton.weights.mapping import Form, Placement, Placing, abstract_leaves, abstract_tree, placed_shape, placements
from jaxphoton.weights.names import Source, canonical_names

__all__ = ["WeightsError", "load_model", "load_params"]

DTYPES = ("bfloat16", "float16", "float32")
ALIGNMENT = 64  # bytes


def load_model(
    path: str | Path,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    float8_experts: bool = False,
) -> tuple[ModelConfig, Params]:
    """Settings and parameters of a local model: a converted checkpoint, a folder of weights, or one file of them.

    A single file takes its settings from the `config.json` beside it. Whether the region heads read through a
    LayerNorm (`region.use_ln`) is settled by the weights.

    Args:
      float8_experts: keep the experts of a float8 checkpoint as they are stored, with their row scales; without it
        they are brought to `dtype`.

    Raises:
      ConfigError: the settings are missing or wrong.
      WeightsError: the weights are missing, damaged, or those of another model, or have no float8 experts to keep.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise WeightsError(f"{escaped(path)}: no such file or folder")
    config = load_config(settings_file(path))
    if os.path.isdir(path / "params"):
        from jaxphoton.weights import orbax  # slow to import, and needed for converted checkpoints only

        return config, orbax.restore(path, config, dtype, sharding, float8_experts)
    return _load(path, config, dtype, sharding, float8_experts)


def load_params(
    path: str | Path,
    config: ModelConfig,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    float8_experts: bool = False,
) -> Params:
    """Parameters of `config` from a file or folder of weights, cast to `dtype` (but see `model.params.abstract`).

    The host holds one leaf at a time beside what is on the device already, and nothing refers to the files afterwards.
    `float8_experts` and `region.use_ln` as in `load_model`.

    Raises:
      WeightsError: a damaged file, or one error naming all missing, unexpected and misshapen tensors; nothing has
        been read then.
    """
    return _load(path, config, dtype, sharding, float8_experts)[1]


def _load(
    path: str | Path, config: ModelConfig, dtype: DTypeLike, sharding: Placing, float8_experts: bool
) -> tuple[ModelConfig, Params]:
    if jnp.dtype(dtype).name not in DTYPES:
        raise WeightsError(f"weights cannot be loaded as {jnp.dtype(dtype).name}; use one of {', '.join(DTYPES)}")
    checkpoint = open_checkpoint(path)
    try:
        sources, unknown = canonical_names(checkpoint)
        config, form = _fit(config, checkpoint, sources)
        if float8_experts:
            require_float8(form)
    except WeightsError as error:
        raise WeightsError(f"{escaped(checkpoint.path)}: {error}") from None
    shapes = abstract_leaves(config, dtype, form)
    plan = _plan(checkpoint, placements(config, form), shapes, sources, unknown)
    leaves = {}
    for name, leaf in shapes.items():
        buffer = _assemble(checkpoint, leaf, plan[name])
        # Waiting bounds host memory: a transfer in flight keeps its buffer alive. A finished one leaves it to a list of
        # garbage, which every run of the collector empties.
        leaves[name] = jax.block_until_ready(jax.device_put(buffer, sharding))
        del buffer
        gc.collect(0)
    if not float8_experts:
        form = dequantise(leaves, form, dtype)
    return config, jax.tree.unflatten(jax.tree.structure(abstract_tree(config, dtype, form)), leaves.values())


def _fit(config: ModelConfig, checkpoint: Checkpoint, sources: dict[str, Source]) -> tuple[ModelConfig, Form]:
    """Settings and form as the tensors have them; scales of keys and values not there for all layers are dropped."""
    use_ln = any(name.startswith("region.ln.") for name in sources)
    config = dataclasses.replace(config, region=dataclasses.replace(config.region, use_ln=use_ln))
    moe, layers = config.text.moe, range(config.text.n_layers)
    experts = [f"text.blocks.{i}.mlp.fc{j}.weight" for i in layers if moe and i >= moe.start_layer for j in (1, 2)]
    float8 = any(checkpoint.entry(sources[name].name).dtype.itemsize == 1 for name in experts if name in sources)
    scales = [f"text.blocks.{i}.attn.{kind}_scale" for i in layers for kind in "kv"]
    kv_scales = all(name in sources for name in scales)
    if not kv_scales:
        for name in scales:
            sources.pop(name, None)
    return config, Form(float8, kv_scales)


def _plan(
    checkpoint: Checkpoint,
    table: tuple[Placement, ...],
    leaves: dict[str, jax.ShapeDtypeStruct],
    sources: dict[str, Source],
    unknown: list[str],
) -> dict[str, list[tuple[Placement, Source]]]:
    """Leaf -> the tensors that fill it; raises with everything that does not fit."""
    plan: dict[str, list[tuple[Placement, Source]]] = defaultdict(list)
    missing, misfits = [], []
    for place in table:
        source = sources.get(place.name)
        if source is None:
            missing.append(place.name)
            continue
        leaf = leaves[place.leaf]
        misfit = _misfit(checkpoint.entry(source.name), placed_shape(leaf.shape, place.index), leaf.dtype, source)
        if misfit:
            misfits.append(f"{short(source.name)} ({misfit})")
        plan[place.leaf].append((place, source))
    placed = {place.name for place in table}
    unexpected = unknown + [source.name for name, source in sources.items() if name not in placed]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misfits}
    if any(faults.values()):
        lines = [_fault(kind, list(dict.fromkeys(names))) for kind, names in faults.items() if names]
        raise WeightsError(
            "\n".join([f"{escaped(checkpoint.path)}: the weights do not fit the model's settings", *lines])
        )
    return plan


def _misfit(entry: TensorEntry, wanted: tuple[int, ...], dtype: np.dtype, source: Source) -> str:
    """What keeps a tensor from its place, or an empty string. Axes of extent 1 may differ."""
    if not jnp.issubdtype(entry.dtype, jnp.floating):
        return f"{entry.dtype.name}, not a floating type"
    if dtype.itemsize == 1 and entry.dtype != dtype:
        return f"{entry.dtype.name}, not {dtype.name} like other experts"
    if source.half is not None:
        wanted = (2 * wanted[0], *wanted[1:])
    found = entry.shape[::-1] if source.transposed else entry.shape
    if [n for n in found if n != 1] != [n for n in wanted if n != 1]:
        return f"{quoted(list(entry.shape))} instead of {list(wanted[::-1] if source.transposed else wanted)}"
    return ""


def _assemble(checkpoint: Checkpoint, leaf: jax.ShapeDtypeStruct, parts: list[tuple[Placement, Source]]) -> np.ndarray:
    """One leaf in memory of its own, so aligned that an array on the CPU keeps the buffer instead of a copy."""
    size = leaf.size * leaf.dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    buffer = raw[start : start + size].view(leaf.dtype).reshape(leaf.shape)
    for place, source in parts:
        tensor = checkpoint.read(source.name)
        if source.half is not None:
            tensor = np.split(tensor, 2)[source.half]
        target = buffer[place.index]
        # Assignment casts in small blocks; `astype` would hold the tensor twice.
        target[...] = (tensor.T if source.transposed else tensor).reshape(target.shape)
    return buffer


def _fault(kind: str, names: list[str]) -> str:
    return f"  {len(names)} {kind}: {listed(names)}"
