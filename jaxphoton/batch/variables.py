"""Texts with variables that every image fills in: `A photo called {name} from {dir}.`"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from jaxphoton.batch.errors import EntryError
from jaxphoton.batch.exports.names import with_extension
from jaxphoton.batch.sources.item import Item

# Columns that hold the caption an image came with, the first one found.
CAPTION_COLUMNS = ("caption", "txt")
# Filled in from the image itself; every other variable is a column.
OWN = ("name", "dir", "caption")

_VARIABLE = re.compile(r"\{([A-Za-z_]\w*)\}")


def variables(text: str) -> tuple[str, ...]:
    """The variables of a text, each once."""
    return tuple(dict.fromkeys(_VARIABLE.findall(text)))


def fill(text: str, item: Item, extension: str = ".txt") -> str:
    """The text for one image: `{name}` is its file name without suffix, `{dir}` the folder it is in, `{caption}` the
    caption it came with, `{...}` the value of a column. Other braces stay.

    Args:
      extension: of the text file beside a local image that `{caption}` falls back to; without one it is empty.

    Raises:
      EntryError: the image has no such column.
    """
    if "{" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name == "caption":
            return original_caption(item) or _beside(item, extension)
        if name in item.columns:
            return str(item.columns[name])
        if name == "name":
            return posixpath.splitext(posixpath.basename(item.key))[0]
        if name == "dir":
            return posixpath.basename(posixpath.dirname(item.path.partition("#")[0]))
        raise EntryError(item.key, "bad-entry", f"no column {name!r}, which {text!r} needs")

    return _VARIABLE.sub(value, text)


def original_caption(item: Item) -> str:
    """The caption in the columns of an image, empty where there is none."""
    return next((str(item.columns[name]) for name in CAPTION_COLUMNS if name in item.columns), "")


def _beside(item: Item, extension: str) -> str:
    if not item.local:
        return ""
    try:
        return Path(with_extension(item.path, extension)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
