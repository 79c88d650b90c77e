"""What of a schema has an answer that ends at all."""

from __future__ import annotations

from typing import Any


def without_endless(schema: Any) -> Any:
    """A schema in normal form without what would have to hold itself; False where that is all of it."""
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
    ends: set[str] = set()
    while found := {name for name, each in definitions.items() if name not in ends and _ends(each, ends)}:
        ends |= found
    if not _ends(schema, ends):
        return False
    dead = {f"#/$defs/{name}" for name in definitions if name not in ends}
    return _without(schema, dead) if dead else schema


def _without(value: Any, dead: set[str]) -> Any:
    if isinstance(value, list):
        return [_without(each, dead) for each in value]
    if not isinstance(value, dict):
        return value
    # A constant, or a property of this name, holds no text there that is the address of a definition by chance.
    if isinstance(value.get("$ref"), str) and value["$ref"] in dead:
        return False
    return {key: each if key in ("const", "enum") else _without(each, dead) for key, each in value.items()}


def _ends(schema: Any, known: set[str]) -> bool:
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and schema["$ref"].rpartition("/")[2] not in known:
        return False
    if not all(_ends(each, known) for each in schema.get("allOf", ())):
        return False
    for group in ("anyOf", "oneOf"):
        if group in schema and not any(_ends(each, known) for each in schema[group]):
            return False
    given = schema.get("type", "string")
    types = {given} if isinstance(given, str) else set(given)
    if "const" in schema or "enum" in schema or types - {"object", "array"}:
        return True
    return ("object" in types and _object_ends(schema, known)) or ("array" in types and _array_ends(schema, known))


def _object_ends(schema: dict[str, Any], known: set[str]) -> bool:
    rest = schema.get("additionalProperties", True)
    keys = schema.get("properties", {})
    if not all(_ends(keys.get(key, True), known) for key in schema.get("required", ())):
        return False
    kinds = [*keys.values(), *schema.get("patternProperties", {}).values(), rest]
    return not schema.get("minProperties") or any(_ends(each, known) for each in kinds)


def _array_ends(schema: dict[str, Any], known: set[str]) -> bool:
    fewest, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    needed = first[:fewest] + ([schema.get("items", True)] if fewest > len(first) else [])
    return all(_ends(each, known) for each in needed)
