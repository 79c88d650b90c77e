"""Parameters from a checkpoint: checked as a whole from the headers, then built and placed one leaf at a time."""

from __future__ import annotations

import gc
import math
import os
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.layers.spec import by_path
from jaxphoton.layers.weight import Dense, Weight
from jaxphoton.messages import escaped, listed, quoted, short
from jaxphoton.models.naming import Placement, Source, placed_shape
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import read_family, settings_file
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError, open_checkpoint
from jaxphoton.weights.mapped import TensorEntry

__all__ = ["WeightsError", "load_model", "load_params"]

DTYPES = ("bfloat16", "float16", "float32")
ALIGNMENT = 64  # bytes
Placing = jax.Device | jax.sharding.Sharding | None  # where leaves go; None is the default device


def load_model(
    path: str | Path,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    quantized: bool = False,
) -> tuple[Family, Any]:
    """A local model (a converted checkpoint, a folder of weights, or one file of them): its family, and parameters.

    A single file takes its settings from the `config.json` beside it. The family is bound to the settings, but for
    what the weights decide (`protocol.Tensors.fit`).

    Args:
      quantized: keep matrices that are stored in few bits in that form (experts in float8 with row scales); without
        it they are brought to `dtype`.

    Raises:
      OtherFamily: a model of none of our families.
      ConfigError: the settings are missing or wrong.
      WeightsError: the weights are missing, damaged, or those of another model, or have no float8 experts to keep.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise WeightsError(f"{escaped(path)}: no such file or folder")
    family = read_family(settings_file(path))
    if os.path.isdir(path / "params"):
        from jaxphoton.weights import orbax  # slow to import, and needed for converted checkpoints only

        return family, orbax.restore(path, family, dtype, sharding, quantized)
    return _load(path, family, dtype, sharding, quantized)


def abstract_model(path: str | Path, dtype: DTypeLike = jnp.bfloat16, quantized: bool = False) -> tuple[Family, Any]:
    """What `load_model` would load, as a tree of jax.ShapeDtypeStruct: only settings and headers are read.

    Raises: as `load_model`.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise WeightsError(f"{escaped(path)}: no such file or folder")
    family = read_family(settings_file(path))
    if os.path.isdir(path / "params"):
        from jaxphoton.weights import orbax

        tree = orbax.abstract(path, family, dtype)
    else:
        family, tree, *_ = _from_headers(open_checkpoint(path), family, dtype)
    if quantized:
        require_quantized(tree)
        return family, tree

    def dense(node: Any) -> Any:
        return jax.eval_shape(lambda weight: weight.dense(dtype), node) if _is_form(node) else node

    return family, jax.tree.map(dense, tree, is_leaf=_is_form)


def load_params(
    path: str | Path,
    family: Family,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    quantized: bool = False,
) -> Any:
    """Parameters of a model from a file or folder of weights, cast to `dtype` but for leaves that never change theirs.

    The host holds one leaf at a time beside what is on the device already, and nothing refers to the files afterwards.
    `quantized`, and what the weights decide, as in `load_model`.

    Raises:
      WeightsError: a damaged file, or one error naming all missing, unexpected and misshapen tensors; nothing has
        been read then.
    """
    return _load(path, family, dtype, sharding, quantized)[1]


def _load(path: str | Path, family: Family, dtype: DTypeLike, sharding: Placing, quantized: bool) -> tuple[Family, Any]:
    if jnp.dtype(dtype).name not in DTYPES:
        raise WeightsError(f"weights cannot be loaded as {jnp.dtype(dtype).name}; use one of {', '.join(DTYPES)}")
    checkpoint = open_checkpoint(path)
    family, tree, plan = _from_headers(checkpoint, family, dtype, quantized)
    shapes = by_path(tree)
    leaves = {}
    for name, leaf in shapes.items():
        buffer = _assemble(checkpoint, leaf, plan[name])
        # Waiting bounds host memory: a transfer in flight keeps its buffer alive. A finished one leaves it to a list of
        # garbage, which every run of the collector empties.
        leaves[name] = jax.block_until_ready(jax.device_put(buffer, sharding))
        del buffer
        gc.collect(0)
    return family, completed(tree, leaves, dtype, quantized)


