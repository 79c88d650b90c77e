"""Whether a value can be valid against one branch of a oneOf alone, so that the group is an anyOf.

llguidance looks for that too, but not behind references, which is where programs that write schemas put the branches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

_TYPES = frozenset({"null", "boolean", "object", "array", "number", "string"})
_MOST = 100  # branches: each is compared with each


class _Facts(NamedTuple):
    """What every valid value shows.

    Attributes:
      types: of which it is one, integers being numbers.
      values: of which it is one; None for any.
      tags: what is known of the values of keys that it has.
    """

    types: frozenset[str] = _TYPES
    values: list[Any] | None = None
    tags: dict[str, list[Any]] = {}


def told_apart(branches: list[Any], target: Callable[[str], Any]) -> bool:
    """Whether each two branches differ in their types, in their constants, or in those of a required property.

    Args:
      target: finds the schema that a reference names.
    """
    if len(branches) > _MOST:
        return False
    facts = [_facts(branch, target, frozenset()) for branch in branches]
    return all(_apart(*pair) for pair in combinations(facts, 2))


def _apart(left: _Facts, right: _Facts) -> bool:
    types = left.types & right.types
    if not types or _disjoint(left.values, right.values):
        return True
    shared = left.tags.keys() & right.tags.keys()
    return types == {"object"} and any(_disjoint(left.tags[key], right.tags[key]) for key in shared)


def _disjoint(left: list[Any] | None, right: list[Any] | None) -> bool:
    # True equals 1 here, which they do not in JSON: then llguidance is asked.
    return left is not None and right is not None and not any(value in right for value in left)


def _facts(schema: Any, target: Callable[[str], Any], seen: frozenset[str]) -> _Facts:
    if not isinstance(schema, dict):
        return _Facts(_TYPES if schema else frozenset())
    given = schema.get("type")
    names = {given} if isinstance(given, str) else set(given or _TYPES)
    types = frozenset({"number" if name == "integer" else name for name in names})
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    keys = schema.get("properties", {})
    tags = {
        key: found
        for key in schema.get("required", ())
        if key in keys and (found := _facts(keys[key], target, seen).values) is not None
    }
    others = [_facts(each, target, seen) for each in schema.get("allOf", ())]
    reference = schema.get("$ref")
    if reference is not None and reference not in seen:
        others.append(_facts(target(reference), target, seen | {reference}))
    for other in others:
        types, values, tags = types & other.types, values or other.values, other.tags | tags
    return _Facts(types, values, tags)
