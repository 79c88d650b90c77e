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
    zero_dtype: np.dtype | None


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
        points = None if zero is None else checkpoint.entry(zero.name)
        if zero is not None and points is not None and points.shape != factors.shape:
            faults[zero.name] = f"{quoted(list(points.shape))} instead of {list(factors.shape)}"
        kinds = factors.dtype, None if points is None else points.dtype
        found[name] = StoredMatrix(entry.dtype, columns, columns // groups, scale, zero, *kinds)
    return found, faults


def stored_forms(
    places: Iterable[Placement], leaves: Mapping[str, jax.ShapeDtypeStruct], stored: Mapping[str, StoredMatrix]
) -> Forms:
    """The forms of leaves that hold their tensors exactly as these are stored: all of one type, with zero points or
    without."""
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
    if len(kept) < len(parts) or len({(part.dtype, part.zero is None) for part in kept}) != 1:
        return None
    dtype, zero = kept[0].dtype.name, kept[0].zero is not None
    if dtype == "float8_e5m2" or (dtype == "int4" and columns % 2):
        return None  # no kernel takes that type; two of int4 are a byte
    group = math.gcd(*(part.group for part in kept))
    if group == columns and not zero and dtype != "int4":
        return RowScaledForm(dtype)
    # Zero points have the type of the factors, as the kernels take them: the wider one of both holds either.
    factors = _widest({each for part in kept for each in (part.scale_dtype, part.zero_dtype) if each is not None})
    return GroupedForm(dtype, group, factors, factors if zero else None)


def _widest(dtypes: set[np.dtype]) -> str:
    return "bfloat16" if dtypes == {np.dtype(ml_dtypes.bfloat16)} else "float32"
