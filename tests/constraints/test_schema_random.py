"""Schemas put together at random: taken or refused by name, and whatever is taken keeps its promise."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from jaxphoton.constraints.validator import Validator
from tests.constraints.conftest import VOCABULARY
from tests.constraints.walks import walk

NAMES = ["a", "b", "c", "ab", "kind", "x"]
NUMBERS = [0, 1, -1, 3, 0.1, 0.5, -2.5, 100, 7, 1e-3, 2**53, -17, 1 / 3, 12345.678]
PATTERNS = [r"^\d+$", "a", "^[^x]{2}$", r"\S\S", r"^(?:ab|c\.)*$", r"^\w \w$", r"^[\w.-]+@[\w.-]+\.\w{2,3}$"]
CONSTANTS = [1, 1.0, "a", None, True, [1], {"a": 1}, 0.1, "b", [], {}, 2]
REFERENCES = ["#", "#/$defs/p", "#/$defs/q"]


class Author:
    """Writes schemas."""

    def __init__(self, seed: int):
        self.chance = random.Random(seed)

    def document(self) -> dict[str, Any]:
        schema = self.schema(3)
        return {**(schema if isinstance(schema, dict) else {}), "$defs": {"p": self.schema(2), "q": self.schema(2)}}

    def schema(self, depth: int) -> Any:
        draw = self.chance.random() if depth else 0
        if draw < 0.35:
            return self.chance.choice([self.number, self.string, self.constant, self.anything])()
        if draw < 0.7:
            return self.object(depth - 1)
        if draw < 0.85:
            return self.array(depth - 1)
        if draw < 0.93:
            return {self.chance.choice(["anyOf", "anyOf", "allOf", "oneOf"]): self.schemas(depth - 1)}
        return {"$ref": self.chance.choice(REFERENCES)}

    def schemas(self, depth: int) -> list[Any]:
        return [self.schema(depth) for _ in range(self.chance.randint(1, 3))]

    def maybe(self, likely: float, **keywords: Any) -> dict[str, Any]:
        """Each keyword or not; values are made by a call where they are functions."""
        some = {keyword: value for keyword, value in keywords.items() if self.chance.random() < likely}
        return {keyword: value() if callable(value) else value for keyword, value in some.items()}

    def number(self) -> dict[str, Any]:
        def bound() -> float:
            return self.chance.choice(NUMBERS)

        bounds = dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), bound)
        kind = self.chance.choice(["integer", "number"])
        return (
            {"type": kind} | self.maybe(0.25, **bounds) | self.maybe(0.15, multipleOf=self.chance.choice([1, 3, 0.5]))
        )

    def string(self) -> dict[str, Any]:
        lengths = self.maybe(0.3, minLength=self.chance.randint(0, 4), maxLength=self.chance.randint(2, 6))
        return {"type": "string"} | lengths | self.maybe(0.4, pattern=self.chance.choice(PATTERNS))

    def constant(self) -> dict[str, Any]:
        some = self.chance.sample(CONSTANTS, self.chance.randint(1, 4))
        return self.chance.choice([{"const": some[0]}, {"enum": some}])

    def anything(self) -> Any:
        types = self.chance.sample(["integer", "string", "null", "object", "array", "boolean"], 2)
        return self.chance.choice([True, {}, {"description": "x"}, False, {"type": types}])

    def array(self, depth: int) -> dict[str, Any]:
        items = self.maybe(0.8, items=lambda: self.schema(depth)) | self.maybe(
            0.3, prefixItems=lambda: self.schemas(depth), minItems=self.chance.randint(0, 2)
        )
        return {"type": "array"} | items | self.maybe(0.5, maxItems=self.chance.randint(1, 3))

    def object(self, depth: int) -> dict[str, Any]:
        def some() -> list[str]:
            return self.chance.sample(NAMES, self.chance.randint(1, 3))

        keywords = self.maybe(0.8, type="object", properties=lambda: {name: self.schema(depth) for name in some()})
        keywords |= self.maybe(0.5, required=some)
        keywords |= self.maybe(0.2, additionalProperties=lambda: self.chance.choice([True, False, self.schema(depth)]))
        pattern = self.chance.choice(["^a", "^[b-z]+$", "x"])
        keywords |= self.maybe(0.1, patternProperties=lambda: {pattern: self.schema(depth)}, minProperties=2)
        groups = dict.fromkeys(("allOf", "anyOf", "oneOf"), lambda: self.schemas(depth))
        keywords |= self.maybe(0.18, **groups) | self.maybe(0.1, **{"$ref": self.chance.choice(REFERENCES)})
        order = list(keywords)
        self.chance.shuffle(order)
        return {keyword: keywords[keyword] for keyword in order}


@pytest.mark.parametrize("seed", range(10))
def test_what_is_taken_keeps_its_promise(grammars, json_tokenizer, monkeypatch, seed):
    # Without the last look at an answer: nothing may be left for it.
    monkeypatch.setattr(Validator, "fault", lambda *_: None)
    taken = finished = 0
    for number in range(12):
        schema = Author(100 * seed + number).document()
        try:
            make = grammars.compile({"schema": schema}, False)
        except ValueError as error:
            assert str(error).startswith("setting schema cannot be used: "), schema
            continue
        taken += 1
        for each in range(4):
            try:
                text = json_tokenizer.decode(
                    walk(make(), VOCABULARY + 12, each, grammars._token_bytes.quotes[1].tolist(), 150)
                )
            except TimeoutError:
                continue
            pairs: list[int] = []
            value = json.loads(
                text, object_pairs_hook=lambda found, pairs=pairs: pairs.append(len(found)) or dict(found)
            )
            assert sum(pairs) == text_keys(value), (schema, text)
            jsonschema.validate(value, schema)
            finished += 1
    assert taken > 2 and finished > taken


def text_keys(value: Any) -> int:
    """How many keys there are in all."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (len(value) if isinstance(value, dict) else 0) + sum(map(text_keys, inner))
