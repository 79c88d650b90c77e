"""Reading a golden directory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxphoton.files import FileError, read_json
from jaxphoton.image.crops import Crops
from jaxphoton.image.ways import Resize
from jaxphoton.messages import escaped, quoted
from jaxphoton.models.protocol import Pictures
from jaxphoton.weights.checkpoint import Checkpoint, open_checkpoint

MAX_FACTS_BYTES = 16 << 20
ADAPTERS = "adapters."  # names of cases with adapters start with it
CROPS = "crops."  # and those of the crops that stand beside the photos, which families may share


class GoldenError(ValueError):
    """A golden directory that is not one, or lacks what was asked for."""


@dataclass(frozen=True, slots=True)
class GoldenModel:
    """One model's expectations.

    Attributes:
      name: of the folder.
      weights: folder with `config.json` and the checkpoint.
      arrays: the expected arrays.
      facts: `cases.json`.
      images: the arrays of `images.safetensors`.
      folder: the model's.
      adapters: what the model expects with adapters, of the folder `adapters`; None without one.
    """

    name: str
    weights: Path
    arrays: Checkpoint
    facts: dict[str, Any]
    images: Checkpoint
    folder: Path
    adapters: AdapterCases | None = None

    def case_names(self) -> list[str]:
        """All cases, in the order in which one stands on another. Those of `CROPS` are of one family's pictures."""
        crops = {f"{CROPS}{name.split('.')[0]}" for name in self.images}
        listed = {name.split(".")[0] for name in self.arrays} | set(self.facts.get("cases", {}))
        tiling = ["real_config_tiling"] if "real_config_tiling" in self.facts else []
        return sorted(crops) + tiling + sorted(listed) + (self.adapters.case_names() if self.adapters else [])

    def crops(self, image: str, recorded: np.ndarray, pictures: Pictures, resize: Resize = "exact") -> Crops:
        """The recorded crops of a picture; with a fast resize, as far from them as its are from the exact one's."""
        picture = Image.fromarray(self.images.read(f"{image}.pixels"))
        own = pictures.prepare(picture)
        # The originals of Moondream cut a single tile, too, which is the global crop again.
        pixels = recorded[: len(own.pixels)]
        if resize == "fast":
            # Not the crops themselves: those recorded may have been made by two passes in the other order.
            moved = pictures.prepare(picture, resize=resize).pixels.astype(np.int16) - own.pixels
            pixels = np.clip(pixels + moved, 0, 255).astype(np.uint8)
        return dataclasses.replace(own, pixels=pixels)

    def case(self, name: str) -> Case:
        if name.startswith(CROPS):
            return Case(self.images, name.removeprefix(CROPS), {})
        if name == "real_config_tiling":
            return Case(self.arrays, name, self.facts[name])
        if name.startswith(ADAPTERS) and self.adapters is not None:
            return self.adapters.case(name)
        return Case(self.arrays, name, self.facts.get("cases", {}).get(name, {}))


@dataclass(frozen=True, slots=True)
class AdapterCases:
    """What a model expects with adapters.

    Attributes:
      arrays: the expected arrays.
      facts: `cases.json`; the files of an adapter are relative to the model's folder.
    """

    arrays: Checkpoint
    facts: dict[str, Any]

    def case_names(self) -> list[str]:
        with_files = {name for name, facts in self.facts.get("cases", {}).items() if "files" in facts}
        return sorted(f"{ADAPTERS}{name}" for name in {name.split(".")[0] for name in self.arrays} | with_files)

    def case(self, name: str) -> Case:
        name = name.removeprefix(ADAPTERS)
        return Case(self.arrays, name, self.facts.get("cases", {}).get(name, {}))


class Case:
    """The arrays and facts of one case; it remembers which arrays were read."""

    def __init__(self, arrays: Checkpoint, name: str, facts: dict[str, Any]):
        self.name, self.facts = name, facts
        self._arrays = arrays
        self._names = {full for full in arrays if full.split(".")[0] == name}
        self._read: set[str] = set()

    def __contains__(self, array: str) -> bool:
        return f"{self.name}.{array}" in self._names

    def __getitem__(self, array: str) -> np.ndarray:
        full = f"{self.name}.{array}"
        if full not in self._names:
            raise GoldenError(f"the golden files lack {full}")
        self._read.add(full)
        return self._arrays.read(full)

    @property
    def unread(self) -> list[str]:
        return sorted(self._names - self._read)


def open_golden(directory: Path, weights: Path | None = None) -> list[GoldenModel]:
    """The models of a golden directory; `weights` replaces the place of the checkpoints.

    Raises:
      GoldenError: no such directory, or it holds no model, or one whose `cases.json` is not in the usual form.
    """
    if not os.path.isfile(directory / "images.safetensors"):
        raise GoldenError(f"{escaped(directory)}: no golden directory (images.safetensors is missing)")
    images = open_checkpoint(directory / "images.safetensors")
    models = list(_models(directory, images, weights))
    if not models:
        raise GoldenError(f"{escaped(directory)}: no model folder with cases.json and cases.safetensors")
    return models


def _models(directory: Path, images: Checkpoint, weights: Path | None) -> Iterator[GoldenModel]:
    for folder in sorted(directory.iterdir()):
        if (folder / "cases.safetensors").is_file() and (folder / "cases.json").is_file():
            arrays, facts = _cases(folder)
            below = folder / "adapters"
            adapters = AdapterCases(*_cases(below)) if (below / "cases.json").is_file() else None
            yield GoldenModel(folder.name, weights or folder, arrays, facts, images, folder, adapters)


def _cases(folder: Path) -> tuple[Checkpoint, dict[str, Any]]:
    return open_checkpoint(folder / "cases.safetensors"), _facts(folder / "cases.json")


def _facts(file: Path) -> dict[str, Any]:
    try:
        facts = read_json(file, MAX_FACTS_BYTES)
    except FileError as error:
        raise GoldenError(f"{escaped(file)}: {error}") from None
    cases = facts.get("cases", {}) if isinstance(facts, dict) else None
    if not isinstance(cases, dict):
        raise GoldenError(f"{escaped(file)}: must be an object with an object of cases, not {quoted(facts)}")
    wrong = next((name for name, case in cases.items() if not isinstance(case, dict)), None)
    if wrong is not None:
        raise GoldenError(f"{escaped(file)}: the case {quoted(wrong)} must be an object, not {quoted(cases[wrong])}")
    return facts
