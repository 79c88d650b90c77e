"""The families, by the `model_type` of their `config.json`; a family's module is imported when it is asked for."""

from __future__ import annotations

import json
import os
from importlib import import_module, resources
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxphoton.config.fields import ConfigError, OtherFamily, require
from jaxphoton.files import FileError, read_json
from jaxphoton.messages import escaped, quoted, short
from jaxphoton.models.beside import read_object
from jaxphoton.models.protocol import Family

# model_type -> module with the functions `bound(data) -> Family` and `of(config) -> Family`; and, where settings stand
# in other files of a model's folder, `beside(folder) -> dict` of them: what is in `config.json` itself counts more.
_MOONDREAM = "jaxphoton.models.moondream.family"
FAMILIES = {
    "moondream1": _MOONDREAM,
    "moondream2": _MOONDREAM,
    "moondream3": _MOONDREAM,
    "llava": "jaxphoton.models.joycaption.family",
    "smolvlm": "jaxphoton.models.smolvlm.family",
}
# Those that may be taken for ours, and what they are.
OTHERS = {"idefics3": "SmolVLM 1, which has another vocabulary and another prompt than SmolVLM2"}
BARE = "moondream2"  # of settings without a model_type
GENERATION = "generation_config"
MAX_BYTES = 4 << 20  # of a settings file


def family_of(data: dict[str, Any]) -> Family:
    """The family that a `config.json` names, bound to its settings.

    Raises:
      OtherFamily: its `model_type` is none of ours.
      ConfigError: its settings are not those of the family.
    """
    require(isinstance(data, dict), f"settings must be a JSON object, not {quoted(data)}")
    return import_module(FAMILIES[checked_type(data)]).bound(data)


def family_for(config: Any) -> Family:
    """The family of settings in its own form (`Family.config`).

    Raises:
      TypeError: they are those of none.
    """
    home = type(config).__module__.rpartition(".")[0]
    if f"{home}.family" not in FAMILIES.values():
        raise TypeError(f"the settings must be those of a model (ModelConfig), not {quoted(config)}")
    return import_module(f"{home}.family").of(config)


def checked_type(data: dict[str, Any]) -> str:
    """The `model_type` of settings.

    Raises:
      OtherFamily: it is none of ours.
    """
    kind = data.get("model_type", BARE)
    if not isinstance(kind, str) or kind not in FAMILIES:
        name = short(kind) if isinstance(kind, str) and kind.strip() else quoted(kind)
        name += f" ({OTHERS[name]})" if name in OTHERS else ""
        raise OtherFamily(f"not a model of ours: {name}; known are {', '.join(sorted(FAMILIES))}")
    return kind


def read_family(path: str | Path) -> Family:
    """The family of a `config.json` on disk.

    Raises:
      OtherFamily, ConfigError: as `family_of`; or the file cannot be read as JSON.
    """
    try:
        return family_of(_with_others(_with_generation(read_json(path, MAX_BYTES), Path(path)), Path(path)))
    except (FileError, ConfigError) as error:
        kind = OtherFamily if isinstance(error, OtherFamily) else ConfigError
        raise kind(f"{escaped(path)}: {error}") from None


def _with_generation(data: Any, path: Path) -> Any:
    """Settings together with a `generation_config.json` beside their file, under its name; unless they have their own,
    as those of converted checkpoints do.

    Raises:
      ConfigError: it cannot be read, or is no object.
    """
    if not isinstance(data, dict) or GENERATION in data:
        return data
    found = read_object(path.with_name(f"{GENERATION}.json"))
    return data | {GENERATION: found} if found else data


def _with_others(data: Any, path: Path) -> Any:
    """Settings together with those in other files of their folder, as far as their family has any."""
    require(isinstance(data, dict), f"settings must be a JSON object, not {quoted(data)}")
    beside = getattr(import_module(FAMILIES[checked_type(data)]), "beside", None)
    return data if beside is None else beside(path.parent) | data


def packaged() -> tuple[str, ...]:
    """Names of the models whose settings are in the package."""
    files = resources.files("jaxphoton").joinpath("configs").iterdir()
    return tuple(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))


def named_family(name: str) -> Family:
    """The family of settings in the package.

    Raises:
      ConfigError: there are none of that name.
    """
    require(name in packaged(), f"unknown model family {name!r}; there are {', '.join(packaged())}")
    return family_of(json.loads(resources.files("jaxphoton").joinpath("configs", f"{name}.json").read_text("utf-8")))


def companion(family: Family, name: str) -> ModuleType:
    """The module of that name in a family's folder.

    Raises:
      ValueError: it has none.
    """
    module = f"{type(family).__module__.rpartition('.')[0]}.{name}"
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ValueError(f"the family {family.name} has no {name}") from None


def settings_file(model: Path) -> Path:
    """The `config.json` of a local model: in its folder, or beside its file."""
    return (model if os.path.isdir(model) else model.parent) / "config.json"
