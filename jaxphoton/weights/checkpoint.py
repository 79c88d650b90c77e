"""Checkpoints: the tensors of one or several memory-mapped files, handed out as views."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxphoton.weights.mapped import MappedFile, TensorEntry, WeightsError
from jaxphoton.weights.safetensors import TensorFile, unique
from jaxphoton.weights.torch_file import TorchFile

__all__ = ["Checkpoint", "WeightsError", "open_checkpoint"]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
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
                    other = self._homes[name].path.name
                    raise WeightsError(f"{self.path}: tensor {name!r} is in both {other} and {file.path.name}")
                self._homes[name] = file

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

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
    if path.is_file():
        return Checkpoint(path, [_open(path)])
    if not path.is_dir():
        raise WeightsError(f"{path}: no such file or folder")
    if (path / INDEX_FILE).is_file():
        return _open_sharded(path)
    if (path / SINGLE_FILE).is_file():
        return Checkpoint(path, [_open(path / SINGLE_FILE)])
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("*.pt"))
    if not files:
        raise WeightsError(f"{path}: the folder holds no .safetensors and no .pt file")
    if files[0].suffix == ".pt" and len(files) > 1:
        raise WeightsError(f"{path}: which file? The folder holds {', '.join(file.name for file in files)}")
    return Checkpoint(path, [_open(file) for file in files])


def _open(path: Path) -> MappedFile:
    return TorchFile(path) if path.suffix in TORCH_SUFFIXES else TensorFile(path)


def _open_sharded(folder: Path) -> Checkpoint:
    homes = _read_index(folder / INDEX_FILE)
    shards = sorted(set(homes.values()))
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    if absent:
        raise WeightsError(f"{folder}: {len(absent)} of {len(shards)} shards are missing: {', '.join(absent[:20])}")
    files = {shard: TensorFile(folder / shard) for shard in shards}
    lost = [f"{name} ({shard})" for name, shard in homes.items() if name not in files[shard].entries]
    if lost:
        raise WeightsError(f"{folder}: {len(lost)} tensors of the index are not in their shard: {', '.join(lost[:20])}")
    stray = [f"{name} ({shard})" for shard, file in files.items() for name in file.entries if name not in homes]
    if stray:
        raise WeightsError(
            f"{folder}: {len(stray)} tensors of the shards are not in the index: {', '.join(stray[:20])}"
        )
    return Checkpoint(folder, files.values())


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name of its shard."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}") from error
    homes = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(homes, dict) or not homes or not all(isinstance(shard, str) for shard in homes.values()):
        raise WeightsError(f"{path}: 'weight_map' must be an object of tensor name to file name")
    # An index comes from a download: a shard is a file of this folder, never a path to somewhere else.
    for shard in set(homes.values()):
        if Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise WeightsError(f"{path}: {shard!r} is not a plain file name")
    return homes
