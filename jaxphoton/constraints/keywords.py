"""The keywords of one schema that say something about a value itself, narrowed to what is kept to the letter."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Any

from jaxphoton.constraints.patterns import PatternError, narrowed
from jaxphoton.constraints.schema import SchemaError
from jaxphoton.messages import quoted

Path = tuple[str | int, ...]

# Bounds are kept as floats: integers beyond this are not exact, and numbers nearer to 0 make patterns too large.
MAX_BOUND = 2**53
MIN_BOUND = 1e-15
SHORT = 15  # digits of a fraction that every reader gets right, llguidance's too
MAX_COUNT = 10_000
MAX_LENGTH = 1_000_000
MAX_MULTIPLE = 10_000

# What the grammar has no form for. Left out they would not be kept.
REFUSED = (
    *("not", "if", "then", "else", "dependencies", "dependentRequired", "dependentSchemas", "propertyNames"),
    *("contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems", "unevaluatedProperties"),
    *("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "x-guidance"),
)
# What says nothing: these values are those that every schema has.
IDLE = {"uniqueItems": False, "unevaluatedItems": True, "unevaluatedProperties": True, "$recursiveAnchor": False}

# A control character has a \u form only, and \u forms are off: a key could be written in two ways.
_UNWRITABLE = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f]")


def check_keywords(schema: dict[str, Any], path: Path) -> None:
    """Raises SchemaError for a keyword that is not supported; `id` is that of draft 4, and says nothing later."""
    for keyword in REFUSED:
        # "is": 0 and 1 are no bools.
        if keyword in schema and schema[keyword] is not IDLE.get(keyword):
            raise SchemaError(f"{keyword} is not supported", path)
    for keyword in ("$id", "$schema", "id"):
        if path and keyword in schema:
            raise SchemaError(f"{keyword} is supported at the root only", path)


def value_keywords(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """type, const, enum and those of numbers and strings; the others are left to the caller."""
    out = {keyword: schema[keyword] for keyword in ("type", "const", "enum") if keyword in schema}
    for keyword in ("const", "enum"):
        if keyword in schema:
            _check_constant(schema[keyword], keyword, path)
    out |= _numbers(schema, path)
    for keyword in ("minLength", "maxLength"):
        if keyword in schema:
            out[keyword] = count(schema, keyword, MAX_LENGTH, path)
    if "pattern" in schema:
        out["pattern"] = pattern(schema["pattern"], "pattern", path)
    types = schema.get("type", "string")
    if "format" in schema and "string" in ([types] if isinstance(types, str) else types):
        out["format"] = schema["format"]
    return out


def count(schema: dict[str, Any], keyword: str, most: int, path: Path) -> int:
    if schema[keyword] > most:
        raise SchemaError(f"{keyword} may be at most {most:,}", path)
    return int(schema[keyword])


def pattern(text: str, keyword: str, path: Path) -> str:
    try:
        return narrowed(text)
    except PatternError as error:
        raise SchemaError(f"{keyword} {quoted(text)} is not supported: {error}", path) from None


def key_pattern(text: str, path: Path) -> str:
    """A pattern of keys: whatever was written of a key, it must be able to become one that is not used yet."""
    ends = [found.start() for found in re.finditer(r"\\.|\$", text) if found[0] == "$"]
    if ends and (ends != [len(text) - 1] or not re.search(r"(?:[*+]|,\})\??\$$", text)):
        raise SchemaError(f"patternProperties {quoted(text)} is not supported: its keys must be able to go on", path)
    return pattern(text, "patternProperties", path)


def _numbers(schema: dict[str, Any], path: Path) -> dict[str, Any]:
    """Inclusive bounds: a decimal just beyond an exclusive one would be rounded to it."""
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    for keyword in bounds:
        value = schema.get(keyword, 0)
        if not isinstance(value, bool) and (abs(value) > MAX_BOUND or 0 < abs(value) < MIN_BOUND):
            raise SchemaError(f"{keyword} must be 0 or between {MIN_BOUND} and 2^53, either sign", path)
    low, high, above, below = (schema.get(keyword) for keyword in bounds)
    # Draft 4: a bool beside the bound.
    above, below = (low if above is True else above), (high if below is True else below)
    lows = [value for value in (low, _next(above, math.inf)) if value is not None]
    highs = [value for value in (high, _next(below, -math.inf)) if value is not None]
    out: dict[str, Any] = {}
    if lows:
        out["minimum"] = _short(max(lows), ROUND_CEILING)
    if highs:
        out["maximum"] = _short(min(highs), ROUND_FLOOR)
    if "multipleOf" in schema:
        step = Fraction(schema["multipleOf"])
        # Binary fractions are exact; 0.3 is no multiple of 0.1 in floats.
        if step.denominator not in (1, 2, 4, 8) or step > MAX_MULTIPLE:
            raise SchemaError(f"multipleOf must be at most {MAX_MULTIPLE:,} and in whole eighths", path)
        out["multipleOf"] = int(step) if step.denominator == 1 else float(step)
    return out


def _next(bound: float | bool | None, towards: float) -> float | None:
    """The nearest number to an exclusive bound that is inside."""
    if bound is None or bound is False:
        return None
    if bound == 0:
        return math.copysign(MIN_BOUND, towards)
    return math.nextafter(bound, towards)


def _short(bound: float, rounding: str) -> int | float:
    """A bound that llguidance reads exactly, on the inner side of the one given."""
    if bound == int(bound):
        return int(bound)
    return float(Context(SHORT, rounding).create_decimal(repr(bound)))


def _check_constant(value: Any, keyword: str, path: Path) -> None:
    if isinstance(value, str) and _UNWRITABLE.search(value):
        raise SchemaError(f"{keyword} holds a control character: {quoted(value)}", path)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) > MAX_BOUND or 0 < abs(value) < MIN_BOUND:
            raise SchemaError(f"{keyword} holds a number that is neither 0 nor between {MIN_BOUND} and 2^53", path)
        if len(Decimal(repr(value)).as_tuple().digits) > SHORT and value != int(value):
            raise SchemaError(f"{keyword} holds a number of more than {SHORT} digits", path)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_constant(item, keyword, path)
