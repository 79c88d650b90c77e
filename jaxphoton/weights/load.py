"""Parameters from a checkpoint: checked as a whole from the headers, then built and placed one leaf at a time."""

from __future__ import annotations

import gc
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.config.quantization import NONE, Quantization, quantization
from jaxphoton.files import FileError, read_json
from jaxphoton.layers.spec import RowScaledForm, by_path, with_forms
from jaxphoton.messages import escaped, listed, quoted, short
from jaxphoton.models.forms import FACTOR_NAMES, FACTORS, Forms, beside, wanted_forms, with_factors
from jaxphoton.models.naming import Placement, Source, Use, placed_shape
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import MAX_BYTES, read_family, settings_file
from jaxphoton.weights.assembling import Part, assemble, packed
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError, open_checkpoint
from jaxphoton.weights.mapped import TensorEntry
from jaxphoton.weights.placing import Placing, as_sharding, is_weight, put_quantized, to_dense
from jaxphoton.weights.quantized import opening
from jaxphoton.weights.stored import FEW, StoredMatrix, stored_forms, stored_matrices

__all__ = ["Placing", "WeightsError", "abstract_model", "load_model", "load_params"]

DTYPES = ("bfloat16", "float16", "float32")
Quantize = str | Quantization | None


@dataclass(frozen=True, slots=True)
class Choice:
    """In what form matrices are to be.

    Attributes:
      quantized: keep the experts of a checkpoint in which they alone are in float8.
      quantize: how what is stored plainly is quantized; "none": and all else brought to the model's dtype.

    Raises:
      WeightsError: the two exclude each other, or there is no such way.
    """

    quantized: bool = False
    quantize: Quantize = None

    def __post_init__(self) -> None:
        try:
            quantization(self.quantize)
        except ValueError as error:
            raise WeightsError(str(error)) from None
        if self.quantized and self.quantize == NONE:
            raise WeightsError("float8 experts cannot be kept where nothing is to be in few bits")

    @property
    def wanted(self) -> Quantization | None:
        return quantization(self.quantize)

    def kept(self, stored: Forms, uses: Mapping[str, Use]) -> Forms:
        """Of the forms that are stored, those that stay.

        All do, since the file was chosen for them; but float8 experts are so for training too, and stay where that
        is said, or where the rest is to be quantized.

        Raises:
          WeightsError: there are none to keep.
        """
        if self.quantized and not stored:
            raise WeightsError(
                "the weights hold no float8 experts to keep: they are in another type, or there are none"
            )
        if self.quantize == NONE:
            return {}
        experts = all(uses.get(path) == "experts" and isinstance(form, RowScaledForm) for path, form in stored.items())
        return {} if experts and not self.quantized and self.quantize is None else stored


def load_model(
    path: str | Path,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    quantized: bool = False,
    quantize: Quantize = None,
) -> tuple[Family, Any]:
    """A local model (a converted checkpoint, a folder of weights, or one file of them): its family, and parameters.

    A single file takes its settings from the `config.json` beside it. The family is bound to the settings, but for
    what the weights decide (`protocol.Tensors.fit`).

    Args:
      quantized: keep the experts of a checkpoint in which they alone are stored in float8; without it they are brought
        to `dtype`. Other matrices in few bits are kept as they are stored.
      quantize: of `jaxphoton.config.quantization`: what is stored plainly is quantized, matrix by matrix on its way to
        the device. "none" brings all matrices to `dtype`.

    Raises:
      OtherFamily: a model of none of our families.
      ConfigError: the settings are missing or wrong.
      WeightsError: the weights are missing, damaged, or those of another model, or have no float8 experts to keep; or
        there is no such way to quantize.
    """
    path, choice = Path(path), Choice(quantized, quantize)
    family = _family(path)
    if os.path.isdir(path / "params"):
        from jaxphoton.weights import orbax  # slow to import, and needed for converted checkpoints only

        return family, orbax.restore(path, family, dtype, sharding, choice)
    return _load(path, family, dtype, sharding, choice)


def abstract_model(
    path: str | Path, dtype: DTypeLike = jnp.bfloat16, quantized: bool = False, quantize: Quantize = None
) -> tuple[Family, Any]:
    """What `load_model` would load, as a tree of jax.ShapeDtypeStruct: only settings and headers are read.

    Raises: as `load_model`.
    """
    path, choice = Path(path), Choice(quantized, quantize)
    family = _family(path)
    if os.path.isdir(path / "params"):
        from jaxphoton.weights import orbax

        return family, orbax.abstract(path, family, dtype, choice)
    plan = _from_headers(opening.plain(open_checkpoint(path)), family, dtype, choice)
    return plan.family, with_forms(plan.plain, plan.kept | plan.wanted)


def _family(path: Path) -> Family:
    if not os.path.lexists(path):
        raise WeightsError(f"{escaped(path)}: no such file or folder")
    settings = settings_file(path)
    family = read_family(settings)
    try:
        opening.check_settings(read_json(settings, MAX_BYTES))
    except (FileError, WeightsError) as error:
        raise WeightsError(f"{escaped(settings)}: {error}") from None
    return family


