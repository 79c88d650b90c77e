"""The image in a row of a table or a list: bytes, a path, an address, or one of these in a list or a struct."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxphoton.batch.sources.files import file_item
from jaxphoton.batch.sources.item import Item, broken
from jaxphoton.batch.sources.retry import RetryPolicy
from jaxphoton.batch.sources.storage import absolute, is_remote

# How the files of common formats begin.
_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|BM|II[*+]\0|MM\0[*+]|....ftyp|\0\0\0\x0cjP  ", re.DOTALL
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_SHORTEST = 40  # characters of base64 that can be an image
_LONGEST_PATH, _LONGEST_ADDRESS = 4096, 1 << 15
# Fields of a struct that may hold the image, as `datasets` and chat formats name them.
_FIELDS = ("bytes", "path", "url", "image_url", "image", "data")


def image_item(
    value: Any, key: str, where: str, root: str, retry: RetryPolicy, columns: Mapping[str, Any] | None = None
) -> Item:
    """The item of a row; one whose `read` raises if there is no image in `value`.

    Args:
      value: bytes; a path (relative to `root`) or an address; base64 or a `data:` address; a struct with one of these;
        a list, whose first is taken.
      where: its row, for what has no path of its own.
    """
    value, notes = _first(value)
    if value is None:
        return broken(key, where, "bad-entry", "no image in this row")
    if isinstance(value, bytes):
        item = Item(key, where, functools.partial(bytes, value))
    elif not isinstance(value, (str, int)) or isinstance(value, bool):
        return broken(key, where, "bad-entry", f"an image column of {type(value).__name__}: expected bytes or a path")
    else:
        try:
            data = embedded(str(value))
        except ValueError as error:
            return broken(key, where, "bad-entry", str(error))
        if data is not None:
            item = Item(key, where, functools.partial(bytes, data))
        else:
            item = file_item(key, absolute(str(value), root), retry=retry)
    return replace(item, columns=columns or {}, notes=notes)


def path_of(value: Any) -> str | None:
    """The path or address in a row, None where the image is something else."""
    value, _ = _first(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return None if is_embedded(text) or len(text) > _LONGEST_PATH else text


def is_embedded(text: str) -> bool:
    """Whether a text is an image itself, and no path."""
    if text[:5].lower() == "data:":
        return True
    if len(text) < _SHORTEST or not _BASE64.fullmatch(text[:_SHORTEST]):
        return False
    try:
        return _SIGNATURE.match(_decoded(text[:_SHORTEST])) is not None and _BASE64.fullmatch(text) is not None
    except ValueError:
        return False


def embedded(text: str) -> bytes | None:
    """The image file that a text is, None for a path or an address.

    Raises:
      ValueError: it is neither.
    """
    if text[:5].lower() == "data:":
        head, comma, body = text[5:].partition(",")
        if not comma:
            raise ValueError("a data: address without a comma")
        body = urllib.parse.unquote_to_bytes(body)
        if not head.rstrip().lower().endswith("base64"):
            return body
        return _checked(body.decode("ascii", "replace"), "the data: address")
    if is_embedded(text):
        return _checked(text, "the text")
    if len(text) > (_LONGEST_ADDRESS if is_remote(text) else _LONGEST_PATH):
        raise ValueError(f"a text of {len(text):,} characters, which is neither a path nor an image in base64")
    return None


def _first(value: Any) -> tuple[Any, tuple[str, ...]]:
    """What stands in lists and structs, and what a person should know about it."""
    notes: tuple[str, ...] = ()
    for _ in range(8):  # a struct in a list in a struct; no more than that is meant
        if isinstance(value, (list, tuple)):
            found = [each for each in value if each is not None]
            if len(found) > 1 and not isinstance(found[0], (int, float, list)):
                notes = (*notes, f"first of {len(found)} images")
            elif len(found) > 1:
                return value, notes  # pixels as numbers
            value = found[0] if found else None
        elif isinstance(value, Mapping):
            value = _of_struct(value)
        else:
            break
    return (None if value in ("", b"") else value), notes


def _of_struct(value: Mapping[str, Any]) -> Any:
    data = value.get("bytes")
    if isinstance(data, str):
        # JSON has no bytes: this can only be base64.
        return f"data:;base64,{data}" if data and not data.startswith("data:") else data or value.get("path")
    return next((value[name] for name in _FIELDS if value.get(name)), None)


def _checked(text: str, what: str) -> bytes:
    try:
        return _decoded(text)
    except ValueError as error:
        raise ValueError(f"{what} is damaged base64: {error}") from None


def _decoded(text: str) -> bytes:
    """Both alphabets, with or without padding and line ends.

    Raises:
      ValueError: it is no base64.
    """
    text = re.sub(r"\s+", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
