"""Converted checkpoints: a folder with `config.json`, `tokenizer.json` and the parameter leaves under `params/`.

The leaves are stored flat under their dotted paths, so that the files outlive a change of the tree's classes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxphoton.files import FileError, read_json
from jaxphoton.layers.spec import RowScaledForm, Spec, by_path, weights_by_path, with_forms
from jaxphoton.layers.spec import abstract as abstract_tree
from jaxphoton.messages import escaped, first_line, listed, short
from jaxphoton.models.forms import Forms, leaf_forms, wanted_forms
from jaxphoton.models.naming import Moved
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import MAX_BYTES
from jaxphoton.weights.assembling import ordered
from jaxphoton.weights.checksums import checksums, verify
from jaxphoton.weights.choice import Choice
from jaxphoton.weights.layout import Layout, Placing
from jaxphoton.weights.layout import whole as in_one
from jaxphoton.weights.mapped import WeightsError
from jaxphoton.weights.moved import MovedLeaves, stored_shapes
from jaxphoton.weights.placing import completed, in_dtype, put, put_quantized

CHECKSUMS = "checksums"  # in config.json, of all other files

# orbax is imported where it is used: it takes long, and plain safetensors need none of it.


def require_vacant(directory: str | Path) -> None:
    """Raises WeightsError unless `directory` is absent or an empty folder."""
    directory = Path(directory)
    if "\0" in str(directory):
        raise WeightsError(f"{escaped(directory)}: not a path")
    if os.path.isdir(directory) and not any(directory.iterdir()):
        return
    if os.path.lexists(directory):
        raise WeightsError(f"{escaped(directory)}: exists and is not an empty folder; choose another or remove it")


def save(directory: str | Path, params: Any, family: Family, tokenizer_file: str | Path | None = None) -> Path:
    """Writes a converted checkpoint and returns its folder; `directory` must be absent or empty.

    Everything is written to a hidden sibling that takes the name `directory` at the end, and `config.json` last of
    all: what an interrupted run leaves behind has neither the name nor the form of a checkpoint.

    Raises:
      WeightsError: the folder is not empty, the parameters are not those of the model, or writing failed.
    """
    import orbax.checkpoint as ocp

    directory = Path(directory).absolute()
    require_vacant(directory)
    leaves = _checked_leaves(params, family)
    scratch = directory.with_name(f".{directory.name}.incomplete-{os.getpid()}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(scratch / "params", leaves)
        if tokenizer_file is not None:
            shutil.copyfile(tokenizer_file, scratch / "tokenizer.json")
        written = sorted(file.relative_to(scratch).as_posix() for file in scratch.rglob("*") if file.is_file())
        stored = {**family.to_json(), "torch_dtype": jnp.dtype(family.network.dtype(params)).name}
        stored[CHECKSUMS] = checksums(scratch, written)
        (scratch / "config.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        scratch.rename(directory)
    except OSError as error:
        raise WeightsError(f"{escaped(directory)}: cannot be written: {first_line(error)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory


def restore(
    directory: str | Path,
    family: Family,
    dtype: DTypeLike = jnp.bfloat16,
    placing: Placing = None,
    choice: Choice = Choice(),  # noqa: B008 (frozen)
) -> Any:
    """Parameters of a converted checkpoint, cast to `dtype` and placed as `placing` says while they are read.

    Matrices that are to be quantized, and on a mesh those of several parts, are read one at a time to the host (what
    earlier versions cut otherwise: all of it, to the device or on a mesh to the host).

    Raises:
      WeightsError: the folder holds no readable parameters, not those of the model, or no float8 experts to keep; or a
        file is missing or not as it was written (folders of versions that kept no checksums are not checked so).
    """
    folder = Path(directory).absolute() / "params"
    if not folder.is_dir():
        raise WeightsError(f"{escaped(directory)}: the folder holds no params/")
    with ThreadPoolExecutor(1) as pool:
        intact = pool.submit(_verify, folder.parent)
        import orbax.checkpoint as ocp  # takes about as long as the checksums of some gigabytes

        intact.result()
    layout = Layout(placing)
    with ocp.StandardCheckpointer() as checkpointer:
        plan = _plan(checkpointer, folder, family, dtype, choice)
    tree = layout.forms(with_forms(plan.plain, plan.stored | plan.wanted), plan.plain)
    specs, whole, matrices = by_path(tree), by_path(plan.plain), weights_by_path(tree)
    restored = _read(folder, _straight(plan, specs, layout))
    moved, leaves = MovedLeaves(restored, plan.moved), dict[str, Any]()
    for name, leaf in plan.shapes.items():
        if name in restored and name not in moved:
            leaves[name] = restored.pop(name)
            continue
        stored = moved.buffer(name, leaf) if name in moved else _read(folder, {name: leaf})[name]
        if name in plan.wanted:
            read = partial(ordered, stored)
            leaves[name] = put_quantized(read, whole[name], plan.wanted[name], matrices[name], layout)
        else:
            if leaf.shape != specs[name].shape:  # factors of groups that are smaller here
                stored = np.repeat(stored, specs[name].shape[-1] // leaf.shape[-1], axis=-1)
            leaves[name] = put(partial(ordered, stored), specs[name], layout)
    return in_dtype(completed(tree, leaves), plan.stored.keys() - plan.kept.keys(), dtype)


def _straight(plan: _Plan, specs: Mapping[str, Spec], layout: Layout) -> dict[str, jax.ShapeDtypeStruct]:
    """What orbax brings to the devices at once: leaves of which each has one piece, as they are stored.

    So it does with what earlier versions stored otherwise, but for a mesh, where that comes to the host.
    """
    found, moved = {}, {move.stored for move in plan.moved}
    for name, leaf in plan.asked.items():
        if name in moved:
            spec = Spec(leaf.shape, leaf.dtype, (None,) * len(leaf.shape))
            sharding = layout.sharding(spec) if layout.split is None else None
        elif name in plan.wanted or leaf.shape != specs[name].shape:
            continue
        elif layout.pieces(specs[name]) != in_one(leaf.shape):
            continue
        else:
            sharding = layout.sharding(specs[name])
        found[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return found


def abstract(
    directory: str | Path,
    family: Family,
    dtype: DTypeLike = jnp.bfloat16,
    choice: Choice = Choice(),  # noqa: B008 (frozen)
) -> Any:
    """The tree of shapes that `restore` would give.

    Raises:
      WeightsError: the folder holds no readable parameters, or not those of the model.
    """
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        plan = _plan(checkpointer, Path(directory).absolute() / "params", family, dtype, choice)
    return abstract_tree(with_forms(plan.plain, plan.kept | plan.wanted))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the metadata of a folder tell.

    Attributes:
      plain: the specs with plain matrices.
      stored, kept, wanted: the forms in which matrices are stored, those of them that stay, and those of matrices that
        are to be quantized.
      shapes: the leaves by path in the forms in which they are stored.
      moved: what earlier versions stored otherwise.
      asked: what is stored.
    """

    plain: Any
    stored: Forms
    kept: Forms
    wanted: Forms
    shapes: dict[str, jax.ShapeDtypeStruct]
    moved: tuple[Moved, ...]
    asked: dict[str, jax.ShapeDtypeStruct]


