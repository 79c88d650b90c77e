"""In which form each matrix of a model is stored: as somebody wishes, or as leaves with their factors tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.config.quantization import Quantization
from jaxphoton.layers.grouped import PACKED
from jaxphoton.layers.quantize import form_of
from jaxphoton.layers.spec import GroupedForm, MatrixForm, RowScaledForm, by_path, with_forms
from jaxphoton.models.naming import Placement, placed_shape
from jaxphoton.models.protocol import Family

Forms = dict[str, RowScaledForm | GroupedForm]  # of matrices that are in few bits, by their path

FACTORS = ("scale", "zero")
FACTOR_NAMES = tuple(f".{factor}" for factor in FACTORS)  # as the names of their tensors end


def beside(path: str, factor: str) -> str:
    """The path of a matrix's factors: `X_w` -> `X_scale`, and the name of their tensor: `X.weight` -> `X.scale`."""
    if path.endswith("_w"):
        return f"{path.removesuffix('_w')}_{factor}"
    return f"{path.removesuffix('.weight')}.{factor}"


def wanted_forms(family: Family, tree: Any, form: Any, quantization: Quantization) -> Forms:
    """The forms that a quantization makes of a plain tree of `Network.abstract(dtype, form)`."""
    widths, leaves = defaultdict[str, set[int]](set), by_path(tree)
    form = family.tensors.stored_form(leaves) if form is None else form
    for place in family.tensors.placements(form):
        widths[place.leaf].add(placed_shape(leaves[place.leaf].shape, place.index)[-1])
    found: Forms = {}
    for path, use in family.tensors.uses().items():
        kind = getattr(quantization, use)
        if kind is not None and path in leaves:
            found[path] = form_of(kind, _parts(widths[path], leaves[path].shape[-1]))
    return found


def _parts(widths: set[int], columns: int) -> list[int]:
    """One width for a matrix whose parts are all as wide as itself; those of its parts, and its own, where they are
    beside each other, perhaps as wide as each other."""
    return [columns] if widths == {columns} else [*widths, columns]


def quantized_tree(family: Family, dtype: DTypeLike, quantization: Quantization | None, form: Any = None) -> Any:
    """The tree of `Network.abstract` with matrices in few bits as a quantization says."""
    tree = family.network.abstract(dtype, form)
    if quantization is None:
        return tree
    return with_forms(tree, wanted_forms(family, tree, form, quantization))


def leaf_forms(leaves: Mapping[str, jax.ShapeDtypeStruct]) -> Forms:
    """The forms that leaves by path tell: the shapes of what stands beside a matrix."""
    found: Forms = {}
    for path, leaf in leaves.items():
        scale = leaves.get(beside(path, "scale")) if path.endswith("_w") else None
        if scale is None or not leaf.shape:
            continue
        dtype, columns = jnp.dtype(leaf.dtype).name, leaf.shape[-1]
        if leaf.dtype == PACKED:
            dtype, columns = "int4", 2 * columns
        if scale.shape == leaf.shape[:-1]:
            found[path] = RowScaledForm(dtype)
        elif len(scale.shape) == len(leaf.shape) and scale.shape[-1] and columns % scale.shape[-1] == 0:
            group = columns // scale.shape[-1]
            zero = leaves.get(beside(path, "zero"))
            zeros = None if zero is None else jnp.dtype(zero.dtype).name
            found[path] = GroupedForm(dtype, group, jnp.dtype(scale.dtype).name, zeros)
    return found


def with_factors(places: Iterable[Placement], forms: Mapping[str, MatrixForm]) -> tuple[Placement, ...]:
    """Placements with those of the factors of matrices in these forms."""
    found: list[Placement] = []
    for place in places:
        found.append(place)
        form = forms.get(place.leaf)
        if form is None:
            continue
        zero = isinstance(form, GroupedForm) and form.zero is not None
        for factor in FACTORS[: 1 + zero]:
            index = _factor_index(place, form)
            found.append(Placement(beside(place.name, factor), beside(place.leaf, factor), index))
    return tuple(found)


def _factor_index(place: Placement, form: MatrixForm) -> tuple[int | slice, ...]:
    """Of a matrix's part, with a slice of columns behind that of all rows, in groups."""
    match place.index:
        case (*front, slice() as rows, slice() as columns) if isinstance(form, GroupedForm):
            start, stop = (None if at is None else at // form.group for at in (columns.start, columns.stop))
            return (*front, rows, slice(start, stop))
    return place.index
