"""Parameters from a checkpoint: checked as a whole from the headers, then built and placed one leaf at a time."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.files import FileError, read_json
from jaxphoton.layers.spec import Spec, abstract, by_path, weights_by_path, with_forms
from jaxphoton.messages import escaped
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.forms import Forms, leaf_forms, wanted_forms, with_factors
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import MAX_BYTES, read_family, settings_file
from jaxphoton.weights.adapters import load_adapter, merged
from jaxphoton.weights.assembling import Part, assemble, packed
from jaxphoton.weights.checkpoint import Checkpoint, WeightsError, open_checkpoint
from jaxphoton.weights.choice import Choice, Quantize
from jaxphoton.weights.layout import Layout, Placing, Ranges
from jaxphoton.weights.parts import parts_of
from jaxphoton.weights.placing import completed, put, put_quantized
from jaxphoton.weights.quantized import opening
from jaxphoton.weights.stored import stored_forms, stored_matrices

__all__ = ["Placing", "WeightsError", "abstract_model", "load_model", "load_params"]

DTYPES = ("bfloat16", "float16", "float32")


def load_model(
    path: str | Path,
    dtype: DTypeLike = jnp.bfloat16,
    sharding: Placing = None,
    quantized: bool = False,
    quantize: Quantize = None,
    merge: str | Path | None = None,
) -> tuple[Family, Any]:
    """A local model (a converted checkpoint, a folder of weights, or one file of them): its family, and parameters.

    A single file takes its settings from the `config.json` beside it. The family is bound to the settings, but for
    what the weights decide (`models.tensors.Tensors.fit`).

    Args:
      sharding: where: a device, a sharding of whole leaves, or a `jaxphoton.layers.mesh.Split`, of which each device
        gets its share of every leaf, read and quantized for it alone.
      quantized: keep the experts of a checkpoint in which they alone are stored in float8; without it they are brought
        to `dtype`. Other matrices in few bits are kept as they are stored.
      quantize: of `jaxphoton.config.quantization`: what is stored plainly is quantized, matrix by matrix on its way to
        the device. "none" brings all matrices to `dtype`.
      merge: an adapter (`jaxphoton.weights.adapters.load_adapter`) that is merged into what is stored plainly, in
        float32 and before anything is quantized. Not into a converted checkpoint.

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

        if merge is not None:
            raise WeightsError(f"{escaped(path)}: adapters are merged when a model is converted, not later")
        return family, orbax.restore(path, family, dtype, sharding, choice)
    adapter = None if merge is None else load_adapter(merge, family, merging=True)
    return _load(path, family, dtype, sharding, choice, adapter)


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
    plan = _from_headers(opening.plain(open_checkpoint(path)), family, dtype, choice, Layout(None))
    return plan.family, abstract(plan.tree)


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

    The host holds one leaf, or a device's share of one, beside what is on the devices already, and nothing refers to
    the files afterwards. `sharding`, `quantized`, `quantize`, and what the weights decide, as in `load_model`.

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
      tree: the specs of what is loaded, with groups of which none lies on two devices.
      wanted: the forms of matrices that are to be quantized.
      leaves: what is read, by path: of the tree without the wanted forms, and of int4 not yet packed.
      parts: the tensors that fill each of them.
    """

    family: Family
    tree: Any
    wanted: Forms
    leaves: dict[str, Spec]
    parts: dict[str, list[Part]]


def _load(
    path: str | Path,
    family: Family,
    dtype: DTypeLike,
    placing: Placing,
    choice: Choice,
    adapter: Adapter | None = None,
) -> tuple[Family, Any]:
    if jnp.dtype(dtype).name not in DTYPES:
        raise WeightsError(f"weights cannot be loaded as {jnp.dtype(dtype).name}; use one of {', '.join(DTYPES)}")
    checkpoint, layout = opening.plain(open_checkpoint(path)), Layout(placing)
    if adapter is not None:
        checkpoint = merged(checkpoint, family, adapter)
    plan = _from_headers(checkpoint, family, dtype, choice, layout)
    leaves, specs, matrices = {}, by_path(plan.tree), weights_by_path(plan.tree)
    for name, spec in plan.leaves.items():
        read, form = partial(_read, checkpoint, spec, plan.parts[name]), plan.wanted.get(name)
        if form is None:
            leaves[name] = put(read, spec, layout, specs[name])
        else:
            leaves[name] = put_quantized(read, spec, form, matrices[name], layout)
    return plan.family, completed(plan.tree, leaves)


def _read(checkpoint: Checkpoint, spec: Spec, parts: list[Part], ranges: Ranges) -> np.ndarray:
    return packed(assemble(checkpoint, abstract(spec), parts, ranges))


def _from_headers(checkpoint: Checkpoint, family: Family, dtype: DTypeLike, choice: Choice, layout: Layout) -> _Plan:
    try:
        sources, unknown = family.tensors.sources(checkpoint)
        family, form, left_out = family.tensors.fit(sources)
        sources = {name: source for name, source in sources.items() if name not in left_out}
        plain, places = family.network.specs(dtype, form), family.tensors.placements(form)
        stored, faults = stored_matrices(checkpoint, sources)
        kept = choice.kept(stored_forms(places, by_path(plain), stored), family.tensors.uses())
    except WeightsError as error:
        raise WeightsError(f"{escaped(checkpoint.path)}: {error}") from None
    wanted = choice.wanted
    forms = {} if wanted is None else wanted_forms(family, plain, form, wanted)
    wanted = {path: form for path, form in forms.items() if path not in kept}
    matrices = by_path(plain)
    if layout.split is not None:
        kept = leaf_forms(by_path(layout.forms(with_forms(plain, kept), plain)))
    leaves = by_path(with_forms(plain, kept))
    for path, each in kept.items():
        leaves[path] = dataclasses.replace(matrices[path], dtype=jnp.dtype(each.dtype))
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
    parts = parts_of(checkpoint, with_factors(places, kept), shapes, sources, unknown, stored, faults)
    tree = layout.forms(with_forms(plain, kept | wanted), plain)
    return _Plan(family, tree, wanted, leaves, parts)