def _plan(checkpointer: Any, folder: Path, family: Family, dtype: DTypeLike, choice: Choice) -> _Plan:
    stored = _stored(checkpointer, folder)
    form, quantization = family.tensors.stored_form(stored), choice.wanted
    plain = family.network.specs(dtype, form)
    forms = _forms(plain, stored)
    shapes, moved = by_path(abstract_tree(with_forms(plain, forms))), family.tensors.moved(stored.keys())
    asked = stored_shapes(shapes, moved)
    _check_stored(folder, {name: leaf.shape for name, leaf in stored.items()}, asked)
    kept = choice.kept(forms, family.tensors.uses())
    asked_for = {} if quantization is None else wanted_forms(family, plain, form, quantization)
    wanted = {path: each for path, each in asked_for.items() if path not in forms}
    return _Plan(plain, forms, kept, wanted, shapes, moved, asked)


def _read(folder: Path, leaves: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Any]:
    """Leaves of the folder, placed as they say, on the host without a word."""
    import orbax.checkpoint as ocp

    def wish(leaf: jax.ShapeDtypeStruct) -> Any:
        if leaf.sharding is None:
            return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
        return ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype, global_shape=leaf.shape)

    wishes = {name: wish(leaf) for name, leaf in leaves.items()}
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            args = ocp.args.PyTreeRestore(item=leaves, restore_args=wishes, partial_restore=True)
            return checkpointer.restore(folder, args=args)
    except Exception as error:  # orbax passes on whatever its storage raises
        raise WeightsError(f"{escaped(folder)}: cannot be restored: {first_line(error)}") from error


def _forms(plain: Any, leaves: Mapping[str, Any]) -> Forms:
    """The forms that stored leaves tell, of matrices that can be in them: those of another model may tell any."""
    found, columns = leaf_forms(leaves), {path: leaf.shape[-1] for path, leaf in by_path(plain).items() if leaf.shape}
    return {
        path: form
        for path, form in found.items()
        if path in columns and (isinstance(form, RowScaledForm) or columns[path] % form.group == 0)
    }


def _verify(directory: Path) -> None:
    """Compares the files with their checksums, if there are any; in any case nothing is read that is no file."""
    try:
        data = read_json(directory / "config.json", MAX_BYTES)
    except FileError as error:
        raise WeightsError(f"{escaped(directory / 'config.json')}: {error}") from None
    for root, _, names in os.walk(directory / "params"):
        for name in names:
            if not os.path.isfile(os.path.join(root, name)):
                raise WeightsError(f"{escaped(os.path.join(root, name))}: not a regular file")
    if isinstance(data, dict) and CHECKSUMS in data:
        verify(directory, data[CHECKSUMS])


def _stored(checkpointer: Any, folder: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Name -> shape and dtype of the leaves in the folder."""
    try:
        metadata = checkpointer.metadata(folder).item_metadata
        return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in metadata.tree.items()}
    except Exception as error:  # anything from a missing file to a changed format
        raise WeightsError(f"{escaped(folder)}: not a readable orbax checkpoint: {first_line(error)}") from error


def _check_stored(folder: Path, stored: dict[str, tuple[int, ...]], shapes: dict[str, jax.ShapeDtypeStruct]) -> None:
    wanted = {name: leaf.shape for name, leaf in shapes.items()}
    differing = sorted(name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name))
    if differing:
        shown = listed(f"{short(name)} ({stored.get(name)} instead of {wanted.get(name)})" for name in differing)
        raise WeightsError(f"{escaped(folder)}: {len(differing)} leaves do not fit the model's settings: {shown}")


def _checked_leaves(params: Any, family: Family) -> dict[str, jax.Array]:
    leaves = by_path(params)
    plain = family.network.abstract(jnp.bfloat16, family.tensors.stored_form(leaves))
    tree = with_forms(plain, _forms(plain, leaves))
    wanted = {name: leaf.shape for name, leaf in by_path(tree).items()}
    if {name: leaf.shape for name, leaf in leaves.items()} != wanted:
        raise WeightsError("the parameters to save are not those of the settings")
    return leaves
