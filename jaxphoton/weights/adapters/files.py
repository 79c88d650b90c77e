"""Which file of an adapter, and of which form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jaxphoton.files import FileError, read_json, reason
from jaxphoton.messages import escaped, listed
from jaxphoton.models.adapters import Adapter
from jaxphoton.models.naming import WeightsError
from jaxphoton.models.protocol import Family
from jaxphoton.models.tensors import AdapterNames
from jaxphoton.weights.adapters import native, own, peft
from jaxphoton.weights.adapters.pairs import Stored, adapted, read_pairs
from jaxphoton.weights.checkpoint import TORCH_SUFFIXES
from jaxphoton.weights.mapped import MappedFile
from jaxphoton.weights.safetensors import TensorFile
from jaxphoton.weights.torch_file import TorchFile

SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
FINETUNE = "lora_state_dict"  # where a training checkpoint has its adapter
MAX_CONFIG_BYTES = 1 << 20


def load_adapter(
    path: str | os.PathLike[str], family: Family, name: str | None = None, merging: bool = False
) -> Adapter:
    """The adapter of a folder or a file, for a model of this family.

    A folder with an `adapter_config.json` is one of PEFT; any other holds one `.safetensors` file or one of
    `torch.save`, which is ours (`save_adapter`) or of a form that the family has of its own.

    Args:
      name: under which it will be asked for; the folder's or the file's, where none is given.
      merging: for `merged`, which takes pairs of modules that requests cannot choose one for.

    Raises:
      WeightsError: nothing there, damaged, not for a model of this shape, or with anything that is not computed here,
        which is named.
    """
    path = Path(path)
    try:
        file, config = _found(path)
        names = family.tensors.adapters
        pairs = read_pairs(file, _stored(file, config, names, merging), adapted(names, merging))
        return Adapter.of(name or _name(path), pairs, str(path))
    except WeightsError as error:
        where = escaped(path)
        raise WeightsError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except OSError as error:  # of a folder
        raise WeightsError(f"{escaped(path)}: {reason(error)}") from error


def _stored(file: MappedFile, config: Any, names: AdapterNames, merging: bool) -> dict[str, Stored]:
    if config is not None:
        return peft.stored(file, config, names, merging)
    if isinstance(file, TensorFile) and file.metadata.get("format") == native.FORMAT:
        return native.stored(file, names)
    return own.stored(file, names)


def _found(path: Path) -> tuple[MappedFile, Any]:
    """The file of tensors at a path, and the settings of PEFT that belong to it, or None."""
    if not os.path.lexists(path):
        raise WeightsError("no such file or folder")
    if not os.path.isdir(path):
        folder = path.parent
        if path.name in (peft.CONFIG, *peft.WEIGHTS) and os.path.lexists(folder / peft.CONFIG):
            return _peft(folder)
        return _open(path), None
    if os.path.lexists(path / peft.CONFIG):
        return _peft(path)
    files = sorted(path.glob("*.safetensors")) or sorted(f for f in path.iterdir() if f.suffix in TORCH_SUFFIXES)
    if len(files) == 1:
        return _open(files[0]), None
    if files:
        raise WeightsError(f"which file? The folder holds {listed(file.name for file in files)}")
    below = sorted(folder.name for folder in path.iterdir() if os.path.lexists(folder / peft.CONFIG))
    raise WeightsError(
        f"no adapter in the folder itself; below it are {listed(below)}"
        if below
        else f"no adapter: neither {peft.CONFIG} nor a file ending in {', '.join(SUFFIXES)}"
    )


def _peft(folder: Path) -> tuple[MappedFile, Any]:
    held = [name for name in peft.WEIGHTS if os.path.lexists(folder / name)]
    if not held:
        raise WeightsError(f"{peft.CONFIG} without {' or '.join(peft.WEIGHTS)}")
    try:
        config = read_json(folder / peft.CONFIG, MAX_CONFIG_BYTES)
    except FileError as error:
        raise WeightsError(f"{peft.CONFIG}: {error}") from None
    return _open(folder / held[0]), {} if config is None else config


def _open(path: Path) -> MappedFile:
    return TorchFile(path, FINETUNE) if path.suffix in TORCH_SUFFIXES else TensorFile(path)


def _name(path: Path) -> str:
    path = Path(os.path.abspath(path))
    return path.name if os.path.isdir(path) else path.stem
