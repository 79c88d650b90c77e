"""Compiled programs in a folder: what they were made for, and how they come back.

A folder holds `manifest.json` and a file for each program. Executables are machine code, and jax wraps them in a
pickle: whoever can write such a folder can run code here. What stands in the manifest is checked before anything else
is read; the trees of arguments and results are not read but made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from jaxphoton.config import ConfigError, EngineConfig
from jaxphoton.engine.buckets import Key
from jaxphoton.engine.compiling import spelled
from jaxphoton.engine.places import driver, too_old
from jaxphoton.files import FileError, read_bytes, read_json
from jaxphoton.messages import escaped, first_line, quoted

MANIFEST, FORM = "manifest.json", 1
MAX_MANIFEST, MAX_PROGRAM = 1 << 20, 1 << 30  # bytes
# Settings of an engine that no program depends on; the pool's size is a fact of its own.
RUNNING = frozenset(
    {"depth", "memory_fraction", "max_waiting", "image_workers", "image_timeout", "share_prefixes", "kv_pages"}
)
# What the programs are made from: code, and in `configs/gpus` the forms of their steps.
SOURCES = ("config", "configs/gpus", "constraints", "engine", "layers", "models")
# Facts that are digests, told in words.
WORDS = {
    "processor": "a processor of another kind",
    "source": "another version of jaxphoton's code",
    "model": "a model with other settings",
    "parameters": "parameters of other names, shapes or dtypes",
}

Facts = dict[str, Any]  # JSON values
Trees = tuple[Any, Any]  # structures of a program's arguments and of its results


class ExecutablesError(ValueError):
    """A folder of executables that cannot be used here; the message says why."""


@dataclass(frozen=True, slots=True)
class Executables:
    """A folder whose manifest was read.

    Attributes:
      folder: where it lies.
      facts: what the programs were made for: of the machine, of the model, of the source code.
      engine: the settings that they were compiled with.
      pages: of the pool of keys and values.
      files: key -> (bytes, SHA-256) of each program.
    """

    folder: Path
    facts: Facts
    engine: EngineConfig
    pages: int
    files: Mapping[Key, tuple[int, str]]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Executables:
        """Reads the manifest, and nothing else.

        Raises:
          ExecutablesError: there is none, or it is damaged.
        """
        folder = Path(folder)
        file = folder / MANIFEST
        try:
            data = read_json(file, MAX_MANIFEST)
            if not isinstance(data, dict) or data.get("form") != FORM:
                raise ExecutablesError(f"{escaped(file)}: not the manifest of executables of this version")
            files = {tuple(one["key"]): (int(one["bytes"]), str(one["sha256"])) for one in data["programs"]}
            return cls(folder, dict(data["facts"]), EngineConfig(**data["engine"]), int(data["pages"]), files)
        except FileError as error:
            raise ExecutablesError(f"{escaped(file)}: {error}") from None
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ExecutablesError):
                raise
            raise ExecutablesError(f"{escaped(file)}: damaged: {first_line(error)}") from error

    def require(self, here: Facts) -> None:
        """Raises ExecutablesError with all that `here` (facts, or some of them) has otherwise."""
        wrong = [
            WORDS.get(name) or f"{name} {_shown(self.facts.get(name))}, here {_shown(value)}"
            for name, value in here.items()
            if name != "driver" and self.facts.get(name) != value
        ]
        if (least := self.facts.get("driver")) and too_old(found := driver(), least):
            wrong.append(f"a driver of {least} or newer, here {found}")
        self._refuse(wrong)

    def require_engine(self, engine: EngineConfig) -> None:
        """Raises ExecutablesError with all settings that the programs depend on and that differ."""
        mine, theirs = dataclasses.asdict(self.engine), dataclasses.asdict(engine)
        wrong = [
            f"{name} {_shown(mine[name])}, here {_shown(value)}"
            for name, value in theirs.items()
            if name not in RUNNING and mine[name] != value
        ]
        if engine.kv_pages not in (None, self.pages):
            wrong.append(f"kv_pages {self.pages}, here {engine.kv_pages}")
        self._refuse(wrong)

    def load(self, key: Key, trees: Trees, device: Any) -> Any:
        """One program, a jax.stages.Compiled.

        Raises:
          ExecutablesError: its file is missing, damaged, or cannot be run by this device.
        """
        file = self.folder / file_name(key)
        if key not in self.files:
            raise ExecutablesError(f"{escaped(self.folder)}: holds no program {spelled(key)}")
        size, digest = self.files[key]
        try:
            data = read_bytes(file, MAX_PROGRAM)
        except FileError as error:
            raise ExecutablesError(f"{escaped(file)}: {error}") from None
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise ExecutablesError(f"{escaped(file)}: damaged: its bytes are not those that were written")
        try:
            return serialize_executable.deserialize_and_load(
                data, *trees, backend=device.client, execution_devices=[device]
            )
        except Exception as error:  # what jax and XLA raise here is anything
            raise ExecutablesError(f"{escaped(file)}: cannot be loaded: {first_line(error)}") from error

    def _refuse(self, wrong: list[str]) -> None:
        if wrong:
            raise ExecutablesError(f"{escaped(self.folder)}: the executables are for {'; '.join(wrong)}")


def write(
    folder: str | os.PathLike[str],
    facts: Facts,
    engine: EngineConfig,
    pages: int,
    programs: Mapping[Key, Any],
    trees: Mapping[Key, Trees],
) -> int:
    """Writes programs (jax.stages.Compiled) to a new folder; returns its bytes.

    Everything is written to a hidden sibling that takes the name at the end.

    Raises:
      ExecutablesError: it cannot be written.
    """
    folder = Path(folder).absolute()
    scratch = folder.with_name(f".{folder.name}.incomplete-{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        lines = []
        for key, program in programs.items():
            data, *found = serialize_executable.serialize(program)
            assert tuple(found) == trees[key], f"{spelled(key)}: its arguments or results are not those foreseen"
            (scratch / file_name(key)).write_bytes(data)
            lines.append({"key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        manifest = {
            "form": FORM,
            "facts": facts,
            "engine": dataclasses.asdict(engine),
            "pages": pages,
            "programs": lines,
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        scratch.rename(folder)
        return sum(line["bytes"] for line in lines)
    except OSError as error:
        raise ExecutablesError(f"{escaped(folder)}: cannot be written: {first_line(error)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def file_name(key: Key) -> str:
    return "-".join(map(str, key)) + ".executable"


def model_facts(settings: Mapping[str, Any], params: Any) -> Facts:
    """Of a model's settings, and of the names, shapes and dtypes of its parameters: digests."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    shapes = [[jax.tree_util.keystr(path), list(leaf.shape), leaf.dtype.name] for path, leaf in leaves]
    return {
        "model": _digest(json.dumps(dict(settings), sort_keys=True).encode()),
        "dtypes": ", ".join(sorted({leaf.dtype.name for _, leaf in leaves})),
        "parameters": _digest(json.dumps(shapes).encode()),
        "source": source_digest(),
    }


def source_digest() -> str:
    """Of the source code that programs are made from, and of its data."""
    root, digest = Path(str(resources.files("jaxphoton"))), hashlib.sha256()
    for place in (*(root / name for name in SOURCES), root.parent / "kernels_pallas"):
        for source in sorted(file for file in place.rglob("*") if file.suffix in (".py", ".json")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else quoted(value)
