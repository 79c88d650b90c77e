"""What other files of a model's folder say beside its `config.json`, as far as they are there."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jaxphoton.config.fields import ConfigError, require
from jaxphoton.files import MAX_TOKENIZER_BYTES, FileError, read_json
from jaxphoton.messages import quoted

TOKENS = "added_tokens"


def added_tokens(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """The ids of those tokens that the folder's `tokenizer.json` has.

    Raises:
      ConfigError: it cannot be read, or is in another form.
    """
    found = read_object(folder / "tokenizer.json").get(TOKENS) or ()
    try:
        return {token["content"]: token["id"] for token in found if token["content"] in names}
    except (TypeError, KeyError) as error:
        raise ConfigError(f"tokenizer.json: its {TOKENS} are not in the usual form") from error


def read_object(file: Path) -> dict[str, Any]:
    """An object in a file, empty where there is none.

    Raises:
      ConfigError: it cannot be read, or is none.
    """
    if not os.path.lexists(file):
        return {}
    try:
        data = read_json(file, MAX_TOKENIZER_BYTES)
    except FileError as error:
        raise ConfigError(f"{file.name}: {error}") from None
    require(isinstance(data, dict), f"{file.name}: must be a JSON object, not {quoted(data)}")
    return data
