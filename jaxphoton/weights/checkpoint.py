"""Checkpoints: the tensors of one or several memory-mapped files, handed out as views."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxphoton.files import FileError, read_json
from jaxphoton.messages import escaped, listed, quoted, short
from jaxphoton.weights.mapped import MappedFile, TensorEntry, WeightsError
from jaxphoton.weights.safetensors import TensorFile
from jaxphoton.weights.torch_file import TorchFile

__all__ = ["Checkpoint", "WeightsError", "open_checkpoint"]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MAX_INDEX_BYTES = 16 << 20
MAX_NAME = 255  # bytes of a file's name
TORCH_SUFFIXES = (".pt", ".pth", ".bin")


class Checkpoint:
    """The tensors of one or several files under their names in the file.

    Raises:
      WeightsError: two files hold a tensor of the same name.
    """

    def __init__(self, path: str | Path, files: Iterable[MappedFile]):
        self.path = Path(path)
        self._homes: dict[str, MappedFile] = {}
        for file in files:
            for name in file.entries:
                if name in self._homes:
                    one, two = short(self._homes[name].path.name), short(file.path.name)
                    raise WeightsError(f"{escaped(self.path)}: tensor {quoted(name)} is in both {one} and {two}")
                self._homes[name] = file

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the files say of themselves; of names that are in several, one of these."""
        files = {id(file): file for file in self._homes.values()}.values()
        return {name: value for file in files for name, value in file.metadata.items()}

    def entry(self, name: str) -> TensorEntry:
        return self._homes[name].entries[name]

    def read(self, name: str) -> np.ndarray:
        """A read-only view of the tensor in the mapped file: copy what must outlive the file."""
        return self._homes[name].read(name)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a `.safetensors` file, a file of `torch.save` (`.pt`, `.pth`, `.bin`), or the one checkpoint of a folder.

    A folder's `model.safetensors.index.json` names its shards. Without an index `model.safetensors` is the
    checkpoint; without that, all `.safetensors` files together; without any, its one `.pt` file.

    Raises:
      WeightsError: nothing there to open, a shard or a tensor named by the index is missing, a tensor of a shard is
        not in the index, a tensor is in two files, or a file is damaged.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise WeightsError(f"{escaped(path)}: no such file or folder")
    if not os.path.isdir(path):
        return Checkpoint(path, [_open(path)])
    # What is not a regular file is found too, and refused by name when it is opened.
    if os.path.lexists(path / INDEX_FILE):
        return _open_sharded(path)
    if os.path.lexists(path / SINGLE_FILE):
        return Checkpoint(path, [_open(path / SINGLE_FILE)])
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.pt"))
    if not files:
        raise WeightsError(f"{escaped(path)}: the folder holds no .safetensors and no .pt file")
    if files[0].suffix == ".pt" and len(files) > 1:
        names = listed(file.name for file in files)
        raise WeightsError(f"{escaped(path)}: which file? The folder holds {names}")
    return Checkpoint(path, [_open(file) for file in files])


def _open(path: Path) -> MappedFile:
    if path.suffix == ".gguf":
        raise WeightsError(f"{escaped(path)}: GGUF files are not read; use the safetensors of the model")
    return TorchFile(path) if path.suffix in TORCH_SUFFIXES else TensorFile(path)


def _open_sharded(folder: Path) -> Checkpoint:
    homes = _read_index(folder / INDEX_FILE)
    shards = sorted(set(homes.values()))
    absent = [shard for shard in shards if not os.path.lexists(folder / shard)]
    where = escaped(folder)
    if absent:
        raise WeightsError(f"{where}: {len(absent)} of {len(shards)} shards are missing: {listed(absent)}")
    files = {shard: TensorFile(folder / shard) for shard in shards}
    lost = [f"{short(name)} ({shard})" for name, shard in homes.items() if name not in files[shard].entries]
    if lost:
        raise WeightsError(f"{where}: {len(lost)} tensors of the index are not in their shard: {listed(lost)}")
    stray = [f"{short(name)} ({shard})" for shard, file in files.items() for name in file.entries if name not in homes]
    if stray:
        raise WeightsError(f"{where}: {len(stray)} tensors of the shards are not in the index: {listed(stray)}")
    return Checkpoint(folder, files.values())


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name of its shard."""
    try:
        data = read_json(path, MAX_INDEX_BYTES)
    except FileError as error:
        raise WeightsError(f"{escaped(path)}: {error}") from None
    homes = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(homes, dict) or not homes or not all(isinstance(shard, str) for shard in homes.values()):
        raise WeightsError(f"{escaped(path)}: 'weight_map' must be an object of tensor name to file name")
    for shard in set(homes.values()):
        if not _plain(shard):
            raise WeightsError(f"{escaped(path)}: {quoted(shard)} is not a plain file name")
    return homes


def _plain(name: str) -> bool:
    """Whether it names a file of this folder: an index comes from a download, and no shard is a path elsewhere."""
    if name in ("", ".", "..") or not name.isprintable() or "\\" in name:
        return False
    return Path(name).name == name and len(os.fsencode(name)) <= MAX_NAME