def _from_headers(
    checkpoint: Checkpoint, family: Family, dtype: DTypeLike, quantized: bool = False
) -> tuple[Family, Any, dict[str, list[tuple[Placement, Source]]]]:
    """The family as the weights have it, its abstract tree, and the tensors that fill each leaf."""
    try:
        sources, unknown = family.tensors.sources(checkpoint)
        family, form, left_out = family.tensors.fit(sources, lambda name: checkpoint.entry(name).dtype)
        tree = family.network.abstract(dtype, form)
        if quantized:
            require_quantized(tree)
    except WeightsError as error:
        raise WeightsError(f"{escaped(checkpoint.path)}: {error}") from None
    sources = {name: source for name, source in sources.items() if name not in left_out}
    return family, tree, _plan(checkpoint, family.tensors.placements(form), by_path(tree), sources, unknown)


def require_quantized(tree: Any) -> None:
    """Raises WeightsError where a tree has no matrices in few bits."""
    nodes = jax.tree.leaves(tree, is_leaf=_is_weight)
    if all(isinstance(node, Dense) for node in nodes if _is_weight(node)):
        raise WeightsError("the weights hold no float8 experts to keep: they are in another type, or there are none")


def completed(tree: Any, leaves: dict[str, jax.Array], dtype: DTypeLike, quantized: bool) -> Any:
    """The parameters of an abstract tree; `leaves` are all of its leaves by path, in order, and are taken out.

    Unless `quantized`, matrices in few bits are brought to `dtype`, one at a time.
    """
    params = jax.tree.unflatten(jax.tree.structure(tree), [leaves.pop(name) for name in list(leaves)])
    if quantized:
        return params
    nodes, structure = jax.tree.flatten(params, is_leaf=_is_weight)
    del params
    for i in range(len(nodes)):
        if _is_form(nodes[i]):
            # Waiting lets go of the quantized matrix before the next one takes memory.
            nodes[i] = jax.block_until_ready(_dense(nodes[i], dtype))
    return jax.tree.unflatten(structure, nodes)


def _is_weight(node: object) -> bool:
    return isinstance(node, Weight)


def _is_form(node: object) -> bool:
    """A matrix in few bits."""
    return _is_weight(node) and not isinstance(node, Dense)


@partial(jax.jit, static_argnums=1)
def _dense(weight: Weight, dtype: DTypeLike) -> Dense:
    return weight.dense(dtype)


def _plan(
    checkpoint: Checkpoint,
    table: tuple[Placement, ...],
    leaves: dict[str, jax.ShapeDtypeStruct],
    sources: dict[str, Source],
    unknown: list[str],
) -> dict[str, list[tuple[Placement, Source]]]:
    """Leaf -> the tensors that fill it; raises with everything that does not fit."""
    filled = Counter[str]()
    for place in table:
        filled[place.leaf] += math.prod(placed_shape(leaves[place.leaf].shape, place.index))
    assert filled == {name: leaf.size for name, leaf in leaves.items()}, "placements do not fill the tree"
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
    """One leaf, its parts written into memory of its own."""
    buffer = empty_leaf(leaf)
    for place, source in parts:
        tensor = checkpoint.read(source.name)
        if source.half is not None:
            tensor = np.split(tensor, 2)[source.half]
        target = buffer[place.index]
        # Assignment casts in small blocks; `astype` would hold the tensor twice.
        target[...] = (tensor.T if source.transposed else tensor).reshape(target.shape)
    return buffer


def empty_leaf(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Memory for one leaf, so aligned that an array on the CPU keeps the buffer instead of a copy."""
    size = leaf.size * leaf.dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(leaf.dtype).reshape(leaf.shape)


def _fault(kind: str, names: list[str]) -> str:
    return f"  {len(names)} {kind}: {listed(names)}"
