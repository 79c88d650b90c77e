"""Converted checkpoints: a folder with `config.json`, `tokenizer.json` and the parameter leaves under `params/`.

The leaves are stored flat under their dotted paths, so that the files outlive a change of the tree's classes.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxphoton.files import FileError, read_json
from jaxphoton.layers.spec import by_path
from jaxphoton.messages import escaped, first_line, listed, short
from jaxphoton.models.protocol import Family
from jaxphoton.models.registry import MAX_BYTES
from jaxphoton.weights.checksums import checksums, verify
from jaxphoton.weights.load import Placing, completed, require_quantized
from jaxphoton.weights.mapped import WeightsError
from jaxphoton.weights.moved import moved_leaves, stored_shapes

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
    sharding: Placing = None,
    quantized: bool = False,
) -> Any:
    """Parameters of a converted checkpoint, cast to `dtype` and placed as `sharding` says while they are read.

    `quantized` as in `load_model`.

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
    if not isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.sharding.SingleDeviceSharding(sharding or jnp.zeros(()).device)  # type: ignore[arg-type]
    with ocp.StandardCheckpointer() as checkpointer:
        stored = _stored(checkpointer, folder)
        tree = family.network.abstract(dtype, family.tensors.stored_form(stored))
        shapes = by_path(tree)
        moved = family.tensors.moved(stored.keys())
        asked = stored_shapes(shapes, moved)
        _check_stored(folder, stored, asked)
        if quantized:
            require_quantized(tree)
        target = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding) for name, leaf in asked.items()}
        try:
            restored = checkpointer.restore(folder, target)
        except Exception as error:  # orbax passes on whatever its storage raises
            raise WeightsError(f"{escaped(folder)}: cannot be restored: {first_line(error)}") from error
    leaves = moved_leaves(restored, shapes, moved, sharding)
    return completed(tree, leaves, dtype, quantized)


def abstract(directory: str | Path, family: Family, dtype: DTypeLike = jnp.bfloat16) -> Any:
    """The tree of shapes that `restore` would fill, in the form in which it is stored.

    Raises:
      WeightsError: the folder holds no readable parameters, or not those of the model.
    """
    import orbax.checkpoint as ocp

    folder = Path(directory).absolute() / "params"
    with ocp.StandardCheckpointer() as checkpointer:
        stored = _stored(checkpointer, folder)
    tree = family.network.abstract(dtype, family.tensors.stored_form(stored))
    _check_stored(folder, stored, stored_shapes(by_path(tree), family.tensors.moved(stored.keys())))
    return tree


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


def _stored(checkpointer, folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the leaves in the folder."""
    try:
        metadata = checkpointer.metadata(folder).item_metadata
        return {name: tuple(leaf.shape) for name, leaf in metadata.tree.items()}
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
    tree = family.network.abstract(jnp.bfloat16, family.tensors.stored_form(leaves))
    wanted = {name: leaf.shape for name, leaf in by_path(tree).items()}
    if {name: leaf.shape for name, leaf in leaves.items()} != wanted:
        raise WeightsError("the parameters to save are not those of the settings")
    return leaves