def load_params(
    path: str | Path,
    family: Family,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    quantized: bool = False,
    quantize: Quantize = None,
) -> Any:
    """Parameters of a model from a file or folder of weights, cast to `dtype` but for leaves that never change theirs.

    The host holds one leaf at a time beside what is on the device already, and nothing refers to the files afterwards.
    `quantized` and `quantize`, and what the weights decide, as in `load_model`.

    Raises:
      WeightsError: a damaged file, or one error naming all missing, unexpected and misshapen tensors; nothing has
        been read then.
    """
    return _load(path, family, dtype, sharding, Choice(quantized, quantize))[1]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the headers of a checkpoint tell.

    Attributes:
      family: as the weights have it.
      plain: the abstract tree with plain matrices.
      kept, wanted: the forms of matrices that are stored so and stay so, and of those that are to be quantized.
      leaves: of the tree with the kept forms, by path; of int4 not yet packed.
      parts: the tensors that fill each of them.
    """

    family: Family
    plain: Any
    kept: Forms
    wanted: Forms
    leaves: dict[str, jax.ShapeDtypeStruct]
    parts: dict[str, list[Part]]


def _load(path: str | Path, family: Family, dtype: DTypeLike, placing: Placing, choice: Choice) -> tuple[Family, Any]:
    if jnp.dtype(dtype).name not in DTYPES:
        raise WeightsError(f"weights cannot be loaded as {jnp.dtype(dtype).name}; use one of {', '.join(DTYPES)}")
    checkpoint = opening.plain(open_checkpoint(path))
    plan = _from_headers(checkpoint, family, dtype, choice)
    leaves, sharding = {}, as_sharding(placing)
    for name, leaf in plan.leaves.items():
        buffer = packed(assemble(checkpoint, leaf, plan.parts[name]))
        # Waiting bounds host memory: a transfer in flight keeps its buffer alive. A finished one leaves it to a list of
        # garbage, which every run of the collector empties.
        form = plan.wanted.get(name)
        leaves[name] = jax.block_until_ready(
            jax.device_put(buffer, sharding) if form is None else put_quantized(buffer, form, sharding)
        )
        del buffer
        gc.collect(0)
    return plan.family, completed(with_forms(plan.plain, plan.kept | plan.wanted), leaves)


def completed(tree: Any, leaves: dict[str, Any]) -> Any:
    """The parameters of an abstract tree; `leaves`, all of its leaves by path, or whole matrices, are taken out."""
    flat = by_path({name: leaves.pop(name) for name in list(leaves)})
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in by_path(tree)])


def in_dtype(params: Any, paths: Set[str], dtype: DTypeLike) -> Any:
    """The parameters with the matrices of these paths as plain ones of `dtype`, made one at a time."""
    if not paths:
        return params
    found, structure = jax.tree.flatten(params, is_leaf=is_weight)
    names = list(by_path(jax.tree.unflatten(structure, [_Leaf() for _ in found])))
    del params
    for i, name in enumerate(names):
        if name in paths:
            # Waiting lets go of the quantized matrix before the next one takes memory.
            found[i] = jax.block_until_ready(to_dense(found[i], dtype))
    return jax.tree.unflatten(structure, found)


class _Leaf:
    """Stands for a whole matrix."""


def _from_headers(checkpoint: Checkpoint, family: Family, dtype: DTypeLike, choice: Choice) -> _Plan:
    try:
        sources, unknown = family.tensors.sources(checkpoint)
        family, form, left_out = family.tensors.fit(sources)
        sources = {name: source for name, source in sources.items() if name not in left_out}
        plain, places = family.network.abstract(dtype, form), family.tensors.placements(form)
        stored, faults = stored_matrices(checkpoint, sources)
        kept = choice.kept(stored_forms(places, by_path(plain), stored), family.tensors.uses())
    except WeightsError as error:
        raise WeightsError(f"{escaped(checkpoint.path)}: {error}") from None
    wanted = choice.wanted
    forms = {} if wanted is None else wanted_forms(family, plain, form, wanted)
    wanted = {path: form for path, form in forms.items() if path not in kept}
    leaves, matrices = by_path(with_forms(plain, kept)), by_path(plain)
    for path, each in kept.items():
        leaves[path] = jax.ShapeDtypeStruct(matrices[path].shape, jnp.dtype(each.dtype))
    parts = _parts(checkpoint, with_factors(places, kept), leaves, sources, unknown, stored, faults)
    return _Plan(family, plain, kept, wanted, leaves, parts)


def _parts(
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
    if [n for n in found if n != 1] != [n for n in wanted if n != 1]:
        return f"{quoted(list(entry.shape))} instead of {list(wanted[::-1] if source.transposed else wanted)}"
    return ""


def _few_floats(dtype: np.dtype) -> bool:
    return dtype in FEW and jnp.issubdtype(dtype, jnp.floating)


def _fault(kind: str, names: list[str]) -> str:
    return f"  {len(names)} {kind}: {listed(names)}"
