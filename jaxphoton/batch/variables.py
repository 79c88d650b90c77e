"""Texts with variables that every image fills in: `A photo called {name} from {dir}.`"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection

from jaxphoton.batch.errors import EntryError
from jaxphoton.batch.exports.names import with_extension
from jaxphoton.batch.sources.item import Item
from jaxphoton.files import first_bytes
from jaxphoton.messages import quoted

# Columns that hold the caption an image came with, the first one found.
CAPTION_COLUMNS = ("caption", "txt")
# Filled in from the image itself; every other variable is a column.
OWN = ("name", "dir", "caption")
_LARGEST = 1 << 20  # of a text beside an image

_MARK = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_WORD = re.compile(r"[A-Za-z_]\w*")


def variables(text: str) -> tuple[str, ...]:
    """What stands in braces and may be a variable, each once: `is_variable` says which are."""
    return tuple(dict.fromkeys(name for _, name in _pieces(text) if name))


def fill(text: str, item: Item, extension: str = ".txt", known: Collection[str] | None = None) -> str:
    """The text for one image: `{name}` is its file name without suffix, `{dir}` the folder it is in, `{caption}` the
    caption it came with, `{...}` the value of a column. `{{` and the `}}` that belongs to it become single braces, and
    what they enclose is still filled in. Other braces stay.

    Args:
      extension: of the text file beside a local image that `{caption}` falls back to; without one it is empty.
      known: columns; braces around any other name are text. None: every word is a column.

    Raises:
      EntryError: the image has no such column.
    """

    def value(name: str) -> str:
        if name == "caption":
            return original_caption(item) or _beside(item, extension)
        if name in item.columns:
            return str(item.columns[name])
        if name == "name":
            return posixpath.splitext(posixpath.basename(item.key))[0]
        if name == "dir":
            return posixpath.basename(posixpath.dirname(item.path.partition("#")[0]))
        raise EntryError(item.key, "bad-entry", f"no column {name!r}, which {quoted(text)} needs")

    return "".join(value(name) if name and is_variable(name, known) else piece for piece, name in _pieces(text))


def is_variable(name: str, known: Collection[str] | None) -> bool:
    """Whether `{name}` stands for something; `known` as in `fill`."""
    if known is None:
        return is_word(name)
    return name in OWN or name in known


def is_word(name: str) -> bool:
    """Whether a name is meant as a variable wherever it stands in braces; others (`{image-caption}`, `{1}`) are only
    where there is such a column."""
    return _WORD.fullmatch(name) is not None


def _pieces(text: str) -> list[tuple[str, str]]:
    """(what stands there, its name if it may be a variable), the doubled braces made single ones."""
    pieces: list[tuple[str, str]] = []
    opened: list[int] = []  # places of `{{` that have no `}}` yet
    end = 0
    for found in _MARK.finditer(text):
        pieces.append((text[end : found.start()], ""))
        end, mark = found.end(), found[0]
        if mark == "{{":
            opened.append(len(pieces))
        elif mark == "}}" and opened:
            pieces[opened.pop()] = "{", ""
            mark = "}"
        pieces.append((mark, found[1] or ""))
    return [*pieces, (text[end:], "")]


def original_caption(item: Item) -> str:
    """The caption in the columns of an image, empty where there is none."""
    return next((str(item.columns[name]) for name in CAPTION_COLUMNS if name in item.columns), "")


def _beside(item: Item, extension: str) -> str:
    if not item.local:
        return ""
    try:
        return first_bytes(with_extension(item.path, extension), _LARGEST).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return ""
