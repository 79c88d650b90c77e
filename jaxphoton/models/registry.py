"""The families, by the `model_type` of their `config.json`; a family's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from jaxphoton.config.fields import ConfigError, OtherFamily, require
from jaxphoton.files import FileError, read_json
from jaxphoton.messages import escaped, quoted, short
from jaxphoton.models.protocol import Family

# model_type -> module with a function `bound(data) -> Family`.
_MOONDREAM = "jaxphoton.models.moondream.family"
FAMILIES = {"moondream1": _MOONDREAM, "moondream2": _MOONDREAM, "moondream3": _MOONDREAM}
BARE = "moondream2"  # of settings without a model_type
MAX_BYTES = 4 << 20  # of a settings file


def family_of(data: dict[str, Any]) -> Family:
    """The family that a `config.json` names, bound to its settings.

    Raises:
      OtherFamily: its `model_type` is none of ours.
      ConfigError: its settings are not those of the family.
    """
    require(isinstance(data, dict), f"settings must be a JSON object, not {quoted(data)}")
    return import_module(FAMILIES[checked_type(data)]).bound(data)


def checked_type(data: dict[str, Any]) -> str:
    """The `model_type` of settings.

    Raises:
      OtherFamily: it is none of ours.
    """
    kind = data.get("model_type", BARE)
    if not isinstance(kind, str) or kind not in FAMILIES:
        name = short(kind) if isinstance(kind, str) and kind.strip() else quoted(kind)
        raise OtherFamily(f"not a model of ours: {name}; known are {', '.join(sorted(FAMILIES))}")
    return kind


def read_family(path: str | Path) -> Family:
    """The family of a `config.json` on disk.

    Raises:
      OtherFamily, ConfigError: as `family_of`; or the file cannot be read as JSON.
    """
    try:
        return family_of(read_json(path, MAX_BYTES))
    except (FileError, ConfigError) as error:
        kind = OtherFamily if isinstance(error, OtherFamily) else ConfigError
        raise kind(f"{escaped(path)}: {error}") from None
