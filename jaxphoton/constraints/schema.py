"""A JSON schema as it was given: plain, bounded data, well-formed by its own draft."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from jaxphoton.messages import quoted

MAX_DEPTH = 100  # the compiler's own reader stops at 128
MAX_VALUES = 200_000
MAX_MAPPINGS = 5_000  # looking a schema over takes about 2 ms a mapping
MAX_LENGTH = 1_000_000

DRAFTS = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
    "http://json-schema.org/draft-06/schema": "Draft6Validator",
    "http://json-schema.org/draft-04/schema": "Draft4Validator",
}
WRAPPER = {"name", "description", "strict", "schema", "type"}
NEWEST = next(iter(DRAFTS))


class SchemaError(ValueError):
    """A schema that cannot be used; the message names its fault."""

    def __init__(self, fault: str, path: tuple[str | int, ...] = ()):
        where = "/".join(map(str, path if path[:1] and str(path[0]).startswith("#") else ("#", *path)))
        if len(where) > 100:
            where = where[:60] + "..." + where[-30:]
        super().__init__(f"setting schema cannot be used: {fault}" + (f" (at {where})" if path else ""))


def schema_text(value: Any) -> str:
    """A schema as JSON.

    Raises:
      TypeError: neither a mapping nor a bool, or with something in it that is no JSON.
      ValueError: what JSON has no form for, or too much of it.
    """
    if not isinstance(value, (Mapping, bool)):
        read = "; json.loads reads one from text" if isinstance(value, (str, bytes)) else ""
        raise TypeError(f"setting schema must be a JSON schema as a mapping, not {type(value).__name__}{read}")
    text = json.dumps(_Reader().plain(value, 0), ensure_ascii=False)
    if len(text) > MAX_LENGTH:
        raise ValueError(f"setting schema is too large: {len(text):,} characters of JSON, at most {MAX_LENGTH:,}")
    return text


class _Reader:
    """Copies data, counting it: a value used many times over is large as JSON."""

    def __init__(self):
        self._values = self._mappings = 0

    def plain(self, value: Any, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"setting schema is nested more than {MAX_DEPTH} levels deep")
        if self._values > MAX_VALUES:
            raise ValueError(f"setting schema is too large: more than {MAX_VALUES:,} values")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(f"setting schema holds {value!r}, which is not JSON")
            return float(value)
        if isinstance(value, Mapping):
            self._mappings += 1
            if self._mappings > MAX_MAPPINGS:
                raise ValueError(f"setting schema is too large: more than {MAX_MAPPINGS:,} mappings")
            return {self._key(key): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        raise TypeError(f"setting schema holds a {type(value).__name__}, which is not JSON: {quoted(value)}")

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise TypeError(f"setting schema holds a key that is not text: {quoted(key)}")
        return _text(key)


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"setting schema holds half a surrogate pair, which is not text: {quoted(text)}") from None
    return str.__str__(text)


def refuse_wrapped(root: Any) -> None:
    """What web APIs take has the schema in it; read as a schema, it would allow any JSON.

    Raises:
      SchemaError: this is such a wrapper.
    """
    if not isinstance(root, dict):
        return
    wrapped = root.get("type") == "json_schema" and "json_schema" in root
    if wrapped or (isinstance(root.get("schema"), (dict, bool)) and root.keys() <= WRAPPER):
        raise SchemaError("it is a wrapper of the form that web APIs take; give the schema inside")


def draft_of(root: Any) -> str:
    """The draft that a schema says it is of, one of DRAFTS.

    Raises:
      SchemaError: it says another.
    """
    named = root.get("$schema", NEWEST) if isinstance(root, dict) else NEWEST
    draft = named.rstrip("#") if isinstance(named, str) else None
    if draft not in DRAFTS:
        raise SchemaError(f"$schema {quoted(named)} is not supported; supported are {', '.join(DRAFTS)}")
    return draft


def check_well_formed(schema: Any, draft: str, path: tuple[str | int, ...] = ()) -> None:
    """Against the draft's own schema of schemas.

    Raises:
      SchemaError: with the keyword at fault.
    """
    import jsonschema

    validator = getattr(jsonschema, DRAFTS[draft])
    try:
        # Formats (of $id, say) are left out: those of patterns are checked where they are read.
        validator.check_schema(schema, format_checker=None)
    except jsonschema.SchemaError as error:
        message = error.message if len(error.message) < 200 else error.message[:120] + "..." + error.message[-60:]
        raise SchemaError(message, (*path, *error.absolute_path)) from None
