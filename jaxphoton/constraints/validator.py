"""Whether a finished text is JSON that is valid against a schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from jaxphoton.constraints.schema import DRAFTS, draft_of


class Validator:
    """Judges texts by one schema, with jsonschema: a last look at what a grammar let through.

    Patterns are the grammar's alone: Python's engine can take for ever over one.
    """

    def __init__(self, root: Any):
        import jsonschema
        from jsonschema import validators

        standard = getattr(jsonschema, DRAFTS[draft_of(root)])

        def additional(validator: Any, rest: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if "patternProperties" not in schema:
                yield from standard.VALIDATORS["additionalProperties"](validator, rest, instance, schema)

        def pattern(*_: Any) -> None:
            return None

        ours = {"pattern": pattern, "patternProperties": pattern, "additionalProperties": additional}
        # Without $schema: a reference to the root would bring the standard validator back.
        schema = {key: each for key, each in root.items() if key != "$schema"} if isinstance(root, dict) else root
        self._validator = validators.extend(standard, ours)(schema)

    def fault(self, text: bytes) -> str | None:
        """What is wrong with a text, or None."""
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
            error = next(self._validator.iter_errors(value), None)
        except RecursionError:
            return "it is nested too deep"
        except ValueError as error:
            return str(error)
        return None if error is None else f"{error.validator}: {error.message[:200]}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value
