"""A schema in the form that llguidance keeps to the letter, with its objects closed.

An object is closed where something at its place in the document declares properties and nothing there says
additionalProperties: keys beyond those declared are not written. What belongs to one place are a schema and, through
allOf, anyOf, oneOf and $ref, all that the same value must meet. Each of them is closed with the keys of the others
added, so that two objects of an allOf exclude nothing of each other, while the branches of an anyOf do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxphoton.constraints.branches import told_apart
from jaxphoton.constraints.keywords import MAX_COUNT, Path, check_keywords, count, key_pattern, value_keywords
from jaxphoton.constraints.names import GROUPS, Names, References, own_names
from jaxphoton.constraints.schema import NEWEST, SchemaError, check_well_formed, draft_of, refuse_wrapped

MAX_DEFINITIONS = 300  # the compiler follows references one inside the other, on the stack


class _Piece(NamedTuple):
    """What a schema adds at its own place: an entry of allOf, a $ref or a whole anyOf or oneOf."""

    keyword: str
    schemas: list[Any]
    names: Names


class Normal:
    """The normal form of a schema.

    Attributes:
      schema: for llguidance.
      free_keys: some object may have keys that the schema does not name.
      one_of: it holds oneOf.

    Raises:
      SchemaError: what is not supported, by name.
    """

    def __init__(self, root: Any, closed: bool = True):
        refuse_wrapped(root)
        self._closed, self._draft = closed, draft_of(root)
        check_well_formed(root, self._draft)
        self._references = References(root, self._draft)
        self._defs: dict[tuple[str, Names | None, bool], str] = {}
        self._waiting: list[tuple[str, Names | None, bool]] = []
        self.free_keys = self.one_of = False
        self.schema = self._place(root, ())
        definitions: dict[str, Any] = {}
        while self._waiting:
            reference, around, branch = key = self._waiting.pop()
            definitions[self._defs[key]] = self._part(self._references.target(reference), around, (reference,), branch)
        if definitions:
            self.schema = self.schema | {"$defs": definitions}

    def _place(self, schema: Any, path: Path) -> Any:
        """A schema that stands alone at its place."""
        names = self._references.names(schema, path)
        closes = self._closed and names.declares and not names.open
        return self._part(schema, Names(order=names.keys) if closes else None, path, False)

    def _part(self, schema: Any, around: Names | None, path: Path, branch: bool) -> Any:
        """One of the schemas at a place.

        Args:
          around: what the others there declare; None where the place is not closed.
          branch: whether it is one of several to choose from, which must each be closed.
        """
        if schema is True and branch and around is not None:
            schema = {}
        if isinstance(schema, bool):
            self.free_keys |= schema
            return schema
        check_keywords(schema, path)
        own, pieces = own_names(schema), self._pieces(schema, path)
        others = own
        for piece in pieces:
            others |= piece.names
        names = None if around is None else around | others
        base = value_keywords(schema, path) | self._array(schema, path)
        base |= self._object(schema, names, path, branch and not pieces)
        applied = self._applied(pieces, None if around is None else around | own, path, branch)
        # In the order of the source, which is that of the keys in an answer.
        first = next((key for key in schema if key in ("properties", "$ref", "allOf", *GROUPS)), None)
        return base | applied if first == "properties" else applied | base

    def _pieces(self, schema: dict[str, Any], path: Path) -> list[_Piece]:
        pieces: list[_Piece] = []
        for keyword in schema:
            if keyword == "$ref":
                alone = {keyword: schema[keyword]}
                pieces.append(_Piece(keyword, [alone], self._references.names(alone, path)))
            elif keyword == "allOf":
                pieces += [_Piece(keyword, [each], self._references.names(each, path)) for each in schema[keyword]]
            elif keyword in GROUPS:
                names = self._references.names({keyword: schema[keyword]}, path)
                pieces.append(_Piece(keyword, schema[keyword], names))
        return pieces

    def _applied(self, pieces: list[_Piece], around: Names | None, path: Path, branch: bool) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for index, piece in enumerate(pieces):
            rest = around
            for other in (*pieces[:index], *pieces[index + 1 :]):
                rest = None if rest is None else rest | other.names
            at = (*path, piece.keyword)
            if piece.keyword == "$ref":
                out["$ref"] = self._reference(piece.schemas[0]["$ref"], rest, branch, path)
            elif piece.keyword == "allOf":
                out.setdefault("allOf", []).append(self._part(piece.schemas[0], rest, at, branch))
            else:
                keyword = piece.keyword
                if keyword == "oneOf" and told_apart(piece.schemas, self._references.target):
                    keyword = "anyOf"
                self.one_of |= keyword == "oneOf"
                parts = [self._part(each, rest, (*at, n), True) for n, each in enumerate(piece.schemas)]
                if keyword in out:  # of the two groups at this place, both must be met
                    out.setdefault("allOf", []).append({keyword: parts})
                else:
                    out[keyword] = parts
        return out

    def _reference(self, reference: str, around: Names | None, branch: bool, path: Path) -> str:
        key = (reference, around, branch)
        if key not in self._defs:
            if len(self._defs) == MAX_DEFINITIONS:
                raise SchemaError(f"more than {MAX_DEFINITIONS} different references", path)
            self._defs[key] = f"{len(self._defs)}"
            self._waiting.append(key)
        return f"#/$defs/{self._defs[key]}"

    def _array(self, schema: dict[str, Any], path: Path) -> dict[str, Any]:
        """In the form of the newest draft."""
        first, rest = schema.get("prefixItems"), schema.get("items")
        if self._draft != NEWEST:
            first, rest = (rest, schema.get("additionalItems")) if isinstance(rest, list) else (None, rest)
        out: dict[str, Any] = {}
        if first is not None:
            out["prefixItems"] = [self._place(each, (*path, "items", n)) for n, each in enumerate(first)]
        if rest is not None:
            out["items"] = self._place(rest, (*path, "items"))
        elif _may_be(schema, "array"):
            self.free_keys = True
        for keyword in ("minItems", "maxItems"):
            if keyword in schema:
                out[keyword] = count(schema, keyword, MAX_COUNT, path)
        return out

    def _object(self, schema: dict[str, Any], names: Names | None, path: Path, branch: bool) -> dict[str, Any]:
        """The keywords of objects; `names` are all of a place that is to be closed."""
        out: dict[str, Any] = {}
        for keyword in ("minProperties", "maxProperties"):
            if keyword in schema:
                out[keyword] = count(schema, keyword, MAX_COUNT, path)
        if "required" in schema:
            out["required"] = schema["required"]
            # What is not declared may be anything.
            self.free_keys |= not set(schema["required"]).issubset(schema.get("properties", ()))
        keys = {
            key: self._place(each, (*path, "properties", key)) for key, each in schema.get("properties", {}).items()
        }
        patterns = {
            key_pattern(text, path): self._place(each, (*path, "patternProperties", text))
            for text, each in schema.get("patternProperties", {}).items()
        }
        may_be = _may_be(schema, "object")
        if "additionalProperties" in schema:
            rest = schema["additionalProperties"]
            out["additionalProperties"] = self._place(rest, (*path, "additionalProperties"))
        elif names is not None and may_be and (branch or keys or patterns):
            keys = {key: keys.get(key, True) for key in names.order if key in keys or key in names.keys}
            admitted = {key_pattern(text, path): True for text in names.patterns}
            patterns = admitted | patterns
            if not patterns and out.get("minProperties", 0) > len(keys):
                raise SchemaError("minProperties needs more keys than are declared; say additionalProperties", path)
            out["additionalProperties"] = False
        free = patterns or (names is None and out.get("additionalProperties") is not False)
        self.free_keys |= bool(free) and may_be
        return out | ({"properties": keys} if keys else {}) | ({"patternProperties": patterns} if patterns else {})


def _may_be(schema: dict[str, Any], kind: str) -> bool:
    """Whether a schema by itself lets a value be an array or object that it does not spell out."""
    return "const" not in schema and "enum" not in schema and kind in schema.get("type", kind)
