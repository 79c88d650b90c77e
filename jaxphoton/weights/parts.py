"""Which tensors of a checkpoint fill which leaves, and all that does not fit."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxphoton.messages import escaped, listed, quoted, short
from jaxphoton.models.forms import FACTOR_NAMES, FACTORS, beside
from jaxphoton.models.naming import Placement, Source, placed_shape
from jaxphoton.weights.assembling import Part
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError
from jaxphoton.weights.mapped import TensorEntry
from jaxphoton.weights.stored import FEW, StoredMatrix


def parts_of(
    checkpoint: Checkpoint,
    table: tuple[Placement, ...],
    leaves: dict[str, jax.ShapeDtypeStruct],
    sources: dict[str, Source],
    unknown: list[str],
    stored: Mapping[str, StoredMatrix],
    unfit: Mapping[str, str],
) -> dict[str, list[Part]]:
    """Leaf -> the tensors that fill it; raises with everything that does not fit."""
    filled = Counter[str]()
    for place in table:
        filled[place.leaf] += math.prod(placed_shape(leaves[place.leaf].shape, place.index))
    assert filled == {name: leaf.size for name, leaf in leaves.items()}, "placements do not fill the tree"
    parts: dict[str, list[Part]] = defaultdict(list)
    missing, placed = [], set[str]()
    misfits = [f"{short(name)} ({fault})" for name, fault in unfit.items()]
    # float8 tensors without factors are plain numbers, but not where others of the file have factors.
    scaled = any(_few_floats(matrix.dtype) for matrix in stored.values())
    for place in table:
        placed.add(place.name)
        source = sources.get(place.name)
        if source is None:
            missing.append(place.name)
            continue
        leaf, matrix = leaves[place.leaf], stored.get(place.name)
        if matrix is not None:
            placed |= {beside(place.name, factor) for factor in FACTORS}
        entry, factor = checkpoint.entry(source.name), place.name.endswith(FACTOR_NAMES)
        # The shape of factors was compared with their matrix's: they may be fewer than those of the leaf.
        wanted = entry.shape if factor else placed_shape(leaf.shape, place.index)
        misfit = _misfit(entry, wanted, source, matrix is not None)
        if misfit:
            misfits.append(f"{short(source.name)} ({misfit})")
        elif scaled and matrix is None and _few_floats(entry.dtype):
            missing.append(beside(place.name, "scale"))
        parts[place.leaf].append(Part(place, source, None if matrix is None or leaf.dtype in FEW else matrix))
    unexpected = unknown + [source.name for name, source in sources.items() if name not in placed]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misfits}
    if any(faults.values()):
        lines = [_fault(kind, list(dict.fromkeys(names))) for kind, names in faults.items() if names]
        raise WeightsError(
            "\n".join([f"{escaped(checkpoint.path)}: the weights do not fit the model's settings", *lines])
        )
    return parts


def _misfit(entry: TensorEntry, wanted: tuple[int, ...], source: Source, factored: bool) -> str:
    """What keeps a tensor from its place, or an empty string. Axes of extent 1 may differ."""
    if not factored and not jnp.issubdtype(entry.dtype, jnp.floating):
        return f"{entry.dtype.name}, not a floating type"
    if source.half is not None:
        wanted = (2 * wanted[0], *wanted[1:])
    found = entry.shape[::-1] if source.transposed else entry.shape
    if source.flat and entry.shape:
        found = (entry.shape[0], math.prod(entry.shape[1:]))
    if [n for n in found if n != 1] != [n for n in wanted if n != 1]:
        return f"{quoted(list(entry.shape))} instead of {list(wanted[::-1] if source.transposed else wanted)}"
    return ""


def _few_floats(dtype: np.dtype) -> bool:
    return dtype in FEW and jnp.issubdtype(dtype, jnp.floating)


def _fault(kind: str, names: list[str]) -> str:
    return f"  {len(names)} {kind}: {listed(names)}"
