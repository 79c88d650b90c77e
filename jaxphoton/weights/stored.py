"""What the tensors of a checkpoint are in few bits, and the form of the leaf that they are put together to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jax
import ml_dtypes
import numpy as np

from jaxphoton.layers.spec import GroupedForm, RowScaledForm
from jaxphoton.messages import quoted
from jaxphoton.models.forms import Forms, beside
from jaxphoton.models.naming import Placement, Source
from jaxphoton.weights.checkpoint import Checkpoint

FEW = frozenset(map(np.dtype, (ml_dtypes.int4, np.int8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)))


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A tensor in few bits: value = (tensor - zero) * scale, with a scale for every `group` columns of a row.

    The scale is [..., rows] or [..., rows, groups], the zero point like it or absent.
    """

    dtype: np.dtype
    columns: int
    group: int
    scale: Source
    zero: Source | None
    scale_dtype: np.dtype


def stored_matrices(
    checkpoint: Checkpoint, sources: Mapping[str, Source]
) -> tuple[dict[str, StoredMatrix], dict[str, str]]:
    """Canonical name -> what it is, of tensors in few bits with factors beside them; and names of tensors whose factors
    do not fit, with the fault."""
    found, faults = {}, {}
    for name, source in sources.items():
        entry, scale = checkpoint.entry(source.name), sources.get(beside(name, "scale"))
        if entry.dtype not in FEW or scale is None or source.transposed or source.half is not None or not entry.shape:
            continue
        factors, zero, columns = checkpoint.entry(scale.name), sources.get(beside(name, "zero")), entry.shape[-1]
        groups = factors.shape[-1] if len(factors.shape) == len(entry.shape) else 1
        by_row = factors.shape == entry.shape[:-1]
        if not by_row and (factors.shape != (*entry.shape[:-1], groups) or not groups or columns % groups):
            faults[scale.name] = f"{quoted(list(factors.shape))} instead of {list(entry.shape[:-1])}"
            groups = 1
        elif zero is not None and checkpoint.entry(zero.name).shape != factors.shape:
            faults[zero.name] = f"{quoted(list(checkpoint.entry(zero.name).shape))} instead of {list(factors.shape)}"
        found[name] = StoredMatrix(entry.dtype, columns, columns // groups, scale, zero, factors.dtype)
    return found, faults


def stored_forms(
    places: Iterable[Placement], leaves: Mapping[str, jax.ShapeDtypeStruct], stored: Mapping[str, StoredMatrix]
) -> Forms:
    """The forms of leaves that can hold their tensors exactly as they are stored: all of one type."""
    parts: dict[str, list[Placement]] = defaultdict(list)
    for place in places:
        parts[place.leaf].append(place)
    found: Forms = {}
    for path, inside in parts.items():
        matrices = [stored.get(place.name) for place in inside]
        if path.endswith("_w") and (form := _joined(matrices, leaves[path].shape[-1])) is not None:
            found[path] = form
    return found


def _joined(parts: list[StoredMatrix | None], columns: int) -> RowScaledForm | GroupedForm | None:
    kept = [part for part in parts if part is not None]
    if len(kept) < len(parts) or len({part.dtype for part in kept}) != 1:
        return None
    dtype, zero = kept[0].dtype.name, any(part.zero is not None for part in kept)
    group = math.gcd(*(part.group for part in kept))
    if group == columns and not zero and dtype != "int4":
        return RowScaledForm(dtype)
    narrow = all(part.scale_dtype == ml_dtypes.bfloat16 for part in kept)
    return GroupedForm(dtype, group, "bfloat16" if narrow else "float32", zero)
